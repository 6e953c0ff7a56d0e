//! The simulator: the real engine of a coordinator and the real engines of three nodes, the real bytes between them, and
//! everything else made up: time, clocks, the network, processes that die, stop and come back. A seed names a run, and the
//! same seed is the same run.
//!
//! `KILN_SIM_SEEDS=FROM..TO` runs that range (without `TO` itself), `KILN_SIM_TRACE=1` says on the standard error
//! what happens. With `KILN_SIM_DISK=1` half of the coordinators have the real log and snapshots on a disk (`disk.rs`) that
//! loses, tears and garbles what was not synced when they crash, and come back with what it has kept. A run has a phase with
//! faults, in which nothing may go wrong that must not, and one without, in which everything must come right. What is checked is in `invariants/`, what can happen in `faults.rs` and `tasks/`.
//!
//! No sockets, no clock, no tokio. The heap frees memory when all threads of its process have moved on; so that a seed is
//! a run, every process simulates one world at a time, and this program runs itself once more for each core.
#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks for one message among all")]
#![expect(clippy::print_stdout, reason = "says what it found")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

mod clock;
mod coordinator;
mod disk;
mod executor;
mod faults;
mod grants;
mod held;
mod invariants;
mod keeper;
mod ledger;
mod network;
mod process;
mod program;
mod report;
mod run;
mod sometimes;
mod tasks;
mod thief;
mod trace;
mod watching;
mod workers;
mod world;

use std::ops::Range;
use std::process::ExitCode;

/// As many as a debug build runs in about 20 s on two cores.
const SEEDS: Range<u64> = 1..201;

fn main() -> ExitCode {
    if let Some(share) = workers::Share::from_environment() {
        workers::work(&share);
        return ExitCode::SUCCESS;
    }
    // Whoever asks for other tests by name does not want this one.
    let named: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if std::env::args().any(|argument| argument == "--list")
        || !(named.is_empty() || named.iter().any(|name| name == "sim"))
    {
        return ExitCode::SUCCESS;
    }
    let seeds = match std::env::var("KILN_SIM_SEEDS") {
        Ok(text) => range(&text).unwrap_or_else(|| unreachable!("KILN_SIM_SEEDS={text} is not FROM..TO")),
        Err(_) => SEEDS,
    };
    let report = workers::run(seeds);
    report.print();
    if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn range(text: &str) -> Option<Range<u64>> {
    let (from, to) = text.split_once("..")?;
    let (from, to) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
    (from < to).then_some(from..to)
}
