//! `kiln serve`: a coordinator in the foreground.

mod config;

use crate::failure::Failure;
use crate::output::{Output, note};
use config::ConfigError;
use kiln_coordinator::server::{Options, Server, ServerError, StartError, Storage};
use kiln_coordinator::store::SyncPolicy;
use metrics_exporter_prometheus::PrometheusBuilder;
use std::io::{self, IsTerminal as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// What is logged unless KILN_LOG says otherwise.
const LOG: &str = "warn,kiln_coordinator=info";

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// A TOML file with `listen`, `data`, `in_memory`, `sync`, `profile`, `advertise`, `metrics`, `stop_timeout`, `lease`;
    /// flags and the environment go before it.
    #[arg(long, env = "KILN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one [default: 127.0.0.1:4747].
    #[arg(long, env = "KILN_LISTEN", value_name = "IP:PORT", value_parser = crate::address)]
    listen: Option<SocketAddr>,
    /// Where to keep the objects, the CA and the certificates; one coordinator at a time [default: kiln-data].
    #[arg(long, env = "KILN_DATA", value_name = "DIRECTORY")]
    data: Option<PathBuf>,
    /// Keep the objects in memory: they end with this process. The CA and the certificates are kept all the same.
    #[arg(long, env = "KILN_IN_MEMORY", conflicts_with = "sync")]
    in_memory: bool,
    /// When what was written to disk is synced [default: always].
    ///
    /// `always`: before a durable commit returns; nothing that was acknowledged as durable is lost.
    /// `interval:MS`: every so many milliseconds; when the machine ends (power, kernel), up to that much of what was
    /// acknowledged is lost, and nodes begin anew. `never`: when the system likes; when the machine ends, what it had not
    /// written by then is lost, often half a minute, and nodes begin anew. With each of them, nothing is lost when only
    /// the coordinator ends, by a crash or `kill -9` as well.
    #[arg(long, env = "KILN_SYNC", value_name = "POLICY", value_parser = config::sync)]
    sync: Option<SyncPolicy>,
    /// Where to write the client profile [default: kiln.toml].
    #[arg(long, env = "KILN_PROFILE", value_name = "FILE")]
    profile: Option<PathBuf>,
    /// The host name or IP address that clients use, with or without a port [default: where it listens].
    #[arg(long, env = "KILN_ADVERTISE", value_name = "HOST[:PORT]")]
    advertise: Option<String>,
    /// Serve Prometheus metrics over HTTP here [default: no metrics].
    #[arg(long, env = "KILN_METRICS", value_name = "IP:PORT", value_parser = crate::address)]
    metrics: Option<SocketAddr>,
    /// How long a stop may take to give every node what is meant for it, in seconds [default: 10].
    #[arg(long, env = "KILN_STOP_TIMEOUT", value_name = "SECONDS", value_parser = crate::seconds)]
    stop_timeout: Option<Duration>,
    /// How long a node that is not heard of keeps its locks, in seconds, 1 to 600 [default: 5].
    #[arg(long, env = "KILN_LEASE", value_name = "SECONDS", value_parser = crate::seconds)]
    lease: Option<Duration>,
}

/// Why no coordinator runs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error("cannot serve metrics on {address}: {what}; choose another address with --metrics")]
    Metrics { address: SocketAddr, what: String },
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
}

/// What ends a coordinator in good order.
struct Stops {
    terminate: Signal,
    interrupt: Signal,
}

impl Stops {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    serve(args).await
}

async fn serve(args: Args) -> Result<(), Failure> {
    start_logging();
    let settings = config::settings(args).map_err(ServeError::from)?;
    // Before anything is announced, so that a signal from then on stops it in good order.
    let mut stops = Stops::new().map_err(ServeError::Signals)?;
    if let Some(address) = settings.metrics {
        // Before the server: it asks for its counters as it starts.
        let exporter = PrometheusBuilder::new().with_http_listener(address).install();
        exporter.map_err(|error| ServeError::Metrics { address, what: error.to_string() })?;
    }
    let kept = kept(&settings.options);
    let is_local_profile = settings.options.listen.ip().is_unspecified() && settings.options.advertise.is_none();
    let mut server = Server::start(settings.options).await.map_err(ServeError::from)?;
    announce(&server, settings.metrics, &kept)?;
    if is_local_profile {
        note(format_args!(
            "the profile says {}, which is good on this machine only: give the name or address that other machines use \
             with --advertise",
            server.profile().address
        ));
    }
    let signal = tokio::select! {
        signal = stops.next() => signal,
        ended = server.wait() => return ended.map(drop).map_err(|error| ServeError::from(error).into()),
    };
    note(format_args!("{signal}: stopping"));
    tokio::select! {
        stopped = server.stop(settings.stop_timeout) => {
            let stopped = stopped.map_err(ServeError::from)?;
            if stopped.cut > 0 {
                note(format_args!(
                    "{} peers did not take everything that was meant for them within {} s",
                    stopped.cut,
                    settings.stop_timeout.as_secs_f64()
                ));
            }
        }
        signal = stops.next() => note(format_args!("{signal} again: not waiting")),
    }
    Ok(())
}

fn start_logging() {
    let filter = EnvFilter::try_from_env("KILN_LOG").unwrap_or_else(|_unset| EnvFilter::new(LOG));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    // One command, one subscriber: there is none before it.
    drop(subscriber.try_init());
}

fn announce(server: &Server, metrics: Option<SocketAddr>, kept: &str) -> io::Result<()> {
    let mut out = Output::new();
    out.line(format_args!("kiln coordinator {} on {}", env!("CARGO_PKG_VERSION"), server.address()))?;
    out.line(format_args!("profile for clients: {}", server.profile_path().display()))?;
    if let Some(metrics) = metrics {
        out.line(format_args!("metrics: http://{metrics}/metrics"))?;
    }
    out.line(kept)?;
    out.flush()
}

/// Where the state is, and what that is worth.
fn kept(options: &Options) -> String {
    let place = options.directory.display();
    match options.storage {
        Storage::Memory => "state is kept in memory: it ends with this process".to_owned(),
        Storage::Disk(SyncPolicy::Always) => {
            format!("state is kept in {place}, synced before a durable commit returns")
        }
        Storage::Disk(SyncPolicy::Interval(interval)) => {
            format!("state is kept in {place}, synced every {} ms", interval.as_millis())
        }
        Storage::Disk(SyncPolicy::Never) => format!("state is kept in {place}, synced when the system likes"),
    }
}
