//! One attached peer: what waits to be sent to it, and how its connection will end.
//!
//! Output is written by whoever produced it, in the same turn, as far as the peer has given credit. Nobody waits: what
//! does not fit stays here until the peer's own task is woken to go on.

use super::close::Close;
use super::{Tuning, counters};
use kiln_protocol::{Epoch, ToNode, encode_to_node};
use quinn::{Connection, SendStream};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// A buffer that grew beyond this is given back once it is empty.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Encoded messages that QUIC has not taken yet.
#[derive(Debug, Default)]
struct Output {
    bytes: Vec<u8>,
    /// How many of them QUIC has.
    taken: usize,
}

impl Output {
    const fn pending(&self) -> usize {
        self.bytes.len() - self.taken
    }

    fn take(&mut self, bytes: usize) {
        self.taken += bytes;
        if self.pending() == 0 {
            self.clear();
        } else if self.taken >= KEPT_BYTES_MAX && self.taken > self.pending() {
            // Moves fewer bytes than were taken since the last time.
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
    }

    fn clear(&mut self) {
        self.taken = 0;
        self.bytes.clear();
        if self.bytes.capacity() > KEPT_BYTES_MAX {
            self.bytes = Vec::new();
        }
    }
}

/// What the peer's task finds when it looks after its output.
pub(super) enum OutputState {
    /// All has been taken by QUIC.
    Drained,
    /// The peer gives no credit since then.
    Blocked(Instant),
    /// All has been taken, and the connection is to end.
    Ended(Close),
}

/// One attached peer.
pub(super) struct Session {
    pub(super) node: String,
    pub(super) peer: SocketAddr,
    pub(super) connection: Connection,
    stream: SendStream,
    output: Output,
    /// With more pending, the peer is cut off.
    output_bytes_max: usize,
    /// With more pending, what the peer says is left unread.
    pending_bytes_max: usize,
    /// With more pending, the peer is behind.
    behind_bytes: usize,
    behind: bool,
    /// Since when the peer has given no credit.
    blocked: Option<Instant>,
    /// The peer's task: reader and writer in one.
    task: Option<Waker>,
    /// The reader waits until less output is pending.
    gated: bool,
    /// How the connection ends once the output is drained.
    end: Option<Close>,
    /// The connection was closed already; output is dropped.
    cut: bool,
    /// Has output of the present batch.
    pub(super) touched: bool,
    /// It was said that the peer sends what is no good.
    pub(super) complained: bool,
}

impl Session {
    pub(super) fn new(
        node: String,
        peer: SocketAddr,
        connection: Connection,
        stream: SendStream,
        tuning: &Tuning,
    ) -> Self {
        Self {
            node,
            peer,
            connection,
            stream,
            output: Output::default(),
            output_bytes_max: tuning.output_bytes_max,
            pending_bytes_max: tuning.pending_bytes_max,
            behind_bytes: tuning.behind_bytes,
            behind: false,
            blocked: None,
            task: None,
            gated: false,
            end: None,
            complained: false,
            cut: false,
            touched: false,
        }
    }

    /// Appends a message; returns its length. A peer with too much pending is cut off instead.
    pub(super) fn push(&mut self, epoch: Epoch, message: &ToNode) -> usize {
        if self.cut {
            return 0;
        }
        let before = self.output.bytes.len();
        encode_to_node(&mut self.output.bytes, epoch, message);
        if self.output.pending() > self.output_bytes_max {
            self.cut(Close::Slow(format!(
                "{} bytes wait to be sent to this node, the limit is {}",
                self.output.pending(),
                self.output_bytes_max
            )));
            return 0;
        }
        self.output.bytes.len() - before
    }

    /// Whether the peer must first read what it asked for.
    pub(super) const fn is_full(&self) -> bool {
        self.output.pending() > self.pending_bytes_max
    }

    /// Whether it is behind since the last look.
    pub(super) fn falls_behind(&mut self) -> bool {
        let falls = !self.behind && !self.cut && self.blocked.is_some() && self.output.pending() > self.behind_bytes;
        self.behind |= falls;
        if falls {
            tracing::warn!(node = ?self.node, peer = %self.peer, "the node does not keep up: it is told only what changed");
        }
        falls
    }

    /// Everything was sent. Returns whether it was behind.
    pub(super) fn catches_up(&mut self) -> bool {
        self.output.pending() == 0 && std::mem::take(&mut self.behind)
    }

    /// Whether nothing it says matters any more.
    pub(super) const fn is_ending(&self) -> bool {
        self.cut || self.end.is_some()
    }

    /// Ends the connection after what was sent.
    pub(super) fn end(&mut self, close: Close) {
        if self.end.is_none() && !self.cut {
            self.end = Some(close);
            self.wake();
        }
    }

    /// Ends the connection now. The peer's task notices and detaches the session.
    pub(super) fn cut(&mut self, close: Close) {
        if self.cut {
            return;
        }
        tracing::warn!(node = ?self.node, peer = %self.peer, reason = close.reason(), "peer cut off");
        close.apply(&self.connection);
        counters::cut();
        self.cut = true;
        self.output.clear();
        self.wake();
    }

    fn wake(&self) {
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }

    /// Hands output to QUIC as far as the peer has given credit.
    pub(super) fn write(&mut self, now: Instant) {
        self.touched = false;
        // While blocked only the task tries again, so that its waker is the one QUIC has.
        if self.blocked.is_none() {
            let task = self.task.clone();
            let waker = task.as_ref().unwrap_or_else(|| Waker::noop());
            self.try_write(now, &mut Context::from_waker(waker));
        }
    }

    fn try_write(&mut self, now: Instant, context: &mut Context<'_>) {
        self.hand_over(now, context);
        if self.gated && !self.is_full() {
            self.gated = false;
            self.wake();
        }
    }

    fn hand_over(&mut self, now: Instant, context: &mut Context<'_>) {
        while self.output.pending() > 0 {
            let pending = &self.output.bytes[self.output.taken..];
            match Pin::new(&mut self.stream).poll_write(context, pending) {
                Poll::Ready(Ok(bytes)) => {
                    self.output.take(bytes);
                    self.blocked = None;
                }
                Poll::Ready(Err(quinn::WriteError::ConnectionLost(_))) => {
                    // The reader is told as well, and says why.
                    self.cut = true;
                    self.output.clear();
                }
                Poll::Ready(Err(error)) => {
                    self.cut(Close::Violation(format!("the coordinator's half of the stream ended ({error})")));
                }
                Poll::Pending => {
                    if self.blocked.is_none() {
                        self.blocked = Some(now);
                        self.wake();
                    }
                    return;
                }
            }
        }
        self.blocked = None;
    }

    fn remember(&mut self, context: &Context<'_>) {
        match &mut self.task {
            Some(task) => task.clone_from(context.waker()),
            None => self.task = Some(context.waker().clone()),
        }
    }

    /// The task's look after the output. `last` is what it knows already.
    pub(super) fn poll_output(
        &mut self,
        last: Option<Instant>,
        now: Instant,
        context: &mut Context<'_>,
    ) -> Poll<OutputState> {
        self.remember(context);
        self.try_write(now, context);
        if let Some(since) = self.blocked {
            return if last == Some(since) { Poll::Pending } else { Poll::Ready(OutputState::Blocked(since)) };
        }
        if let Some(close) = &self.end {
            return Poll::Ready(OutputState::Ended(close.clone()));
        }
        if last.is_some() {
            return Poll::Ready(OutputState::Drained);
        }
        Poll::Pending
    }

    /// Ready when so little output is pending that the peer may ask for more.
    pub(super) fn poll_room(&mut self, context: &Context<'_>) -> Poll<()> {
        self.remember(context);
        self.gated = self.is_full();
        if self.gated { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Ends our half of the stream; the result is ready once the peer's QUIC has all of it.
    pub(super) fn finish(&mut self) -> impl Future<Output = ()> + use<> {
        // Fails only when the stream ended before: then there is nothing to wait for.
        let finished = self.stream.finish();
        let stopped = self.stream.stopped();
        async move {
            if finished.is_ok() {
                // Whether acknowledged, stopped or lost: no more can be done for it.
                drop(stopped.await);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_comes_out_as_it_went_in() {
        const ROUND: usize = 300_001;
        let mut output = Output::default();
        let (mut put, mut taken) = (0_u32, 0_u32);
        // More goes in than comes out, then all of it comes out.
        for round in 0..40 {
            if round < 20 {
                while output.pending() < (round + 1) * ROUND {
                    output.bytes.extend_from_slice(&put.to_le_bytes());
                    put += 1;
                }
            }
            let take = (output.pending() / 8).max(ROUND).min(output.pending()) / 4 * 4;
            for word in output.bytes[output.taken..output.taken + take].chunks_exact(4) {
                assert_eq!(word, taken.to_le_bytes());
                taken += 1;
            }
            output.take(take);
            assert!(output.taken <= output.pending().max(KEPT_BYTES_MAX) + take, "what was taken is kept");
        }
        assert!(taken > 20 * u32::try_from(KEPT_BYTES_MAX).unwrap() / 8);
        output.take(output.pending());
        assert_eq!((output.pending(), output.bytes.capacity()), (0, 0));
    }
}
