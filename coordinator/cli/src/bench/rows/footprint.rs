//! What Kiln takes while nothing happens.

use super::{Bench, BenchError, Result, kiln};
use crate::bench::clock::{self, count};
use crate::bench::cluster::detach;
use crate::bench::row::Figures;
use kiln::{Clustered, Root};
use std::fs;
use std::time::Duration;
use tokio::task::JoinSet;

/// The kernel's clock of a task has nanoseconds, but an idle runtime wakes up about once a second.
const IDLE_TIME_MIN: Duration = Duration::from_secs(5);
const BLOB_BYTES: usize = 1_000;
const BLOBS: u32 = 100_000;
const BLOBS_FIRST: u32 = 10_000;
const CREATING: usize = 256;

#[derive(Clustered, Default)]
pub(super) struct Blob {
    data: Vec<u8>,
}

pub(super) async fn idle(bench: &mut Bench) -> Result<Figures> {
    let time = bench.secs().max(IDLE_TIME_MIN);
    let process = bench.cluster().await?.node_id();
    // What the row before it left behind is done by then.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (started, before) = (clock::now(), cpu_nanos(process)?);
    tokio::time::sleep(time).await;
    let nanos = cpu_nanos(process)?.saturating_sub(before);
    let elapsed = clock::now().saturating_duration_since(started);
    let share = count(nanos) / 1e9 / elapsed.as_secs_f64();
    Ok(Figures::of(share * 100.0).noted(format!("over {:.0} s", elapsed.as_secs_f64())))
}

pub(super) async fn object_memory(bench: &mut Bench) -> Result<Figures> {
    let blobs = bench.scaled(BLOBS);
    let cluster = bench.cluster().await?;
    let coordinator = cluster.coordinator_id().ok_or(BenchError::NeedsCoordinator)?;
    // A node of its own that leaves again: only the objects are to weigh.
    let node = cluster.extra_node().await?;
    let root: Root<String, Blob> = node.root("blobs").await.map_err(kiln)?;
    // Buffers of the connection grow with the first ones.
    create(&root, 0, BLOBS_FIRST.min(blobs)).await?;
    let before = resident_bytes(coordinator)?;
    create(&root, BLOBS_FIRST, blobs).await?;
    drop(root);
    detach(node).await?;
    let bytes = resident_bytes(coordinator)?.saturating_sub(before);
    Ok(Figures::of(count(bytes) / f64::from(blobs)).noted(format!("{blobs} objects")))
}

pub(super) async fn create(root: &Root<String, Blob>, first: u32, blobs: u32) -> Result<()> {
    let mut creating = JoinSet::new();
    for blob in first..first + blobs {
        if creating.len() >= CREATING
            && let Some(created) = creating.join_next().await
        {
            created.map_err(kiln)??;
        }
        let root = root.clone();
        creating.spawn(async move {
            let make = || Blob { data: vec![0x5a; BLOB_BYTES] };
            // Dropped at once: the node may evict it.
            drop(root.get_or_create(&format!("blob-{blob:011}"), make).await.map_err(kiln)?);
            Ok::<(), BenchError>(())
        });
    }
    while let Some(created) = creating.join_next().await {
        created.map_err(kiln)??;
    }
    Ok(())
}

fn read(path: String) -> Result<String> {
    fs::read_to_string(&path).map_err(|error| BenchError::Process { path, error })
}

fn odd(path: String) -> BenchError {
    BenchError::Process { path, error: std::io::ErrorKind::InvalidData.into() }
}

/// What all threads of a process have run.
pub(super) fn cpu_nanos(process: u32) -> Result<u64> {
    let path = format!("/proc/{process}/task");
    let tasks = fs::read_dir(&path).map_err(|error| BenchError::Process { path: path.clone(), error })?;
    let mut nanos = 0;
    for task in tasks {
        let task = task.map_err(|error| BenchError::Process { path: path.clone(), error })?;
        let path = task.path().join("schedstat").display().to_string();
        let text = read(path.clone())?;
        let ran: u64 = text.split_whitespace().next().and_then(|ran| ran.parse().ok()).ok_or_else(|| odd(path))?;
        nanos += ran;
    }
    Ok(nanos)
}

fn resident_bytes(process: u32) -> Result<u64> {
    let path = format!("/proc/{process}/status");
    read(path.clone())?
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|kib| kib.trim().strip_suffix(" kB"))
        .and_then(|kib| kib.trim().parse::<u64>().ok())
        .map(|kib| kib << 10)
        .ok_or_else(|| odd(path))
}
