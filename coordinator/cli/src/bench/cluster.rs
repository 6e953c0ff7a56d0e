//! The cluster that rows run on: a coordinator and a second node as processes of their own, and this process as the
//! first node.

use super::BenchError;
use super::clock;
use super::job::{Done, Job, Prepared, Sample};
use super::peer::{Peer, Role, Steered};
use super::wire::WIRE_ROOT;
use kiln::{Clustered, Root, Runtime};
use kiln_coordinator::server::{Options, Server, Storage};
use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// Address space, not memory: enough for a million small objects.
const HEAP_BYTES: usize = 4 << 30;
const STOP_DEADLINE: Duration = Duration::from_secs(1);
/// A million grants are given back.
const LEAVE_DEADLINE: Duration = Duration::from_secs(10);

/// Where a coordinator of ours keeps its state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kept {
    InMemory,
    /// In the working directory: a temporary one may be memory as well.
    OnDisk,
}

pub(super) struct Cluster {
    /// Declared first, so that it ends first: the node's goodbye needs the coordinator.
    node: Peer,
    pub(super) runtime: Runtime,
    coordinator: Option<Peer>,
    profile: PathBuf,
    directory: Option<TempDir>,
}

impl Cluster {
    /// Starts what is needed; with `against`, the coordinator is there already.
    pub(super) async fn start(against: Option<&Path>, kept: Kept) -> Result<Self, BenchError> {
        let (coordinator, profile, directory) = match against {
            Some(profile) => (None, profile.to_owned(), None),
            None => {
                let (directory, role) = match kept {
                    Kept::InMemory => (tempfile::tempdir(), Role::Coordinator),
                    Kept::OnDisk => (tempfile::tempdir_in("."), Role::DurableCoordinator),
                };
                let directory = directory.map_err(BenchError::Start)?;
                let mut coordinator = Peer::start(role)?;
                coordinator.tell(&directory.path().display().to_string())?;
                let profile = coordinator.hear("ready").await?.into();
                (Some(coordinator), profile, Some(directory))
            }
        };
        let runtime = attach(&profile, "bench-a").await.map_err(BenchError::Kiln)?;
        let mut node = Peer::start(Role::Node)?;
        node.tell(&profile.display().to_string())?;
        node.hear("attached").await?;
        Ok(Self { node, runtime, coordinator, profile, directory })
    }

    /// Whether the coordinator of this profile can be reached.
    pub(super) async fn check(profile: &Path) -> Result<(), BenchError> {
        let runtime = attach(profile, "bench-check").await.map_err(BenchError::Kiln)?;
        detach(runtime).await
    }

    /// Says goodbye, so that the coordinator need not find out that this node is gone.
    pub(super) async fn leave(self) -> Result<(), BenchError> {
        detach(self.runtime).await
    }

    /// Removes everything in these roots of samples, and what the bare streams made.
    pub(super) async fn remove_objects(&self, roots: &BTreeSet<String>) -> Result<(), BenchError> {
        for root in roots {
            remove_all::<Sample>(&self.runtime, root).await.map_err(BenchError::Kiln)?;
        }
        remove_all::<Wire>(&self.runtime, WIRE_ROOT).await.map_err(BenchError::Kiln)
    }

    /// Another node in this process, for objects that are not to weigh on later rows.
    pub(super) async fn extra_node(&self) -> Result<Runtime, BenchError> {
        attach(&self.profile, "bench-extra").await.map_err(BenchError::Kiln)
    }

    /// What to attach with.
    pub(super) fn profile(&self) -> &Path {
        &self.profile
    }

    /// Kills our own coordinator, starts one with what it kept, and attaches to that. Returns when it was told to start.
    pub(super) async fn restart(&mut self) -> Result<Instant, BenchError> {
        let (Some(coordinator), Some(directory)) = (&mut self.coordinator, &self.directory) else {
            return Err(BenchError::NeedsCoordinator);
        };
        coordinator.kill();
        let started = clock::now();
        *coordinator = Peer::start(Role::DurableCoordinator)?;
        coordinator.tell(&directory.path().display().to_string())?;
        self.profile = coordinator.hear("ready").await?.into();
        self.runtime = attach(&self.profile, "bench-a").await.map_err(BenchError::Kiln)?;
        Ok(started)
    }

    /// The process of our own coordinator.
    pub(super) fn coordinator_id(&self) -> Option<u32> {
        self.coordinator.as_ref().map(Peer::id)
    }

    /// The process of the second node.
    pub(super) fn node_id(&self) -> u32 {
        self.node.id()
    }

    /// Does one job here and one on the second node, at the same time.
    pub(super) async fn both(&mut self, here: Job, there: &Job) -> Result<(Done, Done), BenchError> {
        let text = serde_json::to_string(there).map_err(|error| BenchError::Kiln(error.into()))?;
        self.node.tell(&text)?;
        let prepared = here.prepare(&self.runtime).await.map_err(BenchError::Kiln)?;
        self.node.hear("prepared").await?;
        self.node.tell("go")?;
        let here = prepared.run().await.map_err(BenchError::Kiln)?;
        let there = self.node.hear("done").await?;
        let there = serde_json::from_str(&there).map_err(|error| BenchError::Kiln(error.into()))?;
        Ok((here, there))
    }
}

type Played = Result<(), Box<dyn Error + Send + Sync>>;

/// Leaves a cluster in good order.
pub(super) async fn detach(runtime: Runtime) -> Result<(), BenchError> {
    runtime.detach(LEAVE_DEADLINE).await.map_err(|error| BenchError::Kiln(error.into()))
}

/// What the bare streams describe to the coordinator.
#[derive(Clustered, Default)]
struct Wire {
    value: u64,
}

/// Empties a root.
async fn remove_all<T: Clustered>(runtime: &Runtime, name: &str) -> Played {
    let root: Root<String, T> = runtime.root(name).await?;
    let mut keys = root.keys();
    loop {
        let page = keys.next_page(0).await?;
        if page.is_empty() {
            return Ok(());
        }
        let mut removing = JoinSet::new();
        for key in page {
            let root = root.clone();
            removing.spawn(async move { root.remove(&key).await });
        }
        while let Some(removed) = removing.join_next().await {
            removed??;
        }
    }
}

async fn attach(profile: &Path, name: &str) -> Result<Runtime, Box<dyn Error + Send + Sync>> {
    let builder = Runtime::builder().profile(profile).node_name(name);
    Ok(builder.heap_bytes(HEAP_BYTES).attach().await?)
}

/// This process is the coordinator.
pub(super) async fn play_coordinator(steered: &mut Steered, storage: Storage) -> Played {
    let directory = steered.next().await.ok_or("nobody told where the files go")?;
    let mut options = Options::new(Path::new(&directory).join("coordinator"));
    options.listen.set_port(0);
    options.storage = storage;
    let server = Server::start(options).await?;
    Steered::say(&format!("ready {}", server.profile_path().display()))?;
    while steered.next().await.is_some() {}
    server.stop(STOP_DEADLINE).await?;
    Ok(())
}

/// This process is the second node.
pub(super) async fn play_node(steered: &mut Steered) -> Played {
    let profile = steered.next().await.ok_or("nobody told where the profile is")?;
    let runtime = attach(Path::new(&profile), "bench-b").await?;
    Steered::say("attached")?;
    while let Some(job) = steered.next().await {
        let job: Job = serde_json::from_str(&job)?;
        let prepared: Prepared = job.prepare(&runtime).await?;
        Steered::say("prepared")?;
        if steered.next().await.is_none() {
            break;
        }
        let done = prepared.run().await?;
        Steered::say(&format!("done {}", serde_json::to_string(&done)?))?;
    }
    runtime.detach(STOP_DEADLINE).await?;
    Ok(())
}
