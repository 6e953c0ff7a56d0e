//! Reads of resident objects.

use super::{BATCH, Bench, Result, Sample, kiln, open};
use crate::bench::clock::Laps;
use crate::bench::cluster::detach;
use crate::bench::floors::Keys;
use crate::bench::row::Figures;
use kiln::{AccessError, Root, Shared};
use std::hint::black_box;
use tokio::task::JoinSet;

/// Objects that are being created at the same time.
const CREATING: usize = 512;

pub(super) async fn through_handle(bench: &mut Bench) -> Result<Figures> {
    let secs = bench.secs();
    let root = open(&bench.cluster().await?.runtime).await?;
    let sample = root.get_or_create("handle", Sample::default).await.map_err(kiln)?;
    let mut laps = Laps::new(secs);
    while let Some(lap) = laps.next() {
        for _ in 0..BATCH {
            black_box(black_box(&sample).view().value());
        }
        laps.end(lap, BATCH);
    }
    Ok(Figures::nanos(laps.times()))
}

pub(super) async fn by_key(bench: &mut Bench, count: u32) -> Result<Figures> {
    let secs = bench.secs();
    // A node of its own: its objects leave with it.
    let runtime = bench.cluster().await?.extra_node().await?;
    let name = format!("keys-{count}");
    let root: Root<String, Sample> = runtime.root(&name).await.map_err(kiln)?;
    bench.roots.insert(name);
    let mut keys = Keys::new(count);
    // Handles keep the objects resident.
    let mut handles = Vec::new();
    let mut creating: JoinSet<std::result::Result<Shared<Sample>, AccessError>> = JoinSet::new();
    for key in keys.all() {
        if creating.len() >= CREATING
            && let Some(created) = creating.join_next().await
        {
            handles.push(created.map_err(kiln)?.map_err(kiln)?);
        }
        let (root, key) = (root.clone(), key.clone());
        creating.spawn(async move { root.get_or_create(&key, Sample::default).await });
    }
    while let Some(created) = creating.join_next().await {
        handles.push(created.map_err(kiln)?.map_err(kiln)?);
    }
    let mut laps = Laps::new(secs);
    let mut missing = 0_u64;
    while let Some(lap) = laps.next() {
        for _ in 0..BATCH {
            match root.peek(keys.next()) {
                Some(sample) => {
                    black_box(sample.view().value());
                }
                None => missing += 1,
            }
        }
        laps.end(lap, BATCH);
    }
    let objects = handles.len();
    drop((handles, root));
    detach(runtime).await?;
    Ok(Figures {
        broken: (missing > 0).then(|| format!("{missing} look-ups found nothing")),
        ..Figures::nanos(laps.times()).noted(format!("{objects} objects"))
    })
}
