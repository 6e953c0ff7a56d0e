//! What must be true of everything that the nodes said.

use kiln::{Commit, Fate};
use kiln_tests::Record;
use std::collections::{BTreeMap, BTreeSet};

/// One increment, by the number that it made.
type Increment = (String, u64);

/// The records of all nodes.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) acked: u64,
    pub(crate) fenced: u64,
    pub(crate) failed: u64,
    pub(crate) missed: BTreeMap<String, u64>,
    pub(crate) resumed: u64,
    pub(crate) rejoined: u64,
    pub(crate) lost: u64,
    /// Who surely made the number, and how often.
    made: BTreeMap<Increment, u64>,
    /// Increments of processes that were killed before they said what became of them.
    doubtful: BTreeMap<Increment, u64>,
    unknown: Vec<(Increment, Commit)>,
    /// Adds that surely happened, and that were made at most.
    added: BTreeMap<String, (i64, i64)>,
    /// By name: from, to and the node.
    held: BTreeMap<String, Vec<(u64, u64, String)>>,
}

/// The records of one process.
#[derive(Debug, Default)]
pub(crate) struct Life {
    open: BTreeMap<Increment, u64>,
}

impl History {
    pub(crate) fn note(&mut self, node: &str, life: &mut Life, record: Record) {
        match record {
            Record::Tried(key, value) => *life.open.entry((key, value)).or_default() += 1,
            Record::Acked(key, value) => {
                self.acked += 1;
                life.close((key.clone(), value));
                *self.made.entry((key, value)).or_default() += 1;
            }
            Record::Fenced(key, value) => {
                self.fenced += 1;
                life.close((key, value));
            }
            Record::Failed(key, value) => {
                self.failed += 1;
                life.close((key, value));
            }
            Record::Unknown(key, value, commit) => {
                life.close((key.clone(), value));
                self.unknown.push(((key, value), commit));
            }
            Record::Adding(key) => self.added.entry(key).or_default().1 += 1,
            Record::Added(key) => self.added.entry(key).or_default().0 += 1,
            Record::Held(name, from, to) => self.held.entry(name).or_default().push((from, to, node.to_owned())),
            Record::Missed(reason) => *self.missed.entry(reason).or_default() += 1,
            Record::Resumed => self.resumed += 1,
            Record::Rejoined => self.rejoined += 1,
            Record::Lost => self.lost += 1,
            Record::Ended => panic!("{node} has ended"),
        }
    }

    /// The process was killed: nobody will know what became of what it had begun.
    pub(crate) fn end(&mut self, life: Life) {
        for (increment, times) in life.open {
            *self.doubtful.entry(increment).or_default() += times;
        }
    }

    /// Commits whose fate has to be asked for.
    pub(crate) fn unknown(&self) -> Vec<Commit> {
        self.unknown.iter().map(|(_, commit)| *commit).collect()
    }

    /// What those commits turned out to be, in the same order. Returns how many had happened.
    pub(crate) fn solve(&mut self, fates: &[Fate]) -> u64 {
        let mut applied = 0;
        for ((increment, commit), fate) in std::mem::take(&mut self.unknown).into_iter().zip(fates) {
            match fate {
                Fate::Applied => {
                    applied += 1;
                    *self.made.entry(increment).or_default() += 1;
                }
                Fate::NotApplied => {}
                Fate::Unknown => panic!("nobody knows what became of {commit:?}, which made {increment:?}"),
            }
        }
        applied
    }

    /// The sessions that were incremented.
    pub(crate) fn keys(&self) -> BTreeSet<String> {
        self.made.keys().map(|(key, _)| key.clone()).collect()
    }

    /// Everything that is wrong with `sum` and `clicks` of a session.
    pub(crate) fn faults(&self, key: &str, sum: u64, clicks: i64) -> Vec<String> {
        let mut faults = Vec::new();
        let of_key = |increment: &Increment| increment.0 == key;
        for ((_, value), times) in self.made.iter().filter(|(increment, _)| of_key(increment)) {
            if *times > 1 {
                faults.push(format!("{key}: {times} commits made {value}: an update is lost"));
            }
            if *value > sum {
                faults.push(format!("{key}: {value} was acknowledged, but there is only {sum}"));
            }
        }
        for value in 1..=sum {
            let increment = (key.to_owned(), value);
            if !self.made.contains_key(&increment) && !self.doubtful.contains_key(&increment) {
                faults.push(format!("{key}: nobody made {value}"));
            }
        }
        let (least, most) = self.added.get(key).copied().unwrap_or_default();
        if !(least..=most).contains(&clicks) {
            faults.push(format!("{key}: {clicks} clicks, but {least} were acknowledged and {most} made"));
        }
        faults
    }

    /// Named locks that two nodes had at once, by the machine's clock. And how often they were held.
    pub(crate) fn held_twice(&mut self) -> (Vec<String>, usize) {
        let (mut faults, mut times) = (Vec::new(), 0);
        for (name, all) in &mut self.held {
            all.sort_unstable();
            times += all.len();
            for pair in all.windows(2) {
                if pair[0].1 > pair[1].0 {
                    faults.push(format!("lock {name} was held twice: {pair:?}"));
                }
            }
        }
        (faults, times)
    }
}

impl Life {
    fn close(&mut self, increment: Increment) {
        let open = self.open.get_mut(&increment).filter(|times| **times > 0);
        *open.unwrap_or_else(|| panic!("the end of {increment:?}, which nobody began")) -= 1;
    }
}

#[test]
fn the_checker_sees_what_is_wrong() {
    let made = |records: &[Record]| {
        let (mut history, mut life) = (History::default(), Life::default());
        for record in records {
            history.note("a", &mut life, record.clone());
        }
        history.end(life);
        history
    };
    let key = || "s".to_owned();
    let (tried, acked) = (|value| Record::Tried(key(), value), |value| Record::Acked(key(), value));
    let right = made(&[tried(1), acked(1), tried(2), acked(2), tried(3)]);
    assert_eq!((right.faults("s", 2, 0).len(), right.faults("s", 3, 0).len()), (0, 0));
    assert_eq!((right.faults("s", 1, 0).len(), right.faults("s", 4, 0).len()), (1, 1));
    let twice = made(&[tried(1), tried(1), acked(1), acked(1)]);
    assert_eq!(twice.faults("s", 1, 0).len(), 1);
    let adds = made(&[Record::Adding(key()), Record::Adding(key()), Record::Added(key())]);
    assert_eq!([0, 1, 2, 3].map(|clicks| adds.faults("s", 0, clicks).len()), [1, 0, 0, 1]);
    let held = |from, to| Record::Held("l".to_owned(), from, to);
    assert_eq!(made(&[held(1, 3), held(3, 4)]).held_twice(), (Vec::new(), 2));
    assert_eq!(made(&[held(1, 3), held(2, 4)]).held_twice().0.len(), 1);
}
