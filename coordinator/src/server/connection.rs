//! One connection from its first packet to its last: handshake, Hello, then a reader and a writer in one task.

use super::close::Close;
use super::session::{OutputState, Session};
use super::{Shared, counters, snapshots};
use crate::engine::SessionId;
use bytes::Bytes;
use kiln_protocol::codec::decode_to_coordinator;
use kiln_protocol::limits::NAME_BYTES_MAX;
use kiln_protocol::message::Hello;
use kiln_protocol::{DecodeError, FrameDecoder, Secret, ToCoordinator};
use quinn::{Connection, ConnectionError, Incoming, ReadError, RecvStream, SendStream};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant as Deadline, timeout, timeout_at};

/// Pieces of the stream read in one turn; each is at most a packet.
const CHUNKS_MAX: usize = 64;
/// Enough for any Hello: before it nobody gets to make us keep more.
const HELLO_BYTES_MAX: usize = NAME_BYTES_MAX + 64;
/// How long a peer may take to receive the last words.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Why a peer did not get as far as the engine.
#[derive(Debug, thiserror::Error)]
enum NotAttached {
    #[error("the handshake failed: {0}")]
    Handshake(#[from] ConnectionError),
    #[error("reading its Hello failed: {0}")]
    Read(#[from] ReadError),
    #[error("its first message is not a Hello: {0}")]
    Decode(#[from] DecodeError),
    #[error("its first message is not a Hello")]
    NotHello,
    #[error("its first message is longer than any Hello, {HELLO_BYTES_MAX} bytes")]
    TooLong,
    #[error("it ended the stream before its Hello")]
    Finished,
    #[error("it did not say Hello in time")]
    Late,
    #[error("the coordinator is stopping")]
    Stopping,
}

impl NotAttached {
    fn close(&self) -> Close {
        match self {
            Self::Late => Close::Late,
            Self::Stopping => Close::Stopping,
            Self::Handshake(_) | Self::Read(_) | Self::Decode(_) | Self::NotHello | Self::TooLong | Self::Finished => {
                Close::Violation(self.to_string())
            }
        }
    }
}

/// How an attached peer's connection ended.
enum Ending {
    /// Closed by the peer, by the network, or cut off by us.
    Lost(String),
    /// To be closed by us for what it did.
    Bad(Close),
    /// Ended in good order.
    Done(Close),
}

/// Sees one connection through. Holds `permit` until the peer is attached or refused.
pub(super) async fn serve(incoming: Incoming, shared: Arc<Shared>, permit: OwnedSemaphorePermit) {
    let peer = incoming.remote_address();
    let mut half_open = None;
    let mut stopping = shared.stopping.subscribe();
    let hello = tokio::select! {
        hello = timeout(shared.tuning.hello_timeout, hello(incoming, &shared, &mut half_open)) => hello,
        // The sender is in `shared`, so it has not gone.
        _ = stopping.wait_for(|stopping| *stopping) => Ok(Err(NotAttached::Stopping)),
    };
    let (connection, stream, reader, hello) = match hello.unwrap_or(Err(NotAttached::Late)) {
        Ok(attached) => attached,
        Err(error) => {
            shared.complain(peer, &error);
            counters::refused();
            if let Some(connection) = half_open {
                error.close().apply(&connection);
            }
            return;
        }
    };
    let node = hello.name.clone();
    let Some(secret) = secret() else {
        tracing::error!(?node, %peer, "the system gives no random bytes: no secret for this node");
        Close::Refused("the coordinator's system gives no random bytes".into()).apply(&connection);
        return;
    };
    let session = Session::new(node.clone(), peer, connection.clone(), stream, &shared.tuning);
    let id = shared.core().attach(session, hello, secret);
    drop(permit);

    let ending = tokio::select! {
        ending = read(&shared, id, reader, &connection) => ending,
        ending = write(&shared, id) => ending,
    };
    // Before the last words: others must not wait for this peer's locks meanwhile.
    let last_words = shared.core().session(id).map(Session::finish);
    if is_goodbye(&connection) {
        shared.core().leave(id);
    }
    shared.core().detach(id);
    match ending {
        Ending::Lost(reason) => tracing::info!(?node, %peer, reason, "detached"),
        Ending::Bad(close) => {
            tracing::warn!(?node, %peer, reason = close.reason(), "peer cut off");
            counters::cut();
            close.apply(&connection);
        }
        Ending::Done(close) => {
            tracing::info!(?node, %peer, reason = close.reason(), "detached");
            if let Some(last_words) = last_words {
                // A peer that does not acknowledge them in time has lost them.
                drop(timeout(LAST_WORDS, last_words).await);
            }
            close.apply(&connection);
        }
    }
}

/// Whether the peer itself has closed the connection in good order: it holds nothing any more. Any other end may be that
/// of the connection alone.
fn is_goodbye(connection: &Connection) -> bool {
    matches!(
        connection.close_reason(),
        Some(ConnectionError::ApplicationClosed(close)) if close.error_code == Close::Goodbye.code()
    )
}

type Attached = (Connection, SendStream, Reader, Hello);

async fn hello(
    incoming: Incoming,
    shared: &Shared,
    half_open: &mut Option<Connection>,
) -> Result<Attached, NotAttached> {
    let connection = incoming.await?;
    *half_open = Some(connection.clone());
    let (send, receive) = connection.accept_bi().await?;
    let mut reader =
        Reader { receive, decoder: FrameDecoder::default(), chunks: Box::new([const { Bytes::new() }; CHUNKS_MAX]) };
    let frame = loop {
        if let Some(frame) = reader.decoder.next_frame()? {
            break frame;
        }
        if reader.decoder.pending_bytes() > HELLO_BYTES_MAX {
            return Err(NotAttached::TooLong);
        }
        if !reader.fill(1).await? {
            return Err(NotAttached::Finished);
        }
    };
    if frame.len() > HELLO_BYTES_MAX {
        return Err(NotAttached::TooLong);
    }
    let ToCoordinator::Hello(hello) = decode_to_coordinator(shared.epoch, &frame)? else {
        return Err(NotAttached::NotHello);
    };
    Ok((connection, send, reader, hello))
}

fn secret() -> Option<Secret> {
    let mut bytes = [0; 16];
    let random = ring::rand::SystemRandom::new();
    ring::rand::SecureRandom::fill(&random, &mut bytes).ok()?;
    Some(Secret::from_bytes(bytes))
}

struct Reader {
    receive: RecvStream,
    decoder: FrameDecoder,
    chunks: Box<[Bytes; CHUNKS_MAX]>,
}

impl Reader {
    /// Takes in what has arrived, at most so many chunks. `false` at the end of the stream.
    async fn fill(&mut self, chunks_max: usize) -> Result<bool, ReadError> {
        let Some(count) = self.receive.read_chunks(&mut self.chunks[..chunks_max]).await? else {
            return Ok(false);
        };
        for chunk in &mut self.chunks[..count] {
            self.decoder.push(&std::mem::take(chunk));
        }
        Ok(true)
    }
}

/// Where a batch ended.
enum Batch {
    /// With the last whole frame.
    Empty,
    /// Before it: the peer must first read what it asked for.
    Full,
    /// The peer has said enough: what follows is not read.
    Enough,
}

async fn read(shared: &Shared, id: SessionId, mut reader: Reader, connection: &Connection) -> Ending {
    loop {
        // The first turn finds what came behind the Hello.
        match batch(shared, id, &mut reader.decoder) {
            Ok(Batch::Empty) => match reader.fill(CHUNKS_MAX).await {
                Ok(true) => {}
                Ok(false) => return Ending::Lost("it ended its stream".into()),
                Err(error) => return Ending::Lost(error.to_string()),
            },
            Ok(Batch::Full) => room(shared, id).await,
            // The writer ends the connection, unless it is cut off already.
            Ok(Batch::Enough) => return Ending::Lost(connection.closed().await.to_string()),
            Err(error) => return Ending::Bad(Close::Violation(error.to_string())),
        }
    }
}

/// Feeds the engine all whole frames, in one go.
fn batch(shared: &Shared, id: SessionId, decoder: &mut FrameDecoder) -> Result<Batch, DecodeError> {
    let mut core = shared.core();
    core.begin();
    let outcome = loop {
        match core.session(id) {
            Some(session) if session.is_ending() => break Ok(Batch::Enough),
            Some(session) if session.is_full() => break Ok(Batch::Full),
            Some(_) => {}
            None => break Ok(Batch::Enough),
        }
        let message = match decoder.next_frame() {
            Ok(Some(frame)) => decode_to_coordinator(shared.epoch, &frame),
            Ok(None) => break Ok(Batch::Empty),
            Err(error) => Err(error),
        };
        match message {
            Ok(ToCoordinator::Snapshot { request }) => snapshots::ask(shared, &mut core, id, request),
            Ok(message) => core.message(id, message),
            Err(error) => break Err(error),
        }
    };
    core.finish();
    outcome
}

async fn room(shared: &Shared, id: SessionId) {
    poll_fn(|context| match shared.core().session(id) {
        Some(session) => session.poll_room(context),
        None => Poll::Ready(()),
    })
    .await;
}

async fn write(shared: &Shared, id: SessionId) -> Ending {
    let mut blocked = None;
    loop {
        let look = poll_fn(|context| {
            let now = super::clock::now();
            match shared.core().session(id) {
                Some(session) => session.poll_output(blocked, now, context),
                None => Poll::Pending,
            }
        });
        let state = match blocked {
            None => Ok(look.await),
            Some(since) => timeout_at(Deadline::from_std(since + shared.tuning.stall_timeout), look).await,
        };
        match state {
            Ok(OutputState::Drained) => {
                blocked = None;
                shared.core().catch_up(id);
            }
            Ok(OutputState::Blocked(since)) => blocked = Some(since),
            Ok(OutputState::Ended(close)) => return Ending::Done(close),
            Err(_elapsed) => {
                let stall_timeout = shared.tuning.stall_timeout;
                return Ending::Bad(Close::Slow(format!("this node has read nothing for {stall_timeout:?}")));
            }
        }
    }
}
