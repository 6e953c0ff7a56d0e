//! One lock: who holds it and who waits for it, in order.
//!
//! Pure: it tells its caller what to send. A grant and a recall of one lock are steps of the same pass, so a hand-off is a
//! release in and a grant out. Nothing here waits, and no holder loses a grant otherwise than by giving it back or
//! leaving.

use super::nodes::NodeSlot;
use super::operations::OperationId;
use kiln_protocol::message::{Mode, Place};
use kiln_protocol::{Epoch, RequestId, Token};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::time::Duration;

/// Hand-offs in a row, less the grants that went to the same node again, after which holders do not keep the lock.
const HOT: u8 = 8;
/// The heat does not rise above this, so that it falls in time.
const HEAT_MAX: u8 = 16;
/// A lock that was not granted for this long is cold: it is kept again.
pub(super) const QUIET: Duration = Duration::from_millis(100);
/// Waiters that are looked at to find out how much a recall must ask for.
const LOOK_AHEAD: usize = 8;
/// Requests of one node that wait for one lock.
pub(super) const REQUESTS_OF_NODE_MAX: usize = 16;

/// Gives tokens; each is above all before it.
#[derive(Debug)]
pub(super) struct Tokens {
    epoch: Epoch,
    last: Token,
}

impl Tokens {
    pub(super) fn new(epoch: Epoch) -> Self {
        Self { epoch, last: Token::default() }
    }

    pub(super) fn next(&mut self) -> Token {
        self.last = self.last.next_in(self.epoch);
        self.last
    }
}

/// Who holds a lock or waits for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Party {
    Node(NodeSlot),
    /// An insert, remove or rename.
    Operation(OperationId),
}

/// Who waits for a lock.
#[derive(Clone, Debug)]
pub(super) struct Waiter {
    pub(super) party: Party,
    pub(super) mode: Mode,
    /// The node's request; of no meaning for an operation.
    pub(super) request: RequestId,
    pub(super) want_record: bool,
    pub(super) since: Duration,
}

/// Who holds a lock.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    pub(super) party: Party,
    pub(super) mode: Mode,
    pub(super) token: Token,
    pub(super) since: Duration,
    /// What the holder was asked to make room for.
    pub(super) recalled: Option<Mode>,
}

/// What to tell whom.
#[derive(Debug)]
pub(super) enum Step {
    Grant {
        waiter: Waiter,
        /// The mode held now: `Write` when a node that has it asks for `Read`.
        mode: Mode,
        token: Token,
        cached: bool,
        /// The node had no grant of this lock before.
        first: bool,
    },
    Recall {
        node: NodeSlot,
        token: Token,
        wanted: Mode,
    },
}

/// What a node's word about a grant did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reasserted {
    /// The grant goes on.
    Kept,
    /// It was known to go on.
    Again,
    /// The node has no such grant.
    Lost,
}

/// What a release did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Released {
    /// Nothing: the grant is not (or no longer) the node's.
    Stale,
    /// The write grant is a read grant now.
    Downgraded,
    /// The grant is free.
    Freed,
}

/// How often a lock goes from node to node.
#[derive(Clone, Debug, Default)]
struct Heat {
    hand_offs: u64,
    level: u8,
    last: Option<(NodeSlot, Mode)>,
    /// When the last grant was given.
    at: Duration,
}

impl Heat {
    /// Counts a grant. Returns whether its holder may keep it between uses.
    fn granted(&mut self, now: Duration, node: NodeSlot, mode: Mode) -> bool {
        if self.is_cold(now) {
            self.level = 0;
        }
        if let Some((last, last_mode)) = self.last {
            if last == node {
                self.level = self.level.saturating_sub(1);
            } else if mode == Mode::Write || last_mode == Mode::Write {
                self.hand_offs += 1;
                self.level = HEAT_MAX.min(self.level + 1);
            }
        }
        self.last = Some((node, mode));
        self.at = now;
        self.level < HOT
    }

    fn is_cold(&self, now: Duration) -> bool {
        now.saturating_sub(self.at) > QUIET
    }
}

/// One lock.
///
/// 1. Either one holder has it for writing, or any number for reading (S1).
/// 2. A party holds it at most once.
#[derive(Clone, Debug, Default)]
pub(super) struct Lock {
    holders: SmallVec<[Holder; 1]>,
    queue: VecDeque<Waiter>,
    heat: Heat,
}

/// What is to become of the first waiter.
enum Verdict {
    Wait,
    /// Its node has such a grant already.
    Holds(Token, Mode),
    Grant,
}

const fn conflict(one: Mode, other: Mode) -> bool {
    matches!((one, other), (Mode::Write, _) | (_, Mode::Write))
}

impl Lock {
    /// A lock that a node has held from the start.
    pub(super) fn held(node: NodeSlot, mode: Mode, token: Token, since: Duration) -> Self {
        let mut lock = Self::default();
        lock.heat.last = Some((node, mode));
        lock.heat.at = since;
        lock.holders.push(Holder { party: Party::Node(node), mode, token, since, recalled: None });
        lock
    }

    pub(super) fn holders(&self) -> &[Holder] {
        &self.holders
    }

    pub(super) const fn queue(&self) -> &VecDeque<Waiter> {
        &self.queue
    }

    pub(super) const fn hand_offs(&self) -> u64 {
        self.heat.hand_offs
    }

    pub(super) const fn is_cached(&self) -> bool {
        self.heat.level < HOT
    }

    /// Nobody holds it and nobody waits.
    pub(super) fn is_free(&self) -> bool {
        self.holders.is_empty() && self.queue.is_empty()
    }

    /// Free, and its past tells nothing.
    pub(super) fn is_forgettable(&self, now: Duration) -> bool {
        self.is_free() && self.heat.is_cold(now)
    }

    /// How many requests of this node wait.
    pub(super) fn waiting(&self, node: NodeSlot) -> usize {
        self.queue.iter().filter(|waiter| waiter.party == Party::Node(node)).count()
    }

    /// Queues a request. [`Lock::advance`] answers it.
    pub(super) fn request(&mut self, waiter: Waiter) {
        self.queue.push_back(waiter);
    }

    /// Takes a request back. Returns whether it still waited.
    pub(super) fn withdraw(&mut self, node: NodeSlot, request: RequestId) -> bool {
        let at = self.queue.iter().position(|waiter| waiter.party == Party::Node(node) && waiter.request == request);
        at.and_then(|at| self.queue.remove(at)).is_some()
    }

    /// Gives a grant back, or turns it into a read grant.
    pub(super) fn release(&mut self, node: NodeSlot, token: Token, keep_read: bool) -> Released {
        let at = self.holders.iter().position(|holder| holder.party == Party::Node(node) && holder.token == token);
        let Some(at) = at else { return Released::Stale };
        let holder = &mut self.holders[at];
        if keep_read {
            // A recall that asked for more than this is sent again.
            holder.mode = Mode::Read;
            holder.recalled = None;
            return Released::Downgraded;
        }
        self.holders.remove(at);
        Released::Freed
    }

    /// A grant of a node is that of another slot of it, as far as the node says. A later grant in the place of that one
    /// has not reached it, and nothing was done under it.
    pub(super) fn reassert(
        &mut self,
        mut was: impl FnMut(Party) -> bool,
        node: NodeSlot,
        token: Token,
        mode: Mode,
    ) -> Reasserted {
        let party = Party::Node(node);
        // A node may have been given several, on connections that it lost one after the other.
        let own = self.holders.iter().enumerate().filter(|(_, holder)| holder.party == party || was(holder.party));
        let own = own.filter(|(_, holder)| token <= holder.token && mode <= holder.mode);
        let Some(at) = own.min_by_key(|(_, holder)| holder.token).map(|(at, _)| at) else {
            return Reasserted::Lost;
        };
        let named = self.holders.remove(at);
        self.holders.retain(|holder| holder.party != party && !was(holder.party));
        let before = named.party;
        // What it was told to make room for was lost.
        self.holders.push(Holder { party, token, mode, recalled: None, ..named });
        if before == party { Reasserted::Again } else { Reasserted::Kept }
    }

    /// A node names a grant of an earlier life of the coordinator. Of grants that exclude each other the latest is the
    /// true one: `lost` gets the others. Returns whether it is this one.
    pub(super) fn adopt(
        &mut self,
        node: NodeSlot,
        mode: Mode,
        token: Token,
        now: Duration,
        lost: &mut Vec<(NodeSlot, Token)>,
    ) -> bool {
        let party = Party::Node(node);
        let excluding = |holder: &Holder| holder.party == party || conflict(holder.mode, mode);
        if self.holders.iter().any(|holder| excluding(holder) && holder.token >= token) {
            return false;
        }
        self.holders.retain(|holder| {
            let ends = excluding(holder);
            if let (true, Party::Node(node)) = (ends, holder.party) {
                lost.push((node, holder.token));
            }
            !ends
        });
        self.holders.push(Holder { party, mode, token, since: now, recalled: None });
        true
    }

    /// Takes a node's requests out of the queue. Returns whether there were any.
    pub(super) fn drop_waiting(&mut self, node: NodeSlot) -> bool {
        let before = self.queue.len();
        self.queue.retain(|waiter| waiter.party != Party::Node(node));
        self.queue.len() < before
    }

    /// Takes a party's grants and requests away. Returns how many grants, and how many requests.
    pub(super) fn drop_party(&mut self, party: Party) -> (usize, usize) {
        let before = (self.holders.len(), self.queue.len());
        self.holders.retain(|holder| holder.party != party);
        self.queue.retain(|waiter| waiter.party != party);
        (before.0 - self.holders.len(), before.1 - self.queue.len())
    }

    /// Takes away the grants of nodes that are gone.
    pub(super) fn drop_holders(&mut self, mut gone: impl FnMut(NodeSlot) -> bool) {
        self.holders.retain(|holder| !matches!(holder.party, Party::Node(node) if gone(node)));
    }

    /// Takes a node's grant away. Returns whether it had one.
    pub(super) fn drop_grant(&mut self, node: NodeSlot) -> bool {
        let before = self.holders.len();
        self.drop_holders(|holder| holder == node);
        self.holders.len() < before
    }

    /// Empties the queue.
    pub(super) fn take_waiters(&mut self) -> VecDeque<Waiter> {
        std::mem::take(&mut self.queue)
    }

    /// Whether a commit under this token is a commit under this lock (S2).
    pub(super) fn guards(&self, node: NodeSlot, token: Token) -> bool {
        self.holders
            .iter()
            .any(|holder| holder.party == Party::Node(node) && holder.mode == Mode::Write && holder.token == token)
    }

    /// Whether a node has a grant of at least this mode.
    pub(super) fn has_grant(&self, node: NodeSlot, mode: Mode) -> bool {
        self.holders.iter().any(|holder| holder.party == Party::Node(node) && holder.mode >= mode)
    }

    /// What a node waits for.
    pub(super) fn asked(&self, node: NodeSlot) -> Option<Mode> {
        self.queue.iter().filter(|waiter| waiter.party == Party::Node(node)).map(|waiter| waiter.mode).max()
    }

    /// Whether a node's write grant was recalled for a writer: it goes back when all have left it, and does not become a read
    /// grant before that, even if the writer gives up.
    pub(super) fn is_draining(&self, node: NodeSlot) -> bool {
        let mut holders = self.holders.iter().filter(|holder| holder.party == Party::Node(node));
        holders.any(|holder| (holder.mode, holder.recalled) == (Mode::Write, Some(Mode::Write)))
    }

    /// Whether a reader of one node is served only after a writer of another: whatever grant the reader's node gets next,
    /// it gets behind one that the writer's node has or waits for, and the writer is served under that. A grant that is
    /// still on its way to the reader's node serves the reader.
    pub(super) fn is_behind(&self, reader: (NodeSlot, Place), writer: (NodeSlot, Place)) -> bool {
        let ((reader, reads), (writer, writes)) = (reader, writer);
        let holder = |node| self.holders.iter().find(|holder| holder.party == Party::Node(node));
        let request =
            |node, mode| self.queue.iter().position(|waiter| waiter.party == Party::Node(node) && waiter.mode >= mode);
        let (own, asked) = (holder(reader), request(reader, Mode::Read));
        if own.is_some_and(|own| !reads.is_past(own.token)) {
            return false;
        }
        if let Some(held) = holder(writer).filter(|held| held.mode == Mode::Write) {
            return asked.is_some() && writes.is_served_under(held.token);
        }
        match (request(writer, Mode::Write), asked) {
            (Some(ahead), Some(behind)) => writes.soon && ahead < behind,
            // It asks again when it has given back what it has.
            (Some(_), None) => writes.soon && own.is_some(),
            (None, _) => false,
        }
    }

    /// Answers all waiters that can be, in order; recalls the grants that the next one waits for.
    pub(super) fn advance(&mut self, now: Duration, tokens: &mut Tokens, steps: &mut Vec<Step>) {
        while let Some(head) = self.queue.front() {
            let verdict = self.verdict(head);
            if matches!(verdict, Verdict::Wait) {
                break;
            }
            let Some(waiter) = self.queue.pop_front() else { break };
            steps.push(match verdict {
                Verdict::Holds(token, mode) => {
                    Step::Grant { waiter, mode, token, cached: self.is_cached(), first: false }
                }
                Verdict::Wait | Verdict::Grant => self.grant(now, tokens, waiter),
            });
        }
        self.recall(steps);
    }

    fn verdict(&self, head: &Waiter) -> Verdict {
        let own = self.holders.iter().find(|holder| holder.party == head.party);
        match own {
            // Commits under the write grant may be on their way: only its own release ends it.
            Some(own) if own.mode == Mode::Write && own.recalled.is_some() => return Verdict::Wait,
            Some(own) if own.recalled.is_none() && own.mode >= head.mode => {
                return Verdict::Holds(own.token, own.mode);
            }
            _ => {}
        }
        let mut others = self.holders.iter().filter(|holder| holder.party != head.party);
        if others.any(|holder| conflict(holder.mode, head.mode)) { Verdict::Wait } else { Verdict::Grant }
    }

    fn grant(&mut self, now: Duration, tokens: &mut Tokens, waiter: Waiter) -> Step {
        let before = self.holders.len();
        self.holders.retain(|holder| holder.party != waiter.party);
        let first = self.holders.len() == before;
        let token = tokens.next();
        self.holders.push(Holder { party: waiter.party, mode: waiter.mode, token, since: now, recalled: None });
        let cached = match waiter.party {
            Party::Node(node) => self.heat.granted(now, node, waiter.mode),
            Party::Operation(_) => false,
        };
        Step::Grant { mode: waiter.mode, waiter, token, cached, first }
    }

    /// Recalls the grants that the first waiter waits for.
    pub(super) fn recall(&mut self, steps: &mut Vec<Step>) {
        let Some(head) = self.queue.front() else { return };
        for holder in &mut self.holders {
            let Party::Node(node) = holder.party else { continue };
            if holder.party == head.party || !conflict(holder.mode, head.mode) {
                continue;
            }
            // A writer behind a reader is foreseen: one recall instead of two.
            let wanted = self
                .queue
                .iter()
                .take(LOOK_AHEAD)
                .filter(|waiter| waiter.party != holder.party && conflict(holder.mode, waiter.mode))
                .map(|waiter| waiter.mode)
                .max();
            if wanted > holder.recalled {
                holder.recalled = wanted;
                let token = holder.token;
                steps.extend(wanted.map(|wanted| Step::Recall { node, token, wanted }));
            }
        }
    }
}

#[cfg(test)]
mod tests;
