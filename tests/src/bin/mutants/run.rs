//! One bug at a time: the unit tests, which must not find it, and the simulation, which must.

use crate::build::Programs;
use crate::list::Mutant;
use std::error::Error;
use std::fmt;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::process::Command;

/// Seeds are tried in rounds, each so many times longer than the one before.
const FIRST_ROUND: u64 = 40;
const GROWTH: u64 = 4;
const PATIENCE: Duration = Duration::from_secs(600);

/// What became of a bug.
pub(crate) enum Verdict {
    /// The simulation found it.
    Caught {
        /// The first seed that did.
        seed: u64,
        /// What it said.
        said: String,
    },
    /// No seed found it.
    Survived { seeds: u64 },
    /// The simulation did not come to an end.
    Hangs,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caught { seed, said } => write!(f, "caught by seed {seed}: {said}"),
            Self::Survived { seeds } => write!(f, "SURVIVED {seeds} seeds"),
            Self::Hangs => write!(f, "HANGS: the simulation has no end with it"),
        }
    }
}

/// Days since 1970, so that another part of the bugs has its turn each day.
#[expect(clippy::disallowed_methods, reason = "a program for the terminal")]
pub(crate) fn day() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400)
}

/// What the simulation runs.
#[derive(Clone, Copy)]
struct Seeds {
    from: u64,
    to: u64,
    on_disk: bool,
}

/// Runs a program; `None` when it does not end.
async fn run(program: &Path, mutant: &str, seeds: Option<Seeds>) -> Result<Option<Output>, Box<dyn Error>> {
    let mut command = Command::new(program);
    command.env("KILN_MUTANT", mutant).env_remove("KILN_SIM_TRACE").kill_on_drop(true);
    command.env_remove("KILN_SIM_DISK");
    if let Some(Seeds { from, to, on_disk }) = seeds {
        command.env("KILN_SIM_SEEDS", format!("{from}..{to}")).args(["--nocapture"]);
        if on_disk {
            command.env("KILN_SIM_DISK", "1");
        }
    }
    match tokio::time::timeout(PATIENCE, command.output()).await {
        Ok(output) => Ok(Some(output?)),
        Err(_elapsed) => Ok(None),
    }
}

/// Without any bug everything passes, or what follows means nothing.
pub(crate) async fn passes(programs: &Programs, seeds: u64) -> Result<(), Box<dyn Error>> {
    let simulations = [false, true].map(|on_disk| (&programs.simulation, Some(Seeds { from: 0, to: seeds, on_disk })));
    for (program, seeds) in programs.unit_tests.iter().map(|program| (program, None)).chain(simulations) {
        let output = run(program, "none", seeds).await?.ok_or("the simulation has no end even without a bug")?;
        if !output.status.success() {
            return Err(format!("{} fails even without a bug:\n{}", program.display(), text(&output)).into());
        }
    }
    Ok(())
}

/// The first unit test that finds a bug.
pub(crate) async fn unit_test(programs: &Programs, mutant: &Mutant) -> Result<Option<String>, Box<dyn Error>> {
    for program in &programs.unit_tests {
        match run(program, &mutant.name, None).await? {
            Some(output) if output.status.success() => {}
            Some(output) => return Ok(Some(failed_test(&text(&output)))),
            None => return Ok(Some(format!("a test of {} that hangs", program.display()))),
        }
    }
    Ok(None)
}

/// What becomes of one bug in the simulation.
pub(crate) async fn verdict(programs: &Programs, mutant: &Mutant, seeds: u64) -> Result<Verdict, Box<dyn Error>> {
    let (mut from, mut round) = (0, FIRST_ROUND);
    while from < seeds {
        let to = seeds.min(from + round);
        match run(&programs.simulation, &mutant.name, Some(Seeds { from, to, on_disk: mutant.disk })).await? {
            // That something was never reached is no finding.
            Some(output) => {
                if let Some((seed, said)) = finding(&text(&output)) {
                    return Ok(Verdict::Caught { seed, said });
                }
            }
            None => return Ok(Verdict::Hangs),
        }
        (from, round) = (to, round * GROWTH);
    }
    Ok(Verdict::Survived { seeds })
}

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).join("\n")
}

fn failed_test(text: &str) -> String {
    let failed = text.lines().find_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
    failed.unwrap_or("a unit test").to_owned()
}

/// What the simulation's report says of the first seed that failed: `seed 17: what is wrong`.
fn finding(text: &str) -> Option<(u64, String)> {
    text.lines()
        .filter_map(|line| {
            let (seed, said) = line.trim_start().strip_prefix("seed ")?.split_once(": ")?;
            Some((seed.parse().ok()?, said.chars().take(120).collect()))
        })
        .min()
}
