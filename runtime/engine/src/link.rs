//! The node's connection and its lease: what happens when either is lost, and when the node is back.
//!
//! No clock and no sockets here: the driver says what time it is, on a clock that goes on while the machine sleeps, and
//! when a connection is lost or made. A lost connection changes nothing for who holds a lock; commits wait in the outbox.
//! Back within the lease, the node sends them again and then names every grant and every copy that it has, each at the
//! very place in its stream where that is true. When the lease lapses first, nothing that it had is worth anything.

use crate::entry::{Entry, State};
use crate::node::Node;
use crate::outbox::{CommitFailure, Lapsed};
use crate::request::{Pending, RequestError};
use crate::ticket::Ticket;
use crate::watch::WatchQueue;
use kiln_protocol::limits::USES_MAX;
use kiln_protocol::message::Resume;
use kiln_protocol::{CommitSeq, Epoch, Incarnation, ListenerId, Secret, ToCoordinator, Version, WatchId};
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Heartbeats without an answer of which the time is kept.
const HEARTBEATS_MAX: usize = 64;
/// Members that joined or left, and unknown commits, before somebody takes them.
const NOTES_MAX: usize = 4096;

/// Somebody joined the cluster, or left it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Member {
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Its name.
    pub name: String,
    /// It joined.
    pub joined: bool,
}

/// A commit whose fate was unknown when the node's lease lapsed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UnknownCommit {
    /// The incarnation of this node that made it.
    pub incarnation: Incarnation,
    /// Its place among that incarnation's commits.
    pub seq: CommitSeq,
}

/// Whether a lease lapsed just now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lapse {
    /// It did; so many commits have an unknown fate.
    Now {
        /// How many.
        unknown: usize,
    },
    /// It did before, or the node is not attached.
    Before,
}

#[derive(Debug, Default)]
struct Inner {
    identity: Option<(Incarnation, Secret)>,
    /// Attempts to come back.
    attempts: u64,
    /// The lease of that incarnation is over.
    lapsed: bool,
    /// When heartbeats were sent that have no answer yet.
    heartbeats: VecDeque<(u64, u64)>,
    last_heartbeat: u64,
    members: VecDeque<Member>,
    unknown: VecDeque<UnknownCommit>,
    /// Who waits until the node is back.
    waiting: Vec<Arc<Ticket<()>>>,
}

/// What a node knows of its connection and its lease.
#[derive(Debug)]
pub struct LinkState {
    /// What the coordinator was asked to show is shown: copies can be trusted as far as deltas can.
    synced: AtomicBool,
    /// Until when grants can be trusted, in nanoseconds of the driver's clock.
    leased_until: AtomicU64,
    /// For how long an answered heartbeat extends that.
    lease_nanos: AtomicU64,
    incarnation: AtomicU64,
    /// Of the connection, or of the last one.
    epoch: AtomicU32,
    life: AtomicU64,
    inner: Mutex<Inner>,
}

impl LinkState {
    /// Connected, with a lease without end, for nodes that nobody tells otherwise.
    pub(crate) fn new(epoch: Epoch) -> Self {
        Self {
            epoch: AtomicU32::new(epoch.to_bits()),
            synced: AtomicBool::new(true),
            leased_until: AtomicU64::new(u64::MAX),
            lease_nanos: AtomicU64::new(u64::MAX),
            incarnation: AtomicU64::new(0),
            life: AtomicU64::new(0),
            inner: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the node is connected, and its copies are kept up to date.
    pub fn is_synced(&self) -> bool {
        // Acquire: pairs with the release in `Node::resynced`.
        self.synced.load(Ordering::Acquire)
    }

    /// Whether grants can be trusted at this time.
    pub fn is_leased(&self, now_nanos: u64) -> bool {
        // Acquire: whoever sees a lease sees what was granted under it.
        now_nanos < self.leased_until.load(Ordering::Acquire)
    }

    /// Whether the lease has lapsed, and the node is no other incarnation yet.
    pub fn has_lapsed(&self) -> bool {
        self.lock().lapsed
    }

    /// Until when grants can be trusted.
    pub fn leased_until(&self) -> u64 {
        self.leased_until.load(Ordering::Acquire)
    }

    /// Counts the incarnations of this node. A lock is good for a commit as long as this has not changed since before it
    /// was taken.
    pub fn life(&self) -> u64 {
        self.life.load(Ordering::Acquire)
    }

    /// The epoch of the connection: what versions and tokens in its frames are relative to.
    pub fn epoch(&self) -> Epoch {
        Epoch::from_bits(self.epoch.load(Ordering::Acquire))
    }

    /// The node's incarnation.
    pub fn incarnation(&self) -> Incarnation {
        Incarnation::from_bits(self.incarnation.load(Ordering::Acquire))
    }

    /// Who the node is; its lease begins at `sent_nanos`, when it asked for that.
    pub fn welcomed(&self, incarnation: Incarnation, secret: Secret, sent_nanos: u64, lease_nanos: u64) {
        let mut inner = self.lock();
        inner.identity = Some((incarnation, secret));
        inner.lapsed = false;
        inner.heartbeats.clear();
        self.incarnation.store(incarnation.to_bits(), Ordering::Release);
        self.lease_nanos.store(lease_nanos, Ordering::Release);
        self.leased_until.store(sent_nanos.saturating_add(lease_nanos), Ordering::Release);
    }

    pub(crate) fn renewed(&self, number: u64) {
        let mut inner = self.lock();
        while let Some((of, sent)) = inner.heartbeats.front().copied()
            && of <= number
        {
            inner.heartbeats.pop_front();
            if of == number {
                let until = sent.saturating_add(self.lease_nanos.load(Ordering::Acquire));
                // What has lapsed stays so until the node is another incarnation.
                let renew = |now| (now != 0 && now < until).then_some(until);
                let _older = self.leased_until.fetch_update(Ordering::AcqRel, Ordering::Acquire, renew);
            }
        }
    }

    pub(crate) fn note_member(&self, incarnation: Incarnation, name: String, joined: bool) {
        let mut inner = self.lock();
        if inner.members.len() == NOTES_MAX {
            inner.members.pop_front();
        }
        inner.members.push_back(Member { incarnation, name, joined });
    }

    /// Who joined or left since the last call.
    pub fn take_members(&self) -> Vec<Member> {
        self.lock().members.drain(..).collect()
    }

    /// Commits of which nobody was told that their fate is unknown; each is told once.
    pub fn take_unknown(&self) -> Vec<UnknownCommit> {
        self.lock().unknown.drain(..).collect()
    }

    /// A ticket for when the node is connected, or ends. Take it, look once more, and only then wait.
    pub fn wait_synced(&self) -> Arc<Ticket<()>> {
        let ticket = Ticket::new();
        let mut inner = self.lock();
        if inner.waiting.len() == inner.waiting.capacity() {
            inner.waiting.retain(|waiter| !waiter.is_closed());
            // So seldom that it costs nothing.
            let kept = inner.waiting.len();
            inner.waiting.reserve(kept + 1);
        }
        inner.waiting.push(Arc::clone(&ticket));
        ticket
    }

    pub(crate) fn wake_waiting(&self) {
        let waiting = std::mem::take(&mut self.lock().waiting);
        for ticket in waiting {
            let _unwanted = ticket.complete(());
        }
    }
}

impl Node {
    /// Sends a heartbeat, at this time.
    pub fn heartbeat(&self, now_nanos: u64) {
        let mut inner = self.link.lock();
        inner.last_heartbeat += 1;
        let number = inner.last_heartbeat;
        if inner.heartbeats.len() == HEARTBEATS_MAX {
            inner.heartbeats.pop_front();
        }
        inner.heartbeats.push_back((number, now_nanos));
        drop(inner);
        if self.link.is_synced() {
            self.say_uses(number);
        }
        self.outbox.send(&ToCoordinator::Heartbeat { number });
    }

    /// Not with the next heartbeat: a lease after their use, objects may expire that nobody is known to use.
    fn say_uses_now(&self) {
        // The next one may be on its way already.
        let behind_this = self.link.lock().last_heartbeat + 2;
        self.say_uses(behind_this);
    }

    fn say_uses(&self, heartbeat: u64) {
        let mut objects = self.uses.say(heartbeat);
        // What only this node knows cannot expire.
        objects.retain(|object| !Entry::is_provisional_id(*object));
        for objects in objects.chunks(USES_MAX) {
            self.outbox.send(&ToCoordinator::Used { objects: objects.to_vec() });
        }
    }

    /// Whether a grant of one of the object's locks must bring the record: the copy is stale, or may be.
    pub fn wants_record(&self, entry: &Entry) -> bool {
        entry.state() == State::Stale || !self.link.is_synced()
    }

    /// The connection is lost. Copies are not trusted from now on: to be called before another connection is sought.
    pub fn disconnected(&self) {
        self.link.synced.store(false, Ordering::Release);
        self.uses.lost();
        self.outbox.down();
    }

    /// Who to resume as, or, after a lapse, who this was. To be called for each attempt.
    pub fn resume(&self) -> Option<Resume> {
        let mut inner = self.link.lock();
        let (incarnation, secret) = inner.identity?;
        inner.attempts += 1;
        let (epoch, lapsed, attempt) = (self.link.epoch(), inner.lapsed, inner.attempts);
        drop(inner);
        Some(Resume { epoch, incarnation, secret, acked: self.outbox.acked_seq(), lapsed, attempt })
    }

    /// There is another connection, asked for at `sent_nanos`, and the node is still the same incarnation, whose commits up
    /// to `applied` were decided. `false`: the lease has lapsed meanwhile, or the coordinator cannot be right about that.
    pub fn resumed(&self, epoch: Epoch, applied: CommitSeq, sent_nanos: u64) -> bool {
        let mut inner = self.link.lock();
        if inner.lapsed {
            return false;
        }
        inner.heartbeats.clear();
        let until = sent_nanos.saturating_add(self.link.lease_nanos.load(Ordering::Acquire));
        self.link.leased_until.fetch_max(until, Ordering::AcqRel);
        self.link.epoch.store(epoch.to_bits(), Ordering::Release);
        drop(inner);
        let Some(everywhere) = self.outbox.resume(epoch, applied) else {
            return false;
        };
        self.tell_all(true);
        for seq in everywhere {
            self.outbox.send(&ToCoordinator::AwaitEverywhere { seq });
        }
        self.say_uses_now();
        self.outbox.send(&ToCoordinator::Resynced);
        true
    }

    /// The lease has lapsed: others may have every lock of this node. Nothing is trusted any more; whoever waits is told.
    /// Tasks go on alone from here on.
    pub fn lapse(&self) -> Lapse {
        let _turning = self.turning.lock().unwrap_or_else(PoisonError::into_inner);
        let mut inner = self.link.lock();
        let Some((incarnation, _)) = inner.identity.filter(|_| !inner.lapsed) else {
            return Lapse::Before;
        };
        inner.lapsed = true;
        self.link.leased_until.store(0, Ordering::Release);
        self.link.synced.store(false, Ordering::Release);
        drop(inner);
        let Lapsed { unanswered: mut untold, to_keep, waiting } = self.outbox.lapse();
        let kept = self.keep_unanswered(incarnation, to_keep);
        untold.retain(|seq| !kept.contains(seq));
        let unknown = untold.len();
        // Before anybody is told: who is, may ask for the rest at once.
        let open = waiting.iter().filter(|(_, ticket)| !ticket.is_closed());
        let to_tell: BTreeSet<_> = open.map(|(seq, _)| *seq).filter(|seq| untold.remove(seq)).collect();
        self.note_unknown(incarnation, untold);
        for (seq, ticket) in waiting {
            let failure = if kept.contains(&seq) { CommitFailure::Kept } else { CommitFailure::Unknown };
            // It may have given up just now.
            if ticket.complete(Err(failure)).is_err() && to_tell.contains(&seq) {
                self.note_unknown(incarnation, [seq]);
            }
        }
        for entry in self.cache.all() {
            for lock in entry.locks() {
                lock.fenced();
            }
            entry.set_state(State::Stale);
        }
        // Behind that: what tasks give each other from now on is theirs until the cluster is back.
        self.go_alone();
        self.link.wake_waiting();
        Lapse::Now { unknown }
    }

    fn note_unknown(&self, incarnation: Incarnation, commits: impl IntoIterator<Item = CommitSeq>) {
        let mut inner = self.link.lock();
        for seq in commits {
            if inner.unknown.len() == NOTES_MAX {
                inner.unknown.pop_front();
            }
            inner.unknown.push_back(UnknownCommit { incarnation, seq });
        }
    }

    /// After a lapse there is another connection, and the node is another incarnation, whose lease begins at
    /// `sent_nanos`. Its near cache is empty but for what the program has handles of.
    pub fn rejoined(&self, epoch: Epoch, incarnation: Incarnation, secret: Secret, sent_nanos: u64, lease_nanos: u64) {
        let _turning = self.turning.lock().unwrap_or_else(PoisonError::into_inner);
        self.end_alone();
        self.link.epoch.store(epoch.to_bits(), Ordering::Release);
        while self.evict_one() {}
        self.link.welcomed(incarnation, secret, sent_nanos, lease_nanos);
        self.outbox.begin_anew(epoch);
        self.link.life.fetch_add(1, Ordering::AcqRel);
        self.tell_all(false);
        self.say_uses_now();
        self.outbox.send(&ToCoordinator::Resynced);
    }

    /// The coordinator has compared everything.
    pub(crate) fn resynced(&self) {
        // Release: pairs with the acquire in `LinkState::is_synced`.
        self.link.synced.store(true, Ordering::Release);
        self.link.wake_waiting();
        for queue in self.watches.lock().unwrap_or_else(PoisonError::into_inner).1.values() {
            queue.resume();
        }
    }

    /// Names what the node holds and asks again what it had asked.
    fn tell_all(&self, same_incarnation: bool) {
        for entry in self.cache.all() {
            if entry.state() == State::Destroyed || entry.is_provisional() {
                continue;
            }
            // Before the locks: a grant is worth something only after word that the copy is outdated.
            self.revalidate(&entry, same_incarnation);
            for (index, lock) in entry.locks().iter().enumerate() {
                lock.resync(entry.lock_context(index, &self.outbox, &self.requests));
            }
        }
        // Behind all grants: what a transaction holds counts only when the coordinator knows of it.
        for entry in self.cache.all() {
            for (index, lock) in entry.locks().iter().enumerate() {
                lock.report_again(entry.lock_context(index, &self.outbox, &self.requests));
            }
        }
        let (watching, listening) = self.ask_again();
        self.listen_again(|listener| listening.contains(&listener));
        let watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        let known: Vec<_> = watches.1.iter().map(|(watch, queue)| (*watch, Arc::clone(queue))).collect();
        drop(watches);
        for (watch, queue) in known {
            queue.interrupt();
            if !watching.contains(&watch) {
                self.watch_again(watch, queue);
            }
        }
    }

    fn revalidate(&self, entry: &Entry, same_incarnation: bool) {
        let key = bytes::Bytes::copy_from_slice(&entry.key());
        // While no commit can be made: what the copy has is then what the stream before this says.
        self.outbox.send_with(|| {
            let groups = entry.binding.groups().iter().zip(0..);
            let version = |index| if same_incarnation { entry.object.version(index) } else { 0 };
            let mut versions: Vec<_> =
                groups.map(|(group, index)| (*group, Version::from_bits(version(index)))).collect();
            let commutative = entry.binding.commutative();
            let sums = Version::from_bits(version(commutative));
            versions.push((kiln_protocol::GroupId::COMMUTATIVE, sums));
            Some(ToCoordinator::Revalidate { object: entry.id(), key, versions })
        });
    }

    /// Returns the watches and the listeners that were asked for and not answered.
    fn ask_again(&self) -> (BTreeSet<WatchId>, BTreeSet<ListenerId>) {
        let (mut watching, mut listening) = (BTreeSet::new(), BTreeSet::new());
        let mut unanswered = self.unanswered();
        let mut lost = Vec::new();
        for (request, mut asked) in std::mem::take(&mut unanswered.requests) {
            if !asked.is_to_be_asked_again() {
                lost.push(asked.pending);
                continue;
            }
            if let ToCoordinator::Watch { watch, .. } = &asked.question {
                watching.insert(*watch);
            }
            if let ToCoordinator::Listen { listener, .. } = &asked.question {
                listening.insert(*listener);
            }
            self.outbox.send(&asked.question);
            asked.sent = true;
            unanswered.requests.insert(request, asked);
        }
        // What was given up is not held on this connection.
        unanswered.forgotten.clear();
        drop(unanswered);
        for pending in lost {
            pending.fail(RequestError::Unknown);
        }
        (watching, listening)
    }

    fn watch_again(&self, watch: WatchId, queue: Arc<WatchQueue>) {
        let target = queue.target.clone();
        self.ask(|request| {
            (ToCoordinator::Watch { request, watch, target, with_writes: false }, Pending::WatchAgain(queue))
        });
    }
}
