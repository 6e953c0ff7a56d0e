//! A log that is full: nothing is changed until it has room again. Reads and locks go on (L6).
//!
//! A commit that is refused for it counts like any other, but is not logged: a node that tries again and again must not
//! fill what room is left. How many there were is logged when there is room, or with the end of the incarnation. Should the
//! coordinator die before that, nodes send them again, as nothing.

use super::nodes::NodeSlot;
use super::{Engine, Entry};
use kiln_protocol::message::Role;
use kiln_protocol::{CommitSeq, Failure, Incarnation};

/// Objects that are looked at after each batch.
const UNUSED_PER_BATCH: usize = 256;
/// Observers that may attach while the log is full, all together: each leaves two short entries in the room that is left
/// for what cannot be refused. Whoever is to make room has to look, and to ask for a snapshot.
const OBSERVERS_MAX: u32 = 128;

impl Engine {
    /// Whether anything may be changed.
    pub(super) const fn check_log(&self) -> Result<(), Failure> {
        if self.full { Err(Failure::LogFull) } else { Ok(()) }
    }

    /// Whether anybody may attach in this role.
    pub(super) const fn check_log_for(&mut self, role: Role) -> Result<(), Failure> {
        if self.full && matches!(role, Role::Observer) && self.full_observers < OBSERVERS_MAX {
            self.full_observers += 1;
            return Ok(());
        }
        self.check_log()
    }

    /// An incarnation's last commit that was decided.
    pub(super) fn decided(&self, incarnation: Incarnation) -> CommitSeq {
        self.owed.get(&incarnation).copied().unwrap_or_else(|| self.state.applied(incarnation))
    }

    /// The last commit of an attached node that was decided.
    pub(super) fn applied(&self, node: NodeSlot) -> CommitSeq {
        self.nodes.get(node).map_or_else(CommitSeq::default, |node| self.decided(node.incarnation))
    }

    /// A commit is refused.
    pub(super) fn refuse(&mut self, writer: Incarnation, seq: CommitSeq) {
        if self.full {
            self.owed.insert(writer, seq);
        } else {
            self.append(Entry::Refused { writer, first: seq, last: seq });
        }
    }

    /// Logs what was refused while the log was full.
    pub(super) fn log_owed(&mut self, writer: Incarnation) {
        if let Some(last) = self.owed.remove(&writer) {
            let first = self.state.applied(writer).next();
            self.append(Entry::Refused { writer, first, last });
        }
    }

    /// [`super::Event::LogHasRoom`].
    pub(super) fn has_room(&mut self) {
        (self.full, self.full_observers) = (false, 0);
        let owed: Vec<_> = self.owed.keys().copied().collect();
        for writer in owed {
            self.log_owed(writer);
            if let Some(node) = self.nodes.find(writer) {
                self.note_unsynced(node);
            }
        }
    }

    /// Looks at objects of ephemeral roots that nobody may have to do with any more.
    pub(super) fn remove_unused(&mut self) {
        if self.full || self.window.is_some() {
            return;
        }
        for _ in 0..UNUSED_PER_BATCH.min(self.unused.len()) {
            if let Some(object) = self.unused.pop_first()
                && let Some(slot) = self.state.objects.find(object)
            {
                self.remove_if_unused(slot);
            }
        }
    }
}
