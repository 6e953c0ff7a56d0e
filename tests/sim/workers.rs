//! Seeds over the cores: this program runs itself, each worker with its share of the seeds, one world after the other.
#![expect(clippy::disallowed_methods, reason = "starts the threads that run worlds, and measures how long that takes")]

use crate::report::{Report, Summary};
use crate::run;
use crate::trace::Trace;
use std::io::{BufRead as _, BufReader, Write as _};
use std::num::NonZero;
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

const SHARE: &str = "KILN_SIM_SHARE";
/// A run of this many seeds says now and then how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);
/// After so many failures the rest is not worth the time.
const FAILURES_MAX: usize = 5;
/// So many of the first seeds are run by two workers, and must go the same way.
const TWICE: usize = 6;

/// The seeds of one worker: every so-manieth of a range.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    seeds: Range<u64>,
    every: usize,
}

impl Share {
    /// Of the process that was started as a worker.
    pub(crate) fn from_environment() -> Option<Self> {
        let text = std::env::var(SHARE).ok()?;
        let numbers: Vec<u64> = text.split(' ').map_while(|word| word.parse().ok()).collect();
        let [from, to, every] = numbers[..] else { return None };
        Some(Self { seeds: from..to, every: usize::try_from(every).ok()? })
    }

    fn to_text(&self) -> String {
        format!("{} {} {}", self.seeds.start, self.seeds.end, self.every)
    }
}

/// A worker: a line on the standard output for each seed.
pub(crate) fn work(share: &Share) {
    run::keep_panics();
    let tell_all = std::env::var_os("KILN_SIM_TRACE").is_some();
    for seed in share.seeds.clone().step_by(share.every) {
        let ran = if tell_all { alone(seed, || Trace::Everything) } else { alone(seed, || Trace::Nothing) };
        let line = match ran {
            Ok(summary) => format!("ok {}", summary.line()),
            Err(what) if tell_all => failed(seed, &what),
            Err(what) => failed(seed, &format!("{what}{}", tail(seed))),
        };
        let mut out = std::io::stdout().lock();
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            // Whoever started it is gone.
            return;
        }
    }
}

fn failed(seed: u64, what: &str) -> String {
    format!("failed {seed} {}", what.replace('\\', "\\\\").replace('\n', "\\n"))
}

/// On a thread of its own: what a run before left behind in one would count.
fn alone(seed: u64, trace: impl FnOnce() -> Trace + Send + 'static) -> Result<Summary, String> {
    let ran = thread::spawn(move || run::seed(seed, trace())).join();
    ran.unwrap_or_else(|_| Err("it ended in the middle".to_owned()))
}

/// What happened last in a run that fails.
fn tail(seed: u64) -> String {
    let ran = thread::spawn(move || {
        let lines = run::Lines::default();
        let ran = run::seed(seed, Trace::Tail(lines.clone()));
        let lines: String = lines.borrow().iter().map(|line| format!("\n    {line}")).collect();
        (ran, lines)
    });
    match ran.join() {
        Ok((Err(_), lines)) => lines,
        Ok((Ok(_), _)) => "\nand once more it went well: a seed is not a run".to_owned(),
        Err(_) => "\nand once more it ended in the middle".to_owned(),
    }
}

/// Runs all these seeds.
pub(crate) fn run(seeds: Range<u64>) -> Report {
    let begun = Instant::now();
    let mut report = Report::default();
    let cores = thread::available_parallelism()
        .map_or(1, NonZero::get)
        .min(usize::try_from(seeds.end - seeds.start).unwrap_or(usize::MAX));
    let shares = (seeds.start..).take(cores).map(|from| Share { seeds: from..seeds.end, every: cores });
    let mut told = Instant::now();
    collect(shares.collect(), |line| {
        take(&mut report, line);
        if told.elapsed() >= PROGRESS_EVERY {
            told = Instant::now();
            report.took = begun.elapsed();
            let (done, all) = (report.seeds, seeds.end - seeds.start);
            println!("{done} of {all} seeds, {:.1} seeds/s, {} failed", report.rate(), report.failed.len());
        }
        report.failed.len() < FAILURES_MAX
    });
    report.took = begun.elapsed();
    if report.failed.is_empty() && std::env::var_os("KILN_SIM_TRACE").is_none() {
        run_again(&mut report);
    }
    report
}

/// The same seed is the same run, in another process.
fn run_again(report: &mut Report) {
    let (Some(first), Some(last)) = (report.hashes.keys().next(), report.hashes.keys().last()) else { return };
    let mut again = Report::default();
    let share = Share { seeds: *first..last + 1, every: 1 };
    collect(vec![share], |line| {
        take(&mut again, line);
        true
    });
    for (seed, hash) in &report.hashes {
        if again.hashes.get(seed) != Some(hash) {
            report.failed.push((*seed, "it went another way when it was run again: a seed is not a run".to_owned()));
        }
    }
}

fn take(report: &mut Report, line: &str) {
    if let Some(summary) = line.strip_prefix("ok ").and_then(Summary::parse) {
        report.add(&summary, TWICE);
    } else if let Some((seed, what)) = line.strip_prefix("failed ").and_then(|rest| rest.split_once(' ')) {
        let what = what.replace("\\n", "\n").replace("\\\\", "\\");
        println!("failed: seed {seed}: {}", what.lines().next().unwrap_or_default());
        report.failed.push((seed.parse().unwrap_or_default(), what));
    } else {
        report.failed.push((0, format!("a worker said: {line}")));
    }
}

/// Starts a worker for each share, and passes on what they say until all are done, or nobody wants more.
fn collect(shares: Vec<Share>, mut each: impl FnMut(&str) -> bool) {
    let (sender, lines) = mpsc::channel();
    let mut workers: Vec<Worker> = shares.into_iter().map(|share| Worker::start(&share, sender.clone())).collect();
    drop(sender);
    for line in lines {
        if !each(&line) {
            break;
        }
    }
    for worker in &mut workers {
        worker.end();
    }
}

struct Worker(Child);

impl Worker {
    fn start(share: &Share, lines: Sender<String>) -> Self {
        let program = std::env::current_exe().expect("this program has a path");
        let mut command = Command::new(program);
        command.env(SHARE, share.to_text()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("this program can be run again");
        let out = BufReader::new(child.stdout.take().expect("it is piped"));
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    break;
                }
            }
        });
        Self(child)
    }

    /// It is done, or has to be.
    fn end(&mut self) {
        // Fails when it has ended already.
        drop(self.0.kill());
        let _status = self.0.wait();
    }
}
