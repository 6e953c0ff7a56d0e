//! The coordinator as a running thing: QUIC around the engine.
//!
//! Everything, the endpoint, all connections and the engine, runs on one thread of its own. What a packet brings is
//! decoded, decided and answered in one turn, and no message crosses threads on its way.

mod clock;
mod close;
mod complaints;
mod connection;
mod core;
mod counters;
mod session;
mod snapshots;
mod storage;
mod transport;

pub use storage::{LOG, Storage};
pub use transport::transport;

use self::close::Close;
use self::complaints::Complaints;
use self::core::Core;
use self::snapshots::Snapshotting;
use crate::directory::{Directory, DirectoryError};
use crate::engine::BadEntry;
use crate::store::{LogError, OpenError};
use kiln_protocol::connection::LEASE;
use kiln_protocol::limits::OUTPUT_BYTES_MAX;
use kiln_protocol::profile::split_address;
use kiln_protocol::{Epoch, Profile};
use quinn::Endpoint;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, timeout};

/// Where `kiln serve` listens when nobody says otherwise.
pub const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4747);
/// How long a server that is dropped, not stopped, tries to tell its nodes.
const DROPPED_DEADLINE: Duration = Duration::from_millis(500);
/// How often a lease is looked at: one that lapses is noticed by a tenth of it later.
const TICKS_PER_LEASE: u32 = 10;
const TICK_MIN: Duration = Duration::from_millis(10);
/// How long a stopping coordinator waits for its disk before it says that it stops.
const SAFE_MAX: Duration = Duration::from_secs(2);
/// How long the last packets of a stopping coordinator may take.
const CLOSING_MAX: Duration = Duration::from_millis(500);

/// Where a coordinator keeps its files when nobody says otherwise.
pub const DEFAULT_DIRECTORY: &str = "kiln-data";

/// How to run a coordinator.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the CA, the certificates, the epoch, the profile and the log are kept; made when there is none.
    pub directory: PathBuf,
    /// Where the state is kept.
    pub storage: Storage,
    /// Where to write the client profile; `None`: `kiln.toml` in the directory.
    pub profile: Option<PathBuf>,
    /// The address that clients are told, `host` or `host:port`; `None`: where the coordinator listens.
    pub advertise: Option<String>,
    /// Limits of time and memory.
    pub tuning: Tuning,
}

impl Options {
    /// A coordinator on the default address with its files in `directory` and its state in memory.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            listen: DEFAULT_ADDRESS,
            directory: directory.into(),
            storage: Storage::Memory,
            profile: None,
            advertise: None,
            tuning: Tuning::default(),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new(DEFAULT_DIRECTORY)
    }
}

/// Limits of time and memory; the defaults are right unless a test wants them small.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Bytes that wait to be sent to one peer before it is cut off.
    pub output_bytes_max: usize,
    /// Bytes that wait to be sent to one peer before its next message is left unread.
    pub pending_bytes_max: usize,
    /// Bytes that wait to be sent to one node before it is told which objects changed instead of how.
    pub behind_bytes: usize,
    /// Peers that have connected but are not attached yet.
    pub handshakes_max: usize,
    /// How long a peer may take from its first packet to its Hello.
    pub hello_timeout: Duration,
    /// How long a peer may leave unread what it is sent.
    pub stall_timeout: Duration,
    /// How long a node keeps its grants without being heard of.
    pub lease: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            output_bytes_max: OUTPUT_BYTES_MAX,
            pending_bytes_max: 8 << 20,
            behind_bytes: 4 << 20,
            handshakes_max: 256,
            hello_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(10),
            lease: LEASE,
        }
    }
}

/// Why a coordinator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Its log cannot be used.
    #[error("{}: {error}", path.display())]
    Log {
        /// The log's directory.
        path: PathBuf,
        /// Why.
        error: OpenError,
    },
    /// The directory has a log, which a coordinator in memory would contradict.
    #[error(
        "{} has the log of a coordinator: keep the state there, or choose another directory to keep it in memory",
        path.display()
    )]
    HasLog {
        /// The log's directory.
        path: PathBuf,
    },
    /// The log goes on with a later epoch than can be begun.
    #[error("{}: {bad}", path.display())]
    Epoch {
        /// The log's directory.
        path: PathBuf,
        /// How it does not fit.
        bad: BadEntry,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}; another coordinator may run there, or choose another address")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system answered.
        error: io::Error,
    },
    /// The address for clients is not one.
    #[error("cannot advertise `{advertise}`: {what}; give a host name or IP address, with or without a port")]
    Advertise {
        /// What was asked for.
        advertise: String,
        /// What is wrong.
        what: String,
    },
    /// The certificates do not work.
    #[error("cannot set up TLS: {what}")]
    Tls {
        /// Why.
        what: String,
    },
    /// The socket does not work.
    #[error("cannot use the socket: {error}")]
    Socket {
        /// What the system answered.
        error: io::Error,
    },
    /// No thread could be started.
    #[error("cannot start the coordinator's thread: {error}")]
    Thread {
        /// What the system answered.
        error: io::Error,
    },
    /// The thread ended before it was ready: a bug.
    #[error("the coordinator's thread ended before it was ready: this is a bug in Kiln, please report it")]
    Panicked,
}

/// Why a coordinator ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Its log cannot be written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// It panicked: a bug. It stops, since its state can no longer be trusted.
    #[error("the coordinator failed: this is a bug in Kiln, please report it")]
    Panicked,
}

/// What a stop left behind.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stopped {
    /// Peers that were cut off at the deadline, before they had received everything that was meant for them.
    pub cut: usize,
}

/// A running coordinator. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    profile_path: PathBuf,
    profile: Profile,
    epoch: Epoch,
    stop: Option<oneshot::Sender<Duration>>,
    ended: oneshot::Receiver<Result<Stopped, ServerError>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a coordinator on a thread of its own.
    ///
    /// # Errors
    /// When its directory, its certificates or its address cannot be used.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let (ready, is_ready) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("kiln-coordinator".into())
            .spawn(move || on_thread(&options, ready, stopped, end))
            .map_err(|error| StartError::Thread { error })?;
        let about = is_ready.await.map_err(|_gone| StartError::Panicked)??;
        Ok(Self {
            address: about.address,
            profile_path: about.profile_path,
            profile: about.profile,
            epoch: about.epoch,
            stop: Some(stop),
            ended,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the client profile is.
    #[must_use]
    pub fn profile_path(&self) -> &Path {
        &self.profile_path
    }

    /// The client profile.
    #[must_use]
    pub const fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The epoch it began.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Stops in good order: nodes are told, and get everything that was meant for them, until `deadline` at the latest.
    ///
    /// # Errors
    /// When it had ended by itself before.
    pub async fn stop(mut self, deadline: Duration) -> Result<Stopped, ServerError> {
        if let Some(stop) = self.stop.take() {
            // Fails when it has ended: `wait` says why.
            let _told = stop.send(deadline);
        }
        self.wait().await
    }

    /// Waits until it ends by itself; call it at most once. May be dropped at any time.
    ///
    /// # Errors
    /// Why it ended.
    pub async fn wait(&mut self) -> Result<Stopped, ServerError> {
        let result = (&mut self.ended).await.unwrap_or(Err(ServerError::Panicked));
        if let Some(thread) = self.thread.take() {
            // The result was its last act but dropping what it had.
            if thread.join().is_err() {
                return Err(ServerError::Panicked);
            }
        }
        result
    }
}

/// What all connections of a coordinator share. One thread: the mutex is never waited for.
struct Shared {
    core: Mutex<Core>,
    /// When the state is kept on disk.
    snapshots: Option<Snapshotting>,
    complaints: Mutex<Complaints>,
    epoch: Epoch,
    tuning: Tuning,
    /// Turns true once: whoever is not attached by then need not go on.
    stopping: watch::Sender<bool>,
}

impl Shared {
    /// # Panics
    /// After a panic in the middle of a change: nothing may build on that.
    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().expect("a panic in the engine ends the coordinator")
    }

    fn complaints(&self) -> MutexGuard<'_, Complaints> {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says why a peer was not let in, unless that has been said too often just now.
    fn complain(&self, peer: SocketAddr, why: &dyn std::fmt::Display) {
        if self.complaints().admit(clock::now()) {
            tracing::warn!(%peer, "peer refused: {why}");
        }
    }

    fn tick(&self) {
        self.core().tick();
        let left_out = self.complaints().left_out(clock::now());
        if let Some(left_out) = left_out {
            tracing::warn!(left_out, "more peers were refused");
        }
    }
}

/// What a starting coordinator knows of itself.
struct About {
    address: SocketAddr,
    profile_path: PathBuf,
    profile: Profile,
    epoch: Epoch,
}

fn on_thread(
    options: &Options,
    ready: oneshot::Sender<Result<About, StartError>>,
    stop: oneshot::Receiver<Duration>,
    end: oneshot::Sender<Result<Stopped, ServerError>>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let started = runtime.map_err(|error| StartError::Thread { error }).and_then(|runtime| {
        let guard = runtime.enter();
        let started = start(options)?;
        drop(guard);
        Ok((runtime, started))
    });
    let (runtime, (about, endpoint, shared, directory)) = match started {
        Ok(started) => started,
        Err(error) => {
            // Nobody to tell when the caller has gone.
            drop(ready.send(Err(error)));
            return;
        }
    };
    if ready.send(Ok(about)).is_err() {
        return;
    }
    let result = runtime.block_on(run(endpoint, shared, stop));
    drop(runtime);
    // Free before anybody hears of it, so that the next coordinator can start here.
    drop(directory);
    drop(end.send(result));
}

type Started = (About, Endpoint, Arc<Shared>, Directory);

/// Inside the runtime, but before anything runs.
fn start(options: &Options) -> Result<Started, StartError> {
    let directory = Directory::open(&options.directory)?;
    let socket = transport::bind(options.listen)?;
    let address = socket.local_addr().map_err(|error| StartError::Socket { error })?;
    let (host, advertised) = advertised(options.advertise.as_deref(), address)?;
    let now = clock::wall();
    let identity = directory.identity(&host, now)?;
    let keys = directory.quic_keys()?;
    let endpoint = transport::endpoint(socket, &identity, &keys, options.tuning.handshakes_max)?;
    let profile_path = options.profile.clone().unwrap_or_else(|| directory.profile_path());
    let profile = directory.write_profile(&profile_path, &identity, &advertised, &host, now)?;
    let opened = storage::open(&directory, &options.storage, options.tuning.lease)?;
    let epoch = opened.engine.epoch();
    let core = Core::new(opened.engine, epoch, opened.log);
    let shared = Arc::new(Shared {
        core: Mutex::new(core),
        snapshots: opened.snapshots.map(|(place, bytes)| Snapshotting::new(place, bytes)),
        complaints: Mutex::default(),
        epoch,
        tuning: options.tuning.clone(),
        stopping: watch::Sender::new(false),
    });
    tracing::info!(%address, advertised, %epoch, "coordinator started");
    let about = About { address, profile_path, profile, epoch };
    Ok((about, endpoint, shared, directory))
}

/// The host that clients check the certificate against, and the address they are told.
fn advertised(advertise: Option<&str>, bound: SocketAddr) -> Result<(String, String), StartError> {
    let Some(advertise) = advertise else {
        // Listening everywhere is no address to connect to.
        let ip = match bound.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
        };
        return Ok((ip.to_string(), SocketAddr::new(ip, bound.port()).to_string()));
    };
    let wrong = |what: &str| StartError::Advertise { advertise: advertise.to_owned(), what: what.to_owned() };
    let (host, port) = match advertise.parse::<IpAddr>() {
        Ok(_) => (advertise, bound.port()),
        Err(_) if advertise.contains(':') => split_address(advertise).map_err(wrong)?,
        Err(_) => (advertise, bound.port()),
    };
    rustls_pki_types::ServerName::try_from(host)
        .map_err(|_invalid| wrong("its host is neither a name nor an IP address"))?;
    let address = match host.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, port).to_string(),
        Err(_) => format!("{host}:{port}"),
    };
    Ok((host.to_owned(), address))
}

/// Until told to stop, or until the log fails.
async fn run(
    endpoint: Endpoint,
    shared: Arc<Shared>,
    mut stop: oneshot::Receiver<Duration>,
) -> Result<Stopped, ServerError> {
    let mut peers = JoinSet::new();
    // Ends with this.
    let mut beside = JoinSet::new();
    if shared.snapshots.is_some() {
        beside.spawn(snapshots::run(Arc::clone(&shared)));
    }
    let mut ticks = tokio::time::interval((shared.tuning.lease / TICKS_PER_LEASE).max(TICK_MIN));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let handshakes = Arc::new(Semaphore::new(shared.tuning.handshakes_max));
    let deadline = loop {
        tokio::select! {
            deadline = &mut stop => break deadline.unwrap_or(DROPPED_DEADLINE),
            error = std::future::poll_fn(|context| shared.core().poll_log(context)) => {
                tracing::error!(%error, "coordinator ends");
                return Err(error.into());
            }
            _ = ticks.tick() => shared.tick(),
            Some(ended) = peers.join_next() => ended.map_err(|_panicked| ServerError::Panicked)?,
            Some(incoming) = endpoint.accept() => match Arc::clone(&handshakes).try_acquire_owned() {
                Ok(permit) => drop(peers.spawn(connection::serve(incoming, Arc::clone(&shared), permit))),
                Err(_full) => {
                    shared.complain(incoming.remote_address(), &"too many connect at once");
                    incoming.refuse();
                }
            },
        }
    };
    endpoint.set_server_config(None);
    shared.stopping.send_replace(true);
    // So that nodes hear of what they have committed that it is on the disk.
    let last = shared.core().appended();
    let safe = std::future::poll_fn(|context| shared.core().poll_safe(context, last));
    drop(timeout(deadline.min(SAFE_MAX), safe).await);
    shared.core().stop();
    let drained = async { while peers.join_next().await.is_some() {} };
    // At the deadline the rest is counted and cut off.
    drop(timeout(deadline, drained).await);
    let stopped = Stopped { cut: peers.len() };
    endpoint.close(Close::Stopping.code(), Close::Stopping.reason().as_bytes());
    drop(timeout(CLOSING_MAX, endpoint.wait_idle()).await);
    tracing::info!(cut = stopped.cut, "coordinator stopped");
    Ok(stopped)
}
