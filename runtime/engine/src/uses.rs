//! What this node has used of roots with timeouts: noted by whoever reads, said with a heartbeat.
//!
//! A turn lasts from one time that all was said to the next. An object is noted once in each, so a read costs two relaxed
//! loads, and what is noted is little more than what is resident. What was said is kept until the heartbeat behind it is
//! answered: a connection that is lost loses no use.

use crossbeam_queue::SegQueue;
use kiln_protocol::ObjectId;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The uses of one node.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    /// From 0 on.
    turn: AtomicU32,
    noted: SegQueue<ObjectId>,
    said: Mutex<Option<Said>>,
}

/// What was said, and not answered.
#[derive(Debug)]
struct Said {
    objects: Vec<ObjectId>,
    /// The heartbeat behind it.
    heartbeat: u64,
    /// On a connection that is lost.
    is_lost: bool,
}

/// An object's own part of it.
#[derive(Debug)]
pub(crate) struct Noted {
    /// In which turn it was noted last.
    turn: AtomicU32,
    uses: Arc<Uses>,
}

impl Noted {
    pub(crate) const fn new(uses: Arc<Uses>) -> Self {
        Self { turn: AtomicU32::new(u32::MAX), uses }
    }

    /// The object is used.
    #[inline]
    pub(crate) fn note(&self, object: impl FnOnce() -> ObjectId) {
        // Relaxed: who sees the turn before is noted in that, just before all of it is said. Loaded first, so that readers
        // of one object do not write to a shared line each time.
        let turn = self.uses.turn.load(Ordering::Relaxed);
        if self.turn.load(Ordering::Relaxed) != turn && self.turn.swap(turn, Ordering::Relaxed) != turn {
            self.uses.noted.push(object());
        }
    }
}

impl Uses {
    fn said(&self) -> MutexGuard<'_, Option<Said>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be said now, before this heartbeat. Nothing while the last one has no answer.
    pub(crate) fn say(&self, heartbeat: u64) -> Vec<ObjectId> {
        let mut said = self.said();
        if said.as_ref().is_some_and(|said| !said.is_lost) {
            return Vec::new();
        }
        // What is used from here on is noted anew.
        self.turn.fetch_add(1, Ordering::Relaxed);
        let mut objects = said.take().map_or_else(Vec::new, |lost| lost.objects);
        objects.extend(std::iter::from_fn(|| self.noted.pop()).take(self.noted.len()));
        objects.sort_unstable();
        objects.dedup();
        if !objects.is_empty() {
            *said = Some(Said { objects: objects.clone(), heartbeat, is_lost: false });
        }
        objects
    }

    /// A heartbeat is answered.
    pub(crate) fn answered(&self, heartbeat: u64) {
        let mut said = self.said();
        if said.as_ref().is_some_and(|said| said.heartbeat <= heartbeat && !said.is_lost) {
            *said = None;
        }
    }

    /// The connection is lost.
    pub(crate) fn lost(&self) {
        if let Some(said) = &mut *self.said() {
            said.is_lost = true;
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn object(number: u64) -> ObjectId {
        ObjectId::from_bits(number)
    }

    fn noted(uses: &Arc<Uses>) -> Noted {
        Noted::new(Arc::clone(uses))
    }

    #[test]
    fn an_object_is_said_once_in_a_turn_however_often_it_is_used() {
        let uses = Arc::new(Uses::default());
        let (one, other) = (noted(&uses), noted(&uses));
        for _ in 0..3 {
            one.note(|| object(1));
        }
        other.note(|| object(2));
        assert_eq!(uses.say(1), [object(1), object(2)]);
        one.note(|| object(1));
        assert_eq!(uses.say(2), [], "the first has no answer yet");
        uses.answered(1);
        assert_eq!(uses.say(3), [object(1)]);
        uses.answered(3);
        assert_eq!(uses.say(4), [], "nothing was used");
    }

    #[test]
    fn what_was_said_on_a_connection_that_is_lost_is_said_again() {
        let uses = Arc::new(Uses::default());
        noted(&uses).note(|| object(1));
        assert_eq!(uses.say(1), [object(1)]);
        uses.lost();
        uses.answered(1);
        noted(&uses).note(|| object(2));
        assert_eq!(uses.say(2), [object(1), object(2)]);
        uses.answered(2);
        assert_eq!(uses.say(3), []);
    }
}
