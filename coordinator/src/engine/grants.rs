//! The locks of one object, in 16 bytes while at most one node holds the default group's and nobody waits.

use super::lock::{Lock, Party};
use super::nodes::NodeSlot;
use kiln_protocol::message::{Mode, Place};
use kiln_protocol::{GroupId, Token};
use smallvec::SmallVec;
use std::time::Duration;

const DECISECOND_MS: u128 = 100;

/// The locks of one object.
#[derive(Debug, Default)]
pub(super) enum Locks {
    /// All free.
    #[default]
    Free,
    /// One node holds the default group's.
    Sole(Sole),
    /// Anything else.
    Table(Box<LockTable>),
}

/// The only grant of an object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sole {
    token: Token,
    since_ds: u32,
    node: NodeSlot,
    mode: Mode,
}

/// One lock for each group that is in use.
#[derive(Debug, Default)]
pub(super) struct LockTable {
    locks: SmallVec<[(GroupId, Lock); 1]>,
}

impl LockTable {
    fn lock(&mut self, group: GroupId) -> &mut Lock {
        let at = match self.locks.binary_search_by_key(&group, |(group, _)| *group) {
            Ok(at) => at,
            Err(at) => {
                self.locks.insert(at, (group, Lock::default()));
                at
            }
        };
        &mut self.locks[at].1
    }
}

impl Sole {
    fn lock(self) -> Lock {
        let since = Duration::from_millis(u64::from(self.since_ds) * 100);
        Lock::held(self.node, self.mode, self.token, since)
    }
}

impl Locks {
    /// The lock of a group.
    pub(super) fn lock(&mut self, group: GroupId) -> &mut Lock {
        if !matches!(self, Self::Table(_)) {
            let mut table = LockTable::default();
            if let Self::Sole(sole) = self {
                table.locks.push((GroupId::DEFAULT, sole.lock()));
            }
            *self = Self::Table(Box::new(table));
        }
        let Self::Table(table) = self else { unreachable!("it was made one above") };
        table.lock(group)
    }

    /// Whether a node's commit under this token is one under the group's lock (S2).
    pub(super) fn guards(&self, group: GroupId, node: NodeSlot, token: Token) -> bool {
        match self {
            Self::Free => false,
            Self::Sole(sole) => {
                group == GroupId::DEFAULT && sole.node == node && sole.mode == Mode::Write && sole.token == token
            }
            Self::Table(table) => table.locks.iter().any(|(of, lock)| *of == group && lock.guards(node, token)),
        }
    }

    /// Whether a node has a grant of at least this mode.
    pub(super) fn has_grant(&self, group: GroupId, node: NodeSlot, mode: Mode) -> bool {
        match self {
            Self::Free => false,
            Self::Sole(sole) => group == GroupId::DEFAULT && sole.node == node && sole.mode >= mode,
            Self::Table(table) => table.locks.iter().any(|(of, lock)| *of == group && lock.has_grant(node, mode)),
        }
    }

    /// See [`Lock::asked`].
    pub(super) fn asked(&self, group: GroupId, node: NodeSlot) -> Option<Mode> {
        match self {
            Self::Free | Self::Sole(_) => None,
            Self::Table(table) => table.locks.iter().find(|(of, _)| *of == group)?.1.asked(node),
        }
    }

    /// See [`Lock::is_draining`].
    pub(super) fn is_draining(&self, group: GroupId, node: NodeSlot) -> bool {
        match self {
            Self::Free | Self::Sole(_) => false,
            Self::Table(table) => table.locks.iter().any(|(of, lock)| *of == group && lock.is_draining(node)),
        }
    }

    /// See [`Lock::is_behind`].
    pub(super) fn is_behind(&self, group: GroupId, reader: (NodeSlot, Place), writer: (NodeSlot, Place)) -> bool {
        match self {
            Self::Free | Self::Sole(_) => false,
            Self::Table(table) => table.locks.iter().any(|(of, lock)| *of == group && lock.is_behind(reader, writer)),
        }
    }

    /// Gives a new object's lock to its maker; nobody else can want it yet.
    pub(super) fn give(&mut self, group: GroupId, node: NodeSlot, token: Token, now: Duration) {
        if group == GroupId::DEFAULT && matches!(self, Self::Free) {
            *self = Self::Sole(Sole { token, since_ds: deciseconds(now), node, mode: Mode::Write });
        } else {
            *self.lock(group) = Lock::held(node, Mode::Write, token, now);
        }
    }

    /// Whether nobody holds any and nobody waits.
    pub(super) fn is_free(&self) -> bool {
        match self {
            Self::Free => true,
            Self::Sole(_) => false,
            Self::Table(table) => table.locks.iter().all(|(_, lock)| lock.is_free()),
        }
    }

    /// Each lock that is held or waited for.
    pub(super) fn used(&self) -> Vec<(GroupId, Lock)> {
        match self {
            Self::Free => Vec::new(),
            Self::Sole(sole) => vec![(GroupId::DEFAULT, sole.lock())],
            Self::Table(table) => table.locks.iter().filter(|(_, lock)| !lock.is_free()).cloned().collect(),
        }
    }

    /// The groups that have a lock in use, or had one lately.
    pub(super) fn groups(&self) -> SmallVec<[GroupId; 1]> {
        match self {
            Self::Free => SmallVec::new(),
            Self::Sole(_) => SmallVec::from_buf([GroupId::DEFAULT]),
            Self::Table(table) => table.locks.iter().map(|(group, _)| *group).collect(),
        }
    }

    /// Takes away the grants of nodes that are gone.
    pub(super) fn drop_holders(&mut self, mut gone: impl FnMut(NodeSlot) -> bool) {
        match self {
            Self::Free => {}
            Self::Sole(sole) => {
                if gone(sole.node) {
                    *self = Self::Free;
                }
            }
            Self::Table(table) => {
                for (_, lock) in &mut table.locks {
                    lock.drop_holders(&mut gone);
                }
            }
        }
    }

    /// Takes as little room as it can. Returns whether there is a free lock that will be forgettable later.
    pub(super) fn compact(&mut self, now: Duration) -> bool {
        let Self::Table(table) = self else { return false };
        table.locks.retain(|(_, lock)| !lock.is_forgettable(now));
        match &table.locks[..] {
            [] => *self = Self::Free,
            [(GroupId::DEFAULT, lock)] if lock.queue().is_empty() && lock.hand_offs() == 0 => {
                if let [holder] = lock.holders()
                    && holder.recalled.is_none()
                    && let Party::Node(node) = holder.party
                {
                    *self = Self::Sole(Sole {
                        token: holder.token,
                        since_ds: deciseconds(holder.since),
                        node,
                        mode: holder.mode,
                    });
                }
            }
            locks => return locks.iter().any(|(_, lock)| lock.is_free()),
        }
        false
    }
}

/// Thirteen years fit.
fn deciseconds(since: Duration) -> u32 {
    u32::try_from(since.as_millis() / DECISECOND_MS).unwrap_or(u32::MAX)
}
