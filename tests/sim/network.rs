//! Connections: an ordered stream of bytes each way, cut where chance cuts it, and what makes either end believe that the
//! other is gone.
//!
//! As QUIC does it: what is lost on the way is sent again, so a partition delays bytes until it heals, or until an end has
//! heard nothing for the idle timeout. A coordinator that runs answers what belongs to no connection of its with a reset; a
//! close is said once, and may be lost.

use crate::clock::{MICRO, MILLI, Nanos, SECOND, nanos};
use crate::faults::{Fault, LAG};
use crate::process::Process;
use crate::sometimes::Sometimes;
use crate::world::{Happening, World};
use kiln_coordinator::engine::SessionId;
use kiln_protocol::FrameDecoder;
use kiln_protocol::connection::{IDLE_TIMEOUT_MS, KEEP_ALIVE};
use std::collections::VecDeque;
use std::time::Duration;

const IDLE_TIMEOUT: Nanos = IDLE_TIMEOUT_MS as Nanos * MILLI;
/// What a slow reader lets the coordinator send ahead.
const SLOW_WINDOW_BYTES: usize = 400;
/// Bytes that wait for a slow reader before it is told only what changed.
const BEHIND_BYTES: usize = 1 << 8;
/// A node that reads this little is cut off.
const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// Which end of a connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum End {
    Coordinator,
    Node,
}

impl End {
    pub(crate) const BOTH: [Self; 2] = [Self::Coordinator, Self::Node];

    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Coordinator => Self::Node,
            Self::Node => Self::Coordinator,
        }
    }
}

/// What one end has.
#[derive(Debug, Default)]
struct Side {
    open: bool,
    /// Since when it has heard nothing.
    deaf: Option<Nanos>,
    decoder: FrameDecoder,
    /// Bytes on their way to this end, and when each piece arrives.
    arriving: VecDeque<(Nanos, Vec<u8>)>,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) session: SessionId,
    pub(crate) process: usize,
    /// The machine of the process.
    pub(crate) place: usize,
    /// The coordinator has been told of it.
    pub(crate) attached: bool,
    coordinator: Side,
    node: Side,
    /// What the coordinator cannot send yet.
    pending: VecDeque<u8>,
    behind: bool,
    reset_due: bool,
}

impl Link {
    fn side(&mut self, end: End) -> &mut Side {
        match end {
            End::Coordinator => &mut self.coordinator,
            End::Node => &mut self.node,
        }
    }

    pub(crate) const fn is_open(&self, end: End) -> bool {
        match end {
            End::Coordinator => self.coordinator.open,
            End::Node => self.node.open,
        }
    }
}

/// How a machine reaches the coordinator.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reach {
    pub(crate) cut_up: bool,
    pub(crate) cut_down: bool,
    /// It reads slowly.
    pub(crate) slow: bool,
    /// Whatever it sends or is sent takes this much longer.
    pub(crate) lag: Nanos,
}

impl Reach {
    const fn is_cut(self, towards: End) -> bool {
        match towards {
            End::Coordinator => self.cut_up,
            End::Node => self.cut_down,
        }
    }
}

impl World {
    /// A connection that a process begins; its number.
    pub(crate) fn new_link(&self, process: &Process) -> usize {
        let mut links = self.links.borrow_mut();
        let number = links.len();
        links.push(Link {
            session: SessionId::from_bits(number as u64 + 2),
            process: process.id,
            place: process.place,
            attached: false,
            coordinator: Side::default(),
            node: Side { open: true, ..Side::default() },
            pending: VecDeque::new(),
            behind: false,
            reset_due: false,
        });
        number
    }

    /// The handshake is done: both ends have the connection.
    pub(crate) fn open_link(&self, link: usize) {
        self.links.borrow_mut()[link].coordinator.open = true;
        self.review(link);
    }

    pub(crate) fn is_open(&self, link: usize, end: End) -> bool {
        self.links.borrow()[link].is_open(end)
    }

    pub(crate) fn link_of(&self, session: SessionId) -> Option<usize> {
        usize::try_from(session.to_bits()).ok()?.checked_sub(2)
    }

    /// How long something takes on its way to or from a machine.
    pub(crate) fn delay(&self, place: usize) -> Nanos {
        let reach = self.reach.borrow()[place];
        let lag = if reach.lag > 0 { self.random.next() % reach.lag } else { 0 };
        50 * MICRO + self.random.next() % self.plan.delay_max + lag
    }

    /// Bytes begin their way.
    pub(crate) fn send(&self, link: usize, towards: End, bytes: &[u8]) {
        let mut links = self.links.borrow_mut();
        let of = &mut links[link];
        let slow = self.reach.borrow()[of.place].slow;
        if towards == End::Node {
            of.pending.extend(bytes);
            assert!(of.pending.len() <= OUTPUT_BYTES_MAX, "S20: {} bytes wait for one node", of.pending.len());
            drop(links);
            return self.send_pending(link, slow);
        }
        drop(links);
        self.transmit(link, towards, bytes);
    }

    /// Sends what the node lets the coordinator send.
    fn send_pending(&self, link: usize, slow: bool) {
        loop {
            let mut links = self.links.borrow_mut();
            let of = &mut links[link];
            let ahead: usize = of.node.arriving.iter().map(|(_, bytes)| bytes.len()).sum();
            let room = if slow { SLOW_WINDOW_BYTES.saturating_sub(ahead) } else { usize::MAX };
            let count = room.min(of.pending.len());
            if count == 0 {
                break;
            }
            let bytes: Vec<u8> = of.pending.drain(..count).collect();
            drop(links);
            self.transmit(link, End::Node, &bytes);
        }
        let mut links = self.links.borrow_mut();
        let of = &mut links[link];
        let falls_behind = of.pending.len() > BEHIND_BYTES && !std::mem::replace(&mut of.behind, true);
        let catches_up = of.pending.is_empty() && of.behind;
        if catches_up {
            of.behind = false;
        }
        if of.pending.len() <= BEHIND_BYTES && !catches_up && !falls_behind {
            return;
        }
        drop(links);
        if falls_behind || catches_up {
            self.schedule(0, Happening::Keeps { link, up: catches_up });
        }
    }

    fn transmit(&self, link: usize, towards: End, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let piece = if self.random.below(4) == 0 { 1 + self.random.below(bytes.len()) } else { bytes.len() };
            let (now, rest) = bytes.split_at(piece);
            self.begin_way(link, towards, now.to_vec());
            bytes = rest;
        }
    }

    fn begin_way(&self, link: usize, towards: End, bytes: Vec<u8>) {
        let mut links = self.links.borrow_mut();
        let of = &mut links[link];
        let reach = self.reach.borrow()[of.place];
        let delay = self.delay(of.place);
        let side = of.side(towards);
        let last = side.arriving.back().map_or(0, |(at, _)| *at);
        let mut at = last.max(self.now() + delay);
        if reach.slow && towards == End::Node {
            // One piece after the other.
            at += 20 * MILLI + self.random.next() % (100 * MILLI);
        }
        side.arriving.push_back((at, bytes));
        drop(links);
        if !reach.is_cut(towards) {
            self.schedule(at - self.now(), Happening::Arrive { link, end: towards });
        }
    }

    /// Whatever has arrived at an end by now. Empty for an end that has gone.
    pub(crate) fn arrived(&self, link: usize, end: End) -> Vec<bytes::Bytes> {
        let mut links = self.links.borrow_mut();
        let of = &mut links[link];
        let reach = self.reach.borrow()[of.place];
        let now = self.now();
        let side = of.side(end);
        let mut frames = Vec::new();
        if reach.is_cut(end) || !side.open {
            return frames;
        }
        while side.arriving.front().is_some_and(|(at, _)| *at <= now) {
            let (_, bytes) = side.arriving.pop_front().expect("one is there");
            self.note_bytes(&bytes);
            side.decoder.push(&bytes);
        }
        while let Some(frame) = side.decoder.next_frame().expect("frames of our own making") {
            frames.push(frame);
        }
        drop(links);
        if end == End::Node {
            self.send_pending(link, reach.slow);
        }
        frames
    }

    /// Whatever is on its way to a node arrives now.
    pub(crate) fn arrive_now(&self, link: usize) -> Vec<bytes::Bytes> {
        for (at, _) in &mut self.links.borrow_mut()[link].node.arriving {
            *at = self.now();
        }
        self.arrived(link, End::Node)
    }

    /// An end has the connection no more, with whatever was on its way to it.
    pub(crate) fn close_end(&self, link: usize, end: End) {
        let mut links = self.links.borrow_mut();
        let of = &mut links[link];
        if end == End::Coordinator {
            of.pending.clear();
            of.behind = false;
        }
        let side = of.side(end);
        let mid_frame = side.decoder.pending_bytes() > 0;
        if std::mem::take(&mut side.open) && mid_frame {
            self.reached(Sometimes::CutMidFrame);
        }
        side.arriving.clear();
        side.decoder = FrameDecoder::default();
        drop(links);
        self.review(link);
    }

    /// Says to the other end, once, that this one closes the connection.
    pub(crate) fn say_closed(&self, link: usize, by: End, goodbye: bool) {
        let links = self.links.borrow();
        let of = &links[link];
        let last = match by {
            End::Coordinator => of.node.arriving.back(),
            End::Node => of.coordinator.arriving.back(),
        };
        let after = last.map_or(0, |(at, _)| at.saturating_sub(self.now()));
        let place = of.place;
        drop(links);
        if !self.reach.borrow()[place].is_cut(by.other()) {
            let after = after.max(self.delay(place));
            self.schedule(after, Happening::Closed { link, end: by.other(), goodbye });
        }
    }

    /// Something changed on the way between the ends, or at one of them: who hears whom?
    pub(crate) fn review(&self, link: usize) {
        let mut links = self.links.borrow_mut();
        let of = &mut links[link];
        let reach = self.reach.borrow()[of.place];
        let process = self.process(of.process);
        let runs = process.alive.get() && !process.is_paused(self.now());
        let coordinator_runs = self.coordinator.is_up();
        for end in End::BOTH {
            let other_speaks = match end {
                End::Coordinator => of.node.open && runs && !reach.cut_up,
                End::Node => of.coordinator.open && coordinator_runs && !reach.cut_down,
            };
            let side = of.side(end);
            if !side.open || other_speaks {
                side.deaf = None;
            } else if side.deaf.is_none() {
                side.deaf = Some(self.now());
                self.schedule(IDLE_TIMEOUT, Happening::Idle { link, end, since: self.now() });
            }
        }
        let orphan = of.node.open && of.attached && !of.coordinator.open && coordinator_runs;
        let reset = orphan && !reach.cut_up && !reach.cut_down && !std::mem::replace(&mut of.reset_due, orphan);
        drop(links);
        if reset {
            // With the next packet of the node: its keep-alive, at the latest.
            let keep_alive = self.random.next() % nanos(KEEP_ALIVE);
            self.schedule(keep_alive, Happening::Reset { link });
        }
    }

    /// Whether an end has been deaf since then.
    pub(crate) fn is_deaf(&self, link: usize, end: End, since: Nanos) -> bool {
        let mut links = self.links.borrow_mut();
        let side = links[link].side(end);
        side.open && side.deaf == Some(since)
    }

    /// A machine that was suspended does not count the silence of that time.
    pub(crate) fn begin_listening(&self, link: usize) {
        let mut links = self.links.borrow_mut();
        links[link].node.deaf = None;
        drop(links);
        self.review(link);
    }

    /// A reset arrives, unless the way is cut: then it is tried again.
    pub(crate) fn is_reset(&self, link: usize) -> bool {
        self.links.borrow_mut()[link].reset_due = false;
        let links = self.links.borrow();
        let of = &links[link];
        let reach = self.reach.borrow()[of.place];
        of.node.open && !of.coordinator.open && !reach.cut_up && !reach.cut_down && self.coordinator.is_up()
    }

    /// How a machine is reached changes; what was lost is sent again.
    pub(crate) fn change_reach(&self, place: usize, change: impl FnOnce(&mut Reach)) {
        change(&mut self.reach.borrow_mut()[place]);
        let mut links: Vec<usize> = (0..self.links.borrow().len()).collect();
        links.retain(|link| self.links.borrow()[*link].place == place);
        for link in links {
            for end in End::BOTH {
                self.send_again(link, end);
            }
            let slow = self.reach.borrow()[place].slow;
            if self.is_open(link, End::Coordinator) {
                self.send_pending(link, slow);
            }
            self.review(link);
        }
    }

    fn send_again(&self, link: usize, towards: End) {
        let mut links = self.links.borrow_mut();
        let of = &mut links[link];
        if self.reach.borrow()[of.place].is_cut(towards) {
            return;
        }
        let mut earliest = self.now() + self.delay(of.place);
        if towards == End::Coordinator && !self.process(of.process).alive.get() {
            // Nobody is there to send it again.
            of.coordinator.arriving.clear();
        }
        let side = of.side(towards);
        let mut at = Vec::new();
        for (arrives, _) in &mut side.arriving {
            *arrives = (*arrives).max(earliest);
            earliest = *arrives;
            at.push(*arrives);
        }
        drop(links);
        for at in at {
            self.schedule(at - self.now(), Happening::Arrive { link, end: towards });
        }
    }

    /// Whether what the coordinator has said waits to be sent, or is on its way for long, because somebody reads slowly.
    pub(crate) fn is_behind(&self) -> bool {
        let soon = self.now() + self.delay_max();
        self.links
            .borrow()
            .iter()
            .filter(|link| link.is_open(End::Coordinator))
            .any(|link| !link.pending.is_empty() || link.node.arriving.back().is_some_and(|(at, _)| *at > soon))
    }

    /// The longest that something takes on its way to or from a machine.
    pub(crate) fn delay_max(&self) -> Nanos {
        // What was sent when everything took longer may arrive after that.
        let lag = if self.plan.has(Fault::Lag) { LAG } else { 0 };
        50 * MICRO + self.plan.delay_max + lag
    }

    /// The longest that an answer takes when nothing is wrong.
    pub(crate) fn round_trip_max(&self) -> Duration {
        Duration::from_nanos(2 * (self.plan.delay_max + 50 * MICRO)) + Duration::from_nanos(SECOND / 20)
    }
}
