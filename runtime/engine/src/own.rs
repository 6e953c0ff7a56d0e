//! This node's own commits, on top of a record that lacks them.

use crate::binding::Tail;
use crate::entry::Entry;
use kiln_heap::{ApplyError, SlotWrite};
use kiln_protocol::message::Commit;
use kiln_protocol::{CommitSeq, GroupId};

/// What commits of this node write in one object, in order, and the versions that they make.
pub(crate) struct Own<'w> {
    writes: Vec<SlotWrite<'w>>,
    versions: Vec<(u8, u64)>,
}

impl<'w> Own<'w> {
    /// What [`new`](Self::new) takes.
    pub(crate) fn tails(commits: &[(CommitSeq, Commit)]) -> Vec<Tail> {
        commits.iter().flat_map(|(_, commit)| &commit.parts).map(|_| Tail::default()).collect()
    }

    pub(crate) fn new(entry: &Entry, commits: &'w [(CommitSeq, Commit)], tails: &'w mut [Tail]) -> Self {
        let (mut writes, mut versions) = (Vec::new(), Vec::new());
        let parts = commits.iter().flat_map(|(_, commit)| &commit.parts).filter(|part| part.object == entry.id());
        for (part, tail) in parts.zip(tails) {
            let Ok(decoded) = entry.binding.decode(&part.writes, tail) else { continue };
            writes.extend(decoded.writes);
            if let Some(index) = entry.binding.group_index(part.group)
                && part.group != GroupId::COMMUTATIVE
            {
                versions.push((index, part.version.to_bits()));
            }
        }
        Self { writes, versions }
    }

    /// Puts them on top of a record that is there already, and that nobody sees yet.
    pub(crate) fn apply(&self, entry: &Entry) -> Result<(), ApplyError> {
        if self.writes.is_empty() {
            return Ok(());
        }
        entry.object.apply(&self.writes, &self.versions)
    }

    /// The writes on top of those of a record, and below what was changed here alone.
    pub(crate) fn over(&self, record: &[SlotWrite<'w>], alone: &[SlotWrite<'w>]) -> Vec<SlotWrite<'w>> {
        [record, &self.writes, alone].concat()
    }

    /// The versions, given those of a record.
    pub(crate) fn versions(&self, record: &[u64]) -> Vec<u64> {
        let mut versions = record.to_vec();
        for (index, version) in &self.versions {
            versions[usize::from(*index)] = *version;
        }
        versions
    }
}
