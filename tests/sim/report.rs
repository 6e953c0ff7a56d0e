//! What runs had in them, summed up.

use crate::faults::{Fault, on_disk};
use crate::sometimes::Sometimes;
use std::collections::BTreeMap;
use std::time::Duration;

/// Of so many seeds, all must be reached that must be reached sometimes.
const ENOUGH: u64 = 2_000;
/// Of so many seeds, each kind of fault must be in its share.
const ENOUGH_FOR_FAULTS: u64 = 500;
const SHARE_MIN_PERCENT: u64 = 5;

/// One run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Summary {
    pub(crate) seed: u64,
    /// Of every byte that arrived.
    pub(crate) hash: u64,
    /// Of the phase with faults.
    pub(crate) steps: u64,
    pub(crate) commits: u64,
    pub(crate) faults: Vec<u64>,
    pub(crate) reached: Vec<u64>,
}

impl Summary {
    /// As one line.
    pub(crate) fn line(&self) -> String {
        let numbers = |numbers: &[u64]| numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        let Self { seed, hash, steps, commits, faults, reached } = self;
        format!("{seed} {hash} {steps} {commits} {} {}", numbers(faults), numbers(reached))
    }

    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let mut number = || words.next()?.parse::<u64>().ok();
        let (seed, hash, steps, commits) = (number()?, number()?, number()?, number()?);
        let mut numbers = || words.next()?.split(',').map(|number| number.parse().ok()).collect::<Option<Vec<u64>>>();
        Some(Self { seed, hash, steps, commits, faults: numbers()?, reached: numbers()? })
    }
}

/// Of many runs.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) seeds: u64,
    steps: u64,
    commits: u64,
    /// In how many seeds, and how often.
    faults: Vec<(u64, u64)>,
    reached: Vec<(u64, u64)>,
    pub(crate) hashes: BTreeMap<u64, u64>,
    pub(crate) failed: Vec<(u64, String)>,
    pub(crate) took: Duration,
}

fn add(sums: &mut Vec<(u64, u64)>, counts: &[u64]) {
    sums.resize(counts.len(), (0, 0));
    for ((seeds, times), count) in sums.iter_mut().zip(counts) {
        *seeds += u64::from(*count > 0);
        *times += count;
    }
}

impl Report {
    /// The hashes of the first seeds are kept, to be compared.
    pub(crate) fn add(&mut self, summary: &Summary, hashes_max: usize) {
        self.seeds += 1;
        self.steps += summary.steps;
        self.commits += summary.commits;
        add(&mut self.faults, &summary.faults);
        add(&mut self.reached, &summary.reached);
        self.hashes.insert(summary.seed, summary.hash);
        if self.hashes.len() > hashes_max {
            self.hashes.pop_last();
        }
    }

    fn faults(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        Fault::ALL.iter().zip(&self.faults).map(|((_, name), (seeds, times))| (name.trim(), *seeds, *times))
    }

    fn reached(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        let possible = |what: Sometimes| on_disk() || !what.needs_disk();
        let all = Sometimes::ALL.iter().zip(&self.reached).filter(move |((what, _), _)| possible(*what));
        all.map(|((_, name), (seeds, times))| (name.trim(), *seeds, *times))
    }

    pub(crate) fn rate(&self) -> f64 {
        self.seeds as f64 / self.took.as_secs_f64().max(0.001)
    }

    pub(crate) fn print(&self) {
        println!("faults, in percent of the seeds, and how often:");
        for (name, seeds, times) in self.faults() {
            println!(" {:>6.1} %  {times:>9}  {name}", 100.0 * seeds as f64 / self.seeds.max(1) as f64);
        }
        println!("what is to happen sometimes, in percent of the seeds, and how often:");
        for (name, seeds, times) in self.reached() {
            println!(" {:>6.1} %  {times:>9}  {name}", 100.0 * seeds as f64 / self.seeds.max(1) as f64);
        }
        for (seed, what) in &self.failed {
            println!("\nseed {seed}: {what}");
            println!("seed {seed} alone, with all that happens:");
            println!(
                "    KILN_SIM_SEEDS={seed}..{} KILN_SIM_TRACE=1 cargo test --release -p kiln-tests --test sim",
                seed + 1
            );
        }
        for missing in self.missing() {
            println!("{missing}");
        }
        let per_seed = |sum: u64| sum as f64 / self.seeds.max(1) as f64;
        println!(
            "sim: {} seeds in {:.1} s, {:.1} seeds/s, {:.0} steps and {:.0} commits a seed, {} failed",
            self.seeds + self.failed.len() as u64,
            self.took.as_secs_f64(),
            self.rate(),
            per_seed(self.steps),
            per_seed(self.commits),
            self.failed.len()
        );
    }

    fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if self.seeds >= ENOUGH_FOR_FAULTS {
            let rare = self.faults().filter(|(_, seeds, _)| seeds * 100 < self.seeds * SHARE_MIN_PERCENT);
            missing.extend(rare.map(|(name, ..)| format!("in less than {SHARE_MIN_PERCENT} % of the seeds: {name}")));
        }
        if self.seeds >= ENOUGH {
            let never = self.reached().filter(|(_, seeds, _)| *seeds == 0);
            missing.extend(never.map(|(name, ..)| format!("never reached: {name}")));
        }
        missing
    }

    pub(crate) fn is_good(&self) -> bool {
        self.seeds > 0 && self.failed.is_empty() && self.missing().is_empty()
    }
}
