//! The pair: a real coordinator engine and two real runtime engines in one thread, joined by byte queues that deliver
//! when chance says so. No sockets, no clock, no tokio: a seed names a run, and the same seed is the same run.
//!
//! `KILN_SIM_SEEDS=n` runs that many seeds, `KILN_SIM_FIRST=n` begins at that one, `KILN_SIM_STEPS=n` makes each run
//! longer. A failing run names its seed; `KILN_SIM_FIRST=seed KILN_SIM_SEEDS=1` replays it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks for one message among all")]

mod faults;
mod held;
mod model;
mod node;
mod tasks;
mod watching;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use world::World;

const SEEDS: u64 = 100;
const STEPS: u64 = 4000;

fn setting(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|error| panic!("{name}={text} is not a number: {error}")),
        Err(_) => otherwise,
    }
}

/// One run: with faults for safety, then without for liveness. Returns what tells two runs apart.
fn run(seed: u64, steps: u64) -> u64 {
    let world = World::new(seed);
    for _ in 0..steps {
        world.step();
    }
    world.settle();
    world.check_converged();
    world.fingerprint()
}

#[test]
fn no_update_is_lost_and_all_copies_converge() {
    let (first, seeds, steps) =
        (setting("KILN_SIM_FIRST", 1), setting("KILN_SIM_SEEDS", SEEDS), setting("KILN_SIM_STEPS", STEPS));
    for seed in first..first + seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed, steps))) {
            eprintln!("failed with KILN_SIM_FIRST={seed} KILN_SIM_SEEDS=1 KILN_SIM_STEPS={steps}");
            resume_unwind(panic);
        }
    }
}

#[test]
fn a_seed_is_a_run() {
    assert_eq!(run(7, 1500), run(7, 1500));
    assert_ne!(run(7, 1500), run(8, 1500));
}
