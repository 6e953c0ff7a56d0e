//! The power goes at each step, one after the other.

use crate::history::{Writer, live, open};
use kiln_tests::{Disk, Fate};

const BATCHES: usize = 120;
const SEED: u64 = 11;

fn fates(seed: u64) -> [Fate; 6] {
    [
        Fate::Lost,
        Fate::Kept,
        Fate::Torn { seed },
        Fate::Torn { seed: seed + 1_000_000 },
        Fate::Garbled { seed: seed + 2_000_000 },
        Fate::Garbled { seed: seed + 3_000_000 },
    ]
}

/// A start after the power went, then a little more of life, then another start.
fn go_on(disk: &Disk, safe: u64, what: &str) {
    let (log, _, last) = open(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(last >= safe, "{what}: entry {safe} was safe, and the log ends with {last}");
    let mut writer = Writer::new(log, last);
    for entries in 1..=3 {
        assert!(writer.batch(entries), "{what}");
    }
    assert_eq!(writer.safe, last + 6, "{what}");
    drop(writer);
    // Only what was synced counts.
    let (_, found, again) = open(&disk.after(Fate::Lost)).unwrap_or_else(|error| panic!("{what}, again: {error}"));
    assert_eq!((again, found.torn), (last + 6, None), "{what}, again");
}

#[test]
fn whatever_was_safe_is_there_after_the_power_went_at_any_step() {
    let whole = Disk::new();
    let all = live(&whole, BATCHES, SEED);
    let steps = whole.steps();
    assert!(all > 100 && steps >= 300, "{all} entries in {steps} steps");
    let mut starts = 0;
    for step in 0..steps {
        for fate in fates(step) {
            let disk = Disk::new();
            disk.power_goes_at(step);
            let safe = live(&disk, BATCHES, SEED);
            assert!(disk.is_off(), "step {step} is one of {steps}");
            go_on(&disk.after(fate), safe, &format!("step {step}, {fate:?}"));
            starts += 1;
        }
    }
    println!("{steps} steps, {starts} starts");
}

#[test]
fn a_start_may_be_cut_short_at_any_step_too() {
    let mut starts = 0;
    let whole = Disk::new();
    live(&whole, BATCHES, SEED);
    for step in (0..whole.steps()).step_by(7) {
        let disk = Disk::new();
        disk.power_goes_at(step);
        let safe = live(&disk, BATCHES, SEED);
        for fate in fates(step) {
            let found = disk.after(fate);
            for cut in 0.. {
                let again = found.copy();
                again.power_goes_at(cut);
                let opened = open(&again);
                if let Ok((_, _, last)) = opened {
                    assert!(last >= safe, "step {step}, {fate:?}, start cut at {cut}");
                    break;
                }
                for fate in fates(cut) {
                    go_on(&again.after(fate), safe, &format!("step {step}, start cut at {cut}, {fate:?}"));
                    starts += 1;
                }
            }
        }
    }
    println!("{starts} starts");
}

#[test]
fn many_lives_one_after_the_other_lose_nothing() {
    for seed in 0..60_u32 {
        let (mut disk, mut safe) = (Disk::new(), 0);
        for life in 0..8_u32 {
            disk.power_goes_at(disk.steps() + 5 + u64::from(seed * 31 + life * 17) % 90);
            safe = live(&disk, BATCHES, u64::from(seed * 100 + life)).max(safe);
            disk = disk.after(fates(u64::from(seed * 1000 + life))[(seed + life) as usize % 6]);
            let (_, _, last) = open(&disk).unwrap_or_else(|error| panic!("seed {seed}, life {life}: {error}"));
            assert!(last >= safe, "seed {seed}, life {life}");
            safe = last;
        }
    }
}
