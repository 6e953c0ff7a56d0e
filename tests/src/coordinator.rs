//! A coordinator in the test's own process, on a thread of its own, with nodes attached to it over real sockets.

use crate::patience::soon;
use crate::proxy::Proxy;
use kiln::{Builder, Profile, Runtime};
use kiln_coordinator::server::{Options, Server, Stopped, Storage};
use kiln_coordinator::store::SyncPolicy;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// How long a coordinator may take to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// A running coordinator; it ends with the value.
#[derive(Debug)]
pub struct Coordinator {
    server: Server,
    _directory: TempDir,
}

/// Where coordinators of tests keep their state when a test does not say: in memory, or with `KILN_TESTS_DATA=1` on disk.
fn storage() -> Storage {
    match std::env::var_os("KILN_TESTS_DATA") {
        Some(_) => Storage::Disk(SyncPolicy::Always),
        None => Storage::Memory,
    }
}

impl Coordinator {
    /// Starts one on a free port, with its files in a temporary directory.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// As [`Coordinator::start`], with other options.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut options = Options::new(directory.path().join("kiln"));
        options.listen.set_port(0);
        options.storage = storage();
        change(&mut options);
        let server = soon("a coordinator starts", Server::start(options)).await;
        Self { server: server.expect("the coordinator starts"), _directory: directory }
    }

    /// Where the profile is.
    #[must_use]
    pub fn profile_path(&self) -> &Path {
        self.server.profile_path()
    }

    /// What clients show.
    #[must_use]
    pub const fn profile(&self) -> &Profile {
        self.server.profile()
    }

    /// Settings of a node that is to attach here.
    #[must_use]
    pub fn builder(&self, name: &str) -> Builder {
        Runtime::builder().profile(self.profile_path()).node_name(name)
    }

    /// Settings of a node that is to attach here through a proxy.
    #[must_use]
    pub fn builder_through(&self, proxy: &Proxy, name: &str) -> Builder {
        Runtime::builder().with_profile(proxy.profile(self.profile())).node_name(name)
    }

    /// Attaches a node to it: a runtime with a heap, locks and a connection of its own, as in a process of its own.
    ///
    /// # Panics
    /// When it cannot attach.
    pub async fn node(&self, name: &str) -> Runtime {
        let attached = soon("a node attaches", self.builder(name).attach()).await;
        attached.expect("the node attaches")
    }

    /// Two nodes, `a` and `b`.
    ///
    /// # Panics
    /// When one cannot attach.
    pub async fn two_nodes(&self) -> (Runtime, Runtime) {
        (self.node("a").await, self.node("b").await)
    }

    /// Stops it in good order.
    ///
    /// # Panics
    /// When it had ended by itself, or does not end.
    pub async fn stop(self) {
        self.stop_within(STOP_DEADLINE).await;
    }

    /// Stops it in good order until the deadline; returns what that left behind.
    ///
    /// # Panics
    /// When it had ended by itself, or does not end.
    pub async fn stop_within(self, deadline: Duration) -> Stopped {
        let stopped = soon("the coordinator stops", self.server.stop(deadline)).await;
        stopped.expect("the coordinator ran until now")
    }
}
