//! What must have happened now and then: a run in which it never did has not looked.

use std::cell::Cell;

macro_rules! sometimes { ($($(#[doc = $text:literal])+ $name:ident,)*) => {
    /// See the module.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub(crate) enum Sometimes { $($(#[doc = $text])+ $name,)* }

    impl Sometimes {
        pub(crate) const ALL: &[(Self, &str)] = &[$((Self::$name, concat!($($text),+)),)*];
    }
} }

sometimes! {
    /// a recall met a commit in flight
    RecallMetCommit,
    /// a re-assertion was refused
    ReassertionRefused,
    /// a re-assertion was accepted
    ReassertionKept,
    /// a resend was recognised as applied
    ResendRecognised,
    /// a commit was sent again and applied
    ResendSent,
    /// a deadlock was found
    Deadlock,
    /// a deadlock over more than one node was found
    DeadlockAcross,
    /// a transaction that gave way to a deadlock went through later
    DeadlockSurvived,
    /// waits that looked like a cycle were asked after
    CycleChecked,
    /// a lapsed node's late commit was refused or not heard
    LateCommit,
    /// a commit was fenced by the coordinator
    FencedCommit,
    /// a connection was cut in the middle of a frame
    CutMidFrame,
    /// a grant met a withdraw
    GrantMetWithdraw,
    /// a node's own clock ended its lease
    LapsedByItself,
    /// a lease lapsed with commits of unknown fate
    LapsedWithUnknown,
    /// the coordinator ended a lease
    LapsedAtCoordinator,
    /// a node came back as another incarnation
    Rejoined,
    /// a lease lapsed while its node was connecting
    LapsedWhileConnecting,
    /// a node came back before the coordinator had noticed that it was gone
    ResumedUnnoticed,
    /// a node found that the coordinator had lost its state
    Reset,
    /// a coordinator came back with what its log had kept
    CameBack,
    /// a coordinator came back without its last entries
    EntriesLost,
    /// a coordinator came back with a snapshot
    SnapshotRead,
    /// a coordinator cut off what was torn at the end of its log
    TornTail,
    /// a node went on across a restart of the coordinator
    WentOn,
    /// another protocol version was refused
    SkewRefused,
    /// a copy was found outdated after a reconnect
    Outdated,
    /// a node fell behind
    FellBehind,
    /// a node caught up
    CaughtUp,
    /// a watcher was shown a gap
    WatchGap,
    /// a task was paused beyond the lease inside a critical section
    PausedInSection,
    /// a task was paused beyond the lease between check and send
    PausedBeforeSend,
    /// a commit was refused by its own node because the lease had lapsed
    FencedAtHome,
    /// a commit of unknown fate had been applied
    UnknownApplied,
    /// a commit of unknown fate had not been applied
    UnknownNotApplied,
    /// a wait ran into its deadline
    TimedOut,
    /// a lock was wanted of an object that was removed meanwhile
    DestroyedWhileWaiting,
    /// a rename met a key that was taken
    KeyTaken,
    /// a write grant was lent to readers
    Downgraded,
    /// a grant was given that may not be kept
    Uncached,
    /// a heap had no room
    HeapFull,
    /// a commit on top of one that was refused was refused as well
    RefusedInARow,
    /// a commit was made from one that was refused meanwhile
    Undone,
    /// an outbox had no room
    OutboxFull,
    /// an everywhere commit waited for a node that was away
    EverywhereWaited,
    /// a named lock was made anew
    NamedAnew,
    /// a clean detach freed what was held
    DetachFreed,
    /// a dead node's locks came free with its lease
    DeadFreed,
    /// a grant that was given back was delivered again
    GrantAgain,
    /// a cut-off node answered from its near cache
    AnsweredCutOff,
    /// two lock holders were kept apart by the earlier one's clock alone
    KeptApartByClock,
    /// a commit changed objects of two roots at once
    AcrossRoots,
}

impl Sometimes {
    /// Whether it takes a coordinator that keeps its state on disk.
    pub(crate) const fn needs_disk(self) -> bool {
        matches!(self, Self::CameBack | Self::EntriesLost | Self::SnapshotRead | Self::TornTail | Self::WentOn)
    }
}

/// How often each was reached.
#[derive(Debug)]
pub(crate) struct Reached(Vec<Cell<u64>>);

impl Default for Reached {
    fn default() -> Self {
        Self(vec![Cell::new(0); Sometimes::ALL.len()])
    }
}

impl Reached {
    pub(crate) fn note(&self, what: Sometimes) {
        let count = &self.0[what as usize];
        count.set(count.get() + 1);
    }

    pub(crate) fn has(&self, what: Sometimes) -> bool {
        self.0[what as usize].get() > 0
    }

    pub(crate) fn counts(&self) -> Vec<u64> {
        self.0.iter().map(Cell::get).collect()
    }
}
