//! A coordinator that is killed, and how long until it serves what it kept.

use super::footprint::{Blob, create};
use super::{Bench, Result, kiln};
use crate::bench::BenchError;
use crate::bench::clock::{self, Laps, count};
use crate::bench::cluster::detach;
use crate::bench::floors::Order;
use crate::bench::row::Figures;
use crate::bench::wire::Wire;
use kiln::{Root, Runtime};
use std::time::Duration;

/// What one `get` may take once the coordinator serves.
const GET_MAX: Duration = Duration::from_millis(10);
const GETS: u32 = 1000;
/// Of commits of a bare stream.
const BATCH: u32 = 1000;

/// Makes what of the objects is not there yet, and so many commits; then the kill.
pub(super) async fn with_objects(bench: &mut Bench, objects: u32, deltas: u32) -> Result<Figures> {
    let cluster = bench.durable().await?;
    if cluster.coordinator_id().is_none() {
        return Err(BenchError::NeedsCoordinator);
    }
    let node = cluster.extra_node().await?;
    let root = blobs(&node).await?;
    let there = root.contains(&key(objects - 1)).await.map_err(kiln)?;
    if !there {
        create(&root, 0, objects).await?;
    }
    drop(root);
    detach(node).await?;
    commit(cluster.profile(), deltas).await.map_err(BenchError::Kiln)?;
    let started = cluster.restart().await?;
    let root = blobs(&cluster.runtime).await?;
    let mut order = Order::new(objects);
    let mut get = async || {
        let at = u32::try_from(order.next()).map_err(kiln)?;
        let blob = root.get(&key(at)).await.map_err(kiln)?;
        blob.map(drop).ok_or_else(|| kiln(format!("object {at} is lost")))
    };
    get().await?;
    let until_first = clock::now().saturating_duration_since(started);
    let mut laps = Laps::untimed();
    for _ in 0..GETS.min(objects) {
        let Some(lap) = laps.next() else { break };
        get().await?;
        laps.end(lap, 1);
    }
    let slowest = laps.times().max;
    let figures = Figures::of(count(u64::try_from(until_first.as_micros()).unwrap_or(u64::MAX)));
    let figures = figures.noted(format!(
        "{objects} objects, {deltas} commits behind them; the slowest of {GETS} gets after it took {:.1} ms",
        slowest.micros() / 1e3
    ));
    let breach = (slowest.micros() > GET_MAX.as_secs_f64() * 1e6).then(|| "a get after it was too slow".to_owned());
    Ok(Figures { breach, ..figures })
}

async fn blobs(runtime: &Runtime) -> Result<Root<String, Blob>> {
    runtime.root("blobs").await.map_err(kiln)
}

fn key(blob: u32) -> String {
    format!("blob-{blob:011}")
}

async fn commit(profile: &std::path::Path, deltas: u32) -> crate::bench::job::Outcome<()> {
    let mut wire = Wire::attach(profile).await?;
    let mut target = wire.create(&format!("wire-{}-{deltas}", std::process::id())).await?;
    let mut durable = 0;
    for sent in (0..deltas).step_by(BATCH as usize) {
        wire.commit(&mut target, BATCH, true).await?;
        while u64::from(sent) > durable + (1 << 16) {
            durable = wire.acknowledged(true).await?;
        }
    }
    while u64::from(deltas) > durable {
        durable = wire.acknowledged(true).await?;
    }
    Ok(())
}
