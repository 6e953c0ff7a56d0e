//! A log without a medium: everything counts as safe at once, and all of it ends with the process.

use super::{Log, LogError};
use crate::engine::{Entry, LogSeq, LogTime};
use std::task::{Context, Poll};

/// Keeps nothing but the number of the last entry; the state itself is in the engine.
#[derive(Debug, Default)]
pub struct MemoryLog {
    appended: LogSeq,
    reported: LogSeq,
}

impl MemoryLog {
    /// An empty log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Log for MemoryLog {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn append(&mut self, seq: LogSeq, _time: LogTime, _entry: Entry) {
        debug_assert_eq!(seq, self.appended.next(), "the engine numbers entries without gaps");
        self.appended = seq;
    }

    fn submit(&mut self) {}

    // Never wakes anybody: nothing becomes safe later.
    fn poll_safe(&mut self, _context: &mut Context<'_>) -> Poll<Result<LogSeq, LogError>> {
        if self.reported == self.appended {
            return Poll::Pending;
        }
        self.reported = self.appended;
        Poll::Ready(Ok(self.reported))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_protocol::ObjectId;

    #[test]
    fn what_was_appended_is_safe_once() {
        let mut log = MemoryLog::new();
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(log.poll_safe(&mut context).is_pending());
        let object = ObjectId::from_bits(1);
        for seq in 1..=2 {
            log.append(LogSeq::from_bits(seq), LogTime::default(), Entry::Removed { by: None, object });
        }
        log.submit();
        assert!(matches!(log.poll_safe(&mut context), Poll::Ready(Ok(seq)) if seq == LogSeq::from_bits(2)));
        assert!(log.poll_safe(&mut context).is_pending());
    }
}
