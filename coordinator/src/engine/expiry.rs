//! Objects of roots with timeouts: when each was made and used last, and its end when either is too long ago.
//!
//! When an object was made is replicated state, and so is when it was used, to a tenth of the idle timeout: a use that is
//! further from the last one in the log than that is logged. To the millisecond it is soft. Time is the log's, which goes on
//! from one start of the coordinator to the next.
//!
//! Nodes say with their heartbeats what they have used. So an object is idle only when a lease more than its timeout has
//! passed: until then a node that lives may be about to name it. Behind a start with state that lease begins when all nodes
//! are back or dead.
//!
//! 1. Each object has one place in `due`, not after the time at which it is due, or an operation under way that removes it.
//!
//! A use does not move that place: when its turn comes too early, it gets another. So a use costs one look-up, and nothing is
//! ever scanned. The operation takes every lock of the object first, like any other: who holds one is not cut short, and
//! what he does with the object is a use.

use super::nodes::NodeSlot;
use super::state::State;
use super::{Engine, Entry, LogTime};
use hashbrown::HashMap;
use kiln_protocol::ObjectId;
use kiln_protocol::limits::USES_MAX;
use kiln_protocol::message::RootOptions;
use std::collections::BTreeSet;
use std::time::Duration;

/// How often in an idle timeout a use is logged, at most.
const RECORDS_PER_IDLE: u64 = 10;
/// Objects whose turn comes in one batch.
const TURNS_PER_BATCH: usize = 1024;
/// Objects that are due and wait for their locks.
const UNDER_WAY_MAX: usize = 4096;
/// When an object that could not be removed is looked at again.
const RETRY: Duration = Duration::from_secs(1);

/// The times of one object.
#[derive(Clone, Copy, Debug)]
struct Times {
    created: LogTime,
    /// The last use that the log has.
    recorded: LogTime,
    /// Soft: the last use.
    used: LogTime,
    /// Its place in the order.
    due: LogTime,
}

/// The times of all objects of roots with timeouts.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    /// Only looked up.
    times: HashMap<ObjectId, Times>,
    due: BTreeSet<(LogTime, ObjectId)>,
    /// Soft: uses to be logged.
    unrecorded: Vec<ObjectId>,
}

impl Expiry {
    /// An object was made, or is read back.
    pub(super) fn begin(&mut self, object: ObjectId, options: &RootOptions, created: LogTime, used: LogTime) {
        let idle = after(used, options.idle_timeout_ms);
        let due = idle.min(after(created, options.absolute_timeout_ms));
        self.times.insert(object, Times { created, recorded: used, used, due });
        self.due.insert((due, object));
    }

    /// An object is no more.
    pub(super) fn end(&mut self, object: ObjectId) {
        if let Some(times) = self.times.remove(&object) {
            self.due.remove(&(times.due, object));
        }
    }

    /// When an object was made, and when it was used last, as far as that is logged.
    pub(super) fn kept(&self, object: ObjectId) -> Option<(LogTime, LogTime)> {
        self.times.get(&object).map(|times| (times.created, times.recorded))
    }

    /// The log has a use.
    pub(super) fn record(&mut self, object: ObjectId, time: LogTime) {
        if let Some(times) = self.times.get_mut(&object) {
            times.recorded = times.recorded.max(time);
            times.used = times.used.max(time);
        }
    }

    /// Takes an object whose turn has come.
    fn take(&mut self, now: LogTime) -> Option<ObjectId> {
        let first = *self.due.first().filter(|(due, _)| *due <= now)?;
        self.due.remove(&first);
        Some(first.1)
    }

    /// Its turn comes again.
    fn put_back(&mut self, object: ObjectId, due: LogTime) {
        if let Some(times) = self.times.get_mut(&object) {
            times.due = due;
            self.due.insert((due, object));
        }
    }

    #[cfg(test)]
    pub(super) fn turns(&self) -> (usize, usize) {
        (self.times.len(), self.due.len())
    }
}

/// So long after a time; never, for 0.
fn after(time: LogTime, timeout_ms: u64) -> LogTime {
    if timeout_ms == 0 { LogTime::from_bits(u64::MAX) } else { plus(time, timeout_ms) }
}

const fn plus(time: LogTime, ms: u64) -> LogTime {
    LogTime::from_bits(time.to_bits().saturating_add(ms))
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Engine {
    /// The time by which objects expire.
    pub(super) fn clock(&self) -> LogTime {
        self.time.max(plus(self.settings.started, ms(self.now)))
    }

    /// A node says what it has used.
    pub(super) fn used(&mut self, node: NodeSlot, objects: &[ObjectId]) {
        if objects.len() > USES_MAX {
            if let Some(session) = self.nodes.session(node) {
                self.violation(session, "more uses in one message than there may be");
            }
            return;
        }
        for object in objects {
            self.note_use(*object);
        }
    }

    /// An object is used.
    pub(super) fn note_use(&mut self, object: ObjectId) {
        if self.state.expiry.times.is_empty() {
            return;
        }
        let now = self.clock();
        let State { expiry, objects, roots, .. } = &mut self.state;
        let Some(times) = expiry.times.get_mut(&object) else { return };
        times.used = times.used.max(now);
        let root = objects.get(object).and_then(|object| roots.get(object.root));
        let idle_ms = root.map_or(0, |root| root.options.idle_timeout_ms);
        let since_ms = now.to_bits() - times.recorded.to_bits();
        if idle_ms > 0 && since_ms >= (idle_ms / RECORDS_PER_IDLE).max(1) {
            expiry.unrecorded.push(object);
        }
    }

    /// Logs uses.
    fn record_uses(&mut self) {
        let mut objects = std::mem::take(&mut self.state.expiry.unrecorded);
        if objects.is_empty() {
            return;
        }
        objects.sort_unstable();
        objects.dedup();
        objects.retain(|object| self.state.expiry.times.contains_key(object));
        // In a log that is full they are not: the next uses will be.
        if self.full {
            return;
        }
        for objects in objects.chunks(USES_MAX) {
            self.append(Entry::Used { objects: objects.to_vec() });
        }
    }

    /// All nodes that were attached before the start are back or dead: what they have used they name within a lease.
    pub(super) fn expect_uses(&mut self) {
        self.idle_from = plus(self.clock(), ms(self.settings.lease));
    }

    /// When an object is due; `None`: there is no such object in a root with timeouts.
    fn due(&self, object: ObjectId) -> Option<LogTime> {
        let times = self.state.expiry.times.get(&object)?;
        let options = &self.state.roots.get(self.state.objects.get(object)?.root)?.options;
        let idle = plus(after(times.used, options.idle_timeout_ms), ms(self.settings.lease)).max(self.idle_from);
        Some(idle.min(after(times.created, options.absolute_timeout_ms)))
    }

    /// Whether an object is to be removed, all of whose locks are taken. If not, its turn comes again.
    pub(super) fn is_due(&mut self, object: ObjectId) -> bool {
        let (Some(due), now) = (self.due(object), self.clock()) else { return false };
        if due > now || self.full {
            self.state.expiry.put_back(object, if due > now { due } else { plus(now, ms(RETRY)) });
            return false;
        }
        true
    }

    /// Looks at the objects whose turn has come, and begins to remove those that are due.
    pub(super) fn expire(&mut self) {
        self.record_uses();
        if self.full || self.stopping || self.window.is_some() {
            return;
        }
        let now = self.clock();
        for _ in 0..TURNS_PER_BATCH {
            if self.operations.expiring() >= UNDER_WAY_MAX {
                break;
            }
            let Some(object) = self.state.expiry.take(now) else { break };
            if self.is_due(object) {
                self.begin_expiry(object);
            }
        }
        self.run_operations();
    }
}
