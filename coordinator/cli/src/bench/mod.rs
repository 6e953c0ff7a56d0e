//! `kiln bench`: how fast Kiln is on this machine, beside what the machine itself can do.
//!
//! Each figure stands beside a floor measured in the same run, because ratios survive a noisy machine and absolute
//! figures do not. Other processes that a row needs are this program again, in a [`Role`]; all of them end with it.
//!
//! Absent: pass or fail. A missed budget is shown, but only a wrong result or an error makes the exit code 1.

mod awake;
mod clock;
mod cluster;
mod floors;
mod job;
mod peer;
mod report;
mod row;
mod rows;
mod wire;

use peer::Role;

use awake::Awake;
use cluster::{Cluster, Kept};
use job::ROOT;
use kiln_coordinator::server::Storage;
use kiln_coordinator::store::SyncPolicy;
use peer::Steered;
use report::Report;
use row::{Judged, Row};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Measures Kiln, and what the machine itself can do
///
/// p50 and p99 are of one operation, or of one batch of a thousand where an operation takes nanoseconds; they are in the
/// row's unit if that is a time, else in microseconds.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Measure the coordinator of this profile instead of one that is started for it; the objects made there are removed
    /// at the end
    #[arg(long, value_name = "PROFILE")]
    against: Option<PathBuf>,
    /// Only rows whose name contains this, and their floors
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// How long each row is measured, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = parse_secs)]
    secs: Duration,
    /// How many of their objects the large rows make (1 = all)
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, value_parser = parse_scale)]
    scale: f64,
    /// Keep idle CPUs from halting meanwhile (needs /dev/cpu_dma_latency, so root)
    #[arg(long)]
    keep_awake: bool,
    /// One JSON object a line: name, unit, value, p50, p99, floor, budget, within
    #[arg(long)]
    json: bool,
    /// What this process is for the one that started it
    #[arg(long, hide = true)]
    role: Option<Role>,
}

fn parse_secs(text: &str) -> Result<Duration, String> {
    let secs: f64 = text.parse().map_err(|_not_a_number| "not a number of seconds".to_owned())?;
    if (0.01..=600.0).contains(&secs) {
        Ok(Duration::from_secs_f64(secs))
    } else {
        Err("must be between 0.01 and 600".into())
    }
}

fn parse_scale(text: &str) -> Result<f64, String> {
    let scale: f64 = text.parse().map_err(|_not_a_number| "not a number".to_owned())?;
    if scale > 0.0 && scale <= 1.0 { Ok(scale) } else { Err("must be above 0, and 1 at most".into()) }
}

/// Why a row has no figures.
#[derive(Debug, thiserror::Error)]
enum BenchError {
    /// No row has that name.
    #[error("no row's name contains `{only}`; there are: {names}")]
    NoSuchRow {
        /// What was asked for.
        only: String,
        /// What there is.
        names: String,
    },
    /// A process could not be started.
    #[error("cannot start a process as {role:?}: {error}")]
    PeerStart {
        /// What it was to be.
        role: Role,
        /// Why.
        error: io::Error,
    },
    /// A process ended.
    #[error("the process that is {role:?} ended early")]
    PeerGone {
        /// What it was.
        role: Role,
    },
    /// A process says nothing.
    #[error("the process that is {role:?} did not say `{word}` within {} s", peer::ANSWER_TIMEOUT.as_secs())]
    PeerSilent {
        /// What it is.
        role: Role,
        /// What was expected.
        word: &'static str,
    },
    /// A process says why it cannot go on.
    #[error("the process that is {role:?} failed: {why}")]
    PeerFailed {
        /// What it is.
        role: Role,
        /// What it said.
        why: String,
    },
    /// The floor's own connection.
    #[error("QUIC: {0}")]
    Quic(Box<dyn Error + Send + Sync>),
    /// The floor's file.
    #[error("cannot write and sync a file in the working directory: {0}")]
    Disk(io::Error),
    /// Kiln itself.
    #[error("{0}")]
    Kiln(Box<dyn Error + Send + Sync>),
    /// A figure that the system does not tell.
    #[error("cannot read {path}: {error}")]
    Process {
        /// Where it should be.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// A row that looks into our own coordinator's process.
    #[error("left out: it looks into the coordinator's process, which has to be one of its own (no --against)")]
    NeedsCoordinator,
    /// The async runtime, or a thread.
    #[error("cannot start: {0}")]
    Start(io::Error),
    /// Nobody reads the report any more.
    #[error("cannot write the report: {0}")]
    Report(io::Error),
}

/// What the rows share.
struct Bench {
    args: Args,
    /// Values of the floors measured so far.
    measured: BTreeMap<&'static str, f64>,
    /// Started for the first row that needs it.
    cluster: Option<Cluster>,
    /// The same with a coordinator that keeps its state on disk.
    durable: Option<Cluster>,
    /// Roots of samples with objects in them.
    roots: BTreeSet<String>,
}

impl Bench {
    const fn secs(&self) -> Duration {
        self.args.secs
    }

    /// The cluster; started when there is none yet.
    async fn cluster(&mut self) -> Result<&mut Cluster, BenchError> {
        let cluster = match self.cluster.take() {
            Some(cluster) => cluster,
            None => Cluster::start(self.args.against.as_deref(), Kept::InMemory).await?,
        };
        self.roots.insert(ROOT.to_owned());
        Ok(self.cluster.insert(cluster))
    }

    /// The cluster whose coordinator keeps its state on disk, in the working directory; started when there is none yet.
    async fn durable(&mut self) -> Result<&mut Cluster, BenchError> {
        if self.args.against.is_some() {
            return self.cluster().await;
        }
        let cluster = match self.durable.take() {
            Some(cluster) => cluster,
            None => Cluster::start(None, Kept::OnDisk).await?,
        };
        Ok(self.durable.insert(cluster))
    }

    /// Leaves a coordinator that is not ours as it was, but for empty roots.
    async fn leave(self) -> Result<(), BenchError> {
        match self.cluster {
            Some(cluster) if self.args.against.is_some() => {
                cluster.remove_objects(&self.roots).await?;
                cluster.leave().await
            }
            _ => Ok(()),
        }
    }

    /// A count of objects, smaller with `--scale`.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the scale is between 0 and 1")]
    fn scaled(&self, count: u32) -> u32 {
        ((f64::from(count) * self.args.scale) as u32).max(1)
    }
}

/// Runs the benchmarks and writes the report to stdout, remarks to stderr. Blocks: call it outside of any async
/// runtime.
///
/// The exit code is 1 when a row failed or had a wrong result; missed budgets do not count.
#[must_use]
pub(crate) fn run(args: Args) -> ExitCode {
    let report = Report::new(args.json);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            report.remark(&BenchError::Start(error).to_string());
            return ExitCode::FAILURE;
        }
    };
    if let Some(role) = args.role {
        return runtime.block_on(play(role, &report));
    }
    match runtime.block_on(measure(args, report)) {
        Ok(code) => code,
        Err((error, report)) => {
            report.remark(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// This process is a peer of the one that measures.
async fn play(role: Role, report: &Report) -> ExitCode {
    let played = async {
        let mut steered = Steered::new()?;
        match role {
            Role::Echo => until_ended(steered, floors::serve_echo()).await,
            Role::Relay => until_ended(steered, floors::serve_relay()).await,
            Role::RelayClient => floors::serve_relay_client(&mut steered).await,
            Role::Coordinator => cluster::play_coordinator(&mut steered, Storage::Memory).await,
            Role::DurableCoordinator => {
                cluster::play_coordinator(&mut steered, Storage::Disk(SyncPolicy::Always)).await
            }
            Role::Node => cluster::play_node(&mut steered).await,
        }
    };
    match played.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report.remark(&format!("{role:?}: {error}"));
            drop(Steered::say(&format!("failed {error}")));
            ExitCode::FAILURE
        }
    }
}

type Played = Result<(), Box<dyn Error + Send + Sync>>;

async fn until_ended(mut steered: Steered, serve: impl Future<Output = Played>) -> Played {
    tokio::select! {
        served = serve => served,
        () = async { while steered.next().await.is_some() {} } => Ok(()),
    }
}

fn rows() -> impl Iterator<Item = &'static Row> {
    floors::ROWS.iter().chain(rows::ROWS)
}

/// The rows that `--only` names, with the floors they stand on before them.
fn selected(only: Option<&str>) -> Result<Vec<&'static Row>, BenchError> {
    let Some(only) = only else {
        return Ok(rows().collect());
    };
    let asked: Vec<&Row> = rows().filter(|row| row.name.contains(only)).collect();
    if asked.is_empty() {
        return Err(BenchError::NoSuchRow {
            only: only.to_owned(),
            names: rows().map(|row| row.name).collect::<Vec<_>>().join(", "),
        });
    }
    let needed = |row: &&Row| {
        let is_floor = asked.iter().any(|asked| asked.floor == Some(row.name));
        is_floor || asked.iter().any(|asked| asked.name == row.name)
    };
    Ok(rows().filter(needed).collect())
}

async fn measure(args: Args, mut report: Report) -> Result<ExitCode, (BenchError, Report)> {
    let selected = match selected(args.only.as_deref()) {
        Ok(selected) => selected,
        Err(error) => return Err((error, report)),
    };
    let awake = args.keep_awake.then(Awake::hold);
    report.remark(&Awake::describe(awake.as_ref()));
    let mut bench = Bench { args, measured: BTreeMap::new(), cluster: None, durable: None, roots: BTreeSet::new() };
    // Said once, not by each row.
    if let Some(profile) = &bench.args.against
        && let Err(error) = Cluster::check(profile).await
    {
        return Err((error, report));
    }
    let mut failed = false;
    for row in selected {
        report.progress(&format!("measuring {}: {}", row.name, row.what));
        let figures = match (row.run)(&mut bench).await {
            Ok(figures) => figures,
            Err(error) => {
                failed |= !matches!(error, BenchError::NeedsCoordinator);
                report.remark(&format!("{}: {error}", row.name));
                continue;
            }
        };
        failed |= figures.broken.is_some();
        bench.measured.insert(row.name, figures.value);
        let floor = row.floor.and_then(|floor| bench.measured.get(floor)).copied();
        let judged = Judged::new(row.budget, figures, floor);
        if let Err(error) = report.row(row, &judged) {
            return Err((BenchError::Report(error), report));
        }
    }
    if let Err(error) = bench.leave().await {
        failed = true;
        report.remark(&format!("the coordinator is not left as it was: {error}"));
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_floors_come_before_their_rows() {
        let mut seen = Vec::new();
        for row in rows() {
            assert!(!seen.contains(&row.name), "{} twice", row.name);
            assert!(row.floor.is_none_or(|floor| seen.contains(&floor)), "{}", row.name);
            seen.push(row.name);
        }
    }

    #[test]
    fn a_wrong_name_lists_the_right_ones() {
        let error = selected(Some("nonsense")).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("`nonsense`") && error.contains("quic_echo")));
    }
}
