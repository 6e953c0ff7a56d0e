//! Plants small bugs in a copy of the engines, one at a time, and says after how many seeds the simulation finds each.
//!
//! A bug that no seed finds means an invariant that nobody checks. Most are such that no unit test finds them; for each
//! invariant there has to be one of these. All are built at once, each behind a switch that the environment sets, so that one
//! build serves them all. The engines' own source knows nothing of it: see `tests/mutants/`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

mod build;
mod list;
mod run;

use list::Mutant;
use run::Verdict;
use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "\
Plants each bug of tests/mutants in a copy of the engines and lets the simulation find it.

usage: cargo run --release -p kiln-tests --bin mutants -- [OPTION]... [NAME]...

  NAME             only these bugs
  --list           say which there are, and run nothing
  --some N         N of them; others each day
  --no-unit-tests  do not ask whether the unit tests find them
  --seeds N        seeds that may pass before a bug counts as not found (2,000)
";

struct Options {
    names: Vec<String>,
    list: bool,
    some: Option<usize>,
    unit_tests: bool,
    seeds: u64,
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, Box<dyn Error>> {
    let mut options = Options { names: Vec::new(), list: false, some: None, unit_tests: true, seeds: 2_000 };
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().ok_or_else(|| format!("{argument} needs a number"));
        match &*argument {
            "--list" => options.list = true,
            "--some" => options.some = Some(number()?.parse()?),
            "--seeds" => options.seeds = number()?.parse()?,
            "--no-unit-tests" => options.unit_tests = false,
            "-h" | "--help" => return Err(USAGE.into()),
            name if name.starts_with('-') => return Err(format!("no option `{name}`\n\n{USAGE}").into()),
            _ => options.names.push(argument),
        }
    }
    Ok(options)
}

/// Those that are asked for.
fn choose(all: Vec<Mutant>, options: &Options) -> Result<Vec<Mutant>, Box<dyn Error>> {
    if let Some(unknown) = options.names.iter().find(|name| all.iter().all(|mutant| mutant.name != **name)) {
        return Err(format!("no bug is called `{unknown}`: --list says which there are").into());
    }
    let Some(some) = options.some else {
        let named = |mutant: &Mutant| options.names.is_empty() || options.names.contains(&mutant.name);
        return Ok(all.into_iter().filter(named).collect());
    };
    let first = usize::try_from(run::day())? * some % all.len().max(1);
    Ok(all.iter().cycle().skip(first).take(some.min(all.len())).cloned().collect())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match hunt().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a program for the terminal says how long it took")]
async fn hunt() -> Result<bool, Box<dyn Error>> {
    let options = options(std::env::args().skip(1))?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("the workspace is not there")?;
    let all = list::read(&source.join("tests/mutants"))?;
    let chosen = choose(all.clone(), &options)?;
    if options.list {
        for mutant in &chosen {
            println!("{:4} {:32} {}", mutant.breaks, mutant.name, mutant.what);
        }
        return Ok(true);
    }
    let started = Instant::now();
    println!("building with {} bugs, all switched off", all.len());
    let programs = build::build(source, &all, options.unit_tests).await?;
    println!("built in {:.0} s; without a bug:", started.elapsed().as_secs_f64());
    run::passes(&programs, options.seeds).await?;
    let mut survivors = Vec::new();
    // Invariants with a bug that only the simulation finds; and those with another one.
    let (mut needed, mut unneeded) = (BTreeSet::new(), BTreeSet::new());
    for mutant in &chosen {
        let began = Instant::now();
        let verdict = run::verdict(&programs, mutant, options.seeds).await?;
        let unit_test = run::unit_test(&programs, mutant).await?;
        let as_well = unit_test.as_ref().map(|test| format!("; also by {test}")).unwrap_or_default();
        println!("{:4} {:32} {verdict}{as_well} ({:.1} s)", mutant.breaks, mutant.name, began.elapsed().as_secs_f64());
        if unit_test.is_none() { &mut needed } else { &mut unneeded }.insert(&*mutant.breaks);
        if !matches!(verdict, Verdict::Caught { .. }) {
            survivors.push(&*mutant.name);
        }
    }
    let (all, seconds) = (chosen.len(), started.elapsed().as_secs_f64());
    println!("{} of {all} bugs caught, in {seconds:.0} s", all - survivors.len());
    if !survivors.is_empty() {
        println!("not caught: {}", survivors.join(", "));
    }
    let unneeded: Vec<_> = unneeded.difference(&needed).copied().collect();
    if !unneeded.is_empty() && options.names.is_empty() && options.some.is_none() {
        println!("unit tests find every bug of {}: add one that they do not find", unneeded.join(", "));
    }
    Ok(survivors.is_empty())
}
