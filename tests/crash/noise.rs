//! Whatever is in the files: the history up to some entry comes back, or an error.
//!
//! `PROPTEST_CASES=n` tries more.

use crate::history::{Writer, open};
use kiln_tests::Disk;
use proptest::collection::vec;
use proptest::prelude::*;

fn written(batches: &[u64]) -> Disk {
    let disk = Disk::new();
    let (log, _, last) = open(&disk).unwrap();
    let mut writer = Writer::new(log, last);
    for (number, entries) in (0..).zip(batches) {
        assert!(writer.batch(*entries));
        if number % 5 == 4 {
            assert!(writer.snapshot());
        }
        if number % 3 == 2 {
            writer.log.mark().unwrap();
        }
    }
    disk.copy()
}

#[derive(Clone, Debug)]
enum Damage {
    Byte { at: usize, mask: u8 },
    Zero { at: usize, length: usize },
    Noise { at: usize, noise: Vec<u8> },
    Copy { from: usize, to: usize, length: usize },
    Cut { at: usize },
    Gone,
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (any::<usize>(), 1..=255_u8).prop_map(|(at, mask)| Damage::Byte { at, mask }),
        2 => (any::<usize>(), 1..600_usize).prop_map(|(at, length)| Damage::Zero { at, length }),
        2 => (any::<usize>(), vec(any::<u8>(), 1..100)).prop_map(|(at, noise)| Damage::Noise { at, noise }),
        2 => (any::<usize>(), any::<usize>(), 1..600_usize)
            .prop_map(|(from, to, length)| Damage::Copy { from: from / 8 * 8, to: to / 8 * 8, length }),
        1 => any::<usize>().prop_map(|at| Damage::Cut { at }),
        1 => Just(Damage::Gone),
    ]
}

fn apply(disk: &Disk, file: usize, damage: &Damage) {
    let files = disk.files();
    let Some(name) = files.get(file % files.len().max(1)) else { return };
    let mut bytes = disk.bytes(name);
    let length = bytes.len();
    if length == 0 {
        return;
    }
    match damage {
        Damage::Byte { at, mask } => bytes[at % length] ^= mask,
        Damage::Zero { at, length: zeros } => {
            let at = at % length;
            bytes[at..(at + zeros).min(length)].fill(0);
        }
        Damage::Noise { at, noise } => {
            for (at, byte) in (at % length..length).zip(noise) {
                bytes[at] = *byte;
            }
        }
        Damage::Copy { from, to, length: copied } => {
            let (from, to) = (from % length, to % length);
            let part = bytes[from..(from + copied).min(length)].to_vec();
            for (at, byte) in (to..length).zip(part) {
                bytes[at] = byte;
            }
        }
        Damage::Cut { at } => bytes.truncate(at % length),
        Damage::Gone => return disk.take(name),
    }
    disk.put(name, bytes);
}

proptest! {
    #[test]
    fn a_damaged_log_is_its_history_or_an_error(
        batches in vec(1..6_u64, 1..25),
        damages in vec((any::<usize>(), damage()), 1..5),
    ) {
        let disk = written(&batches);
        for (file, damage) in &damages {
            apply(&disk, *file, damage);
        }
        // Checks all that comes back.
        if let Ok((_, _, last)) = open(&disk) {
            let (_, _, again) = open(&disk.copy()).unwrap();
            prop_assert_eq!(again, last);
        }
    }

    #[test]
    fn noise_is_no_log(segment in vec(any::<u8>(), 0..3000), snapshot in vec(any::<u8>(), 0..300)) {
        let disk = Disk::new();
        disk.put("000000000001.log", segment);
        prop_assert!(open(&disk).is_err());
        disk.put("00000000000000000007.snapshot", snapshot);
        prop_assert!(open(&disk).is_err());
    }
}
