//! Commits that wait for nothing but room.

use super::commits::{acknowledged, one_queued, sample_and_runtime};
use super::footprint::cpu_nanos;
use super::{BATCH, Bench, BenchError, Result};
use crate::bench::clock::{self, Laps, count};
use crate::bench::row::Figures;
use crate::bench::wire::Wire;
use std::time::{Duration, Instant};

/// Commits under way at which to wait for acknowledgements.
const UNDER_WAY_MAX: u64 = 1 << 16;

fn rate(commits: u64, started: Instant) -> Figures {
    let elapsed: Duration = clock::now().saturating_duration_since(started);
    Figures::of(count(commits) / elapsed.as_secs_f64())
}

pub(super) async fn by_wire(bench: &mut Bench, durable: bool) -> Result<Figures> {
    let secs = bench.secs();
    let cluster = if durable { bench.durable().await? } else { bench.cluster().await? };
    let coordinator = cluster.coordinator_id();
    let cpu = || coordinator.map(cpu_nanos).transpose();
    let mut wire = Wire::attach(cluster.profile()).await.map_err(BenchError::Kiln)?;
    let key = format!("wire-{}", std::process::id());
    let mut target = wire.create(&key).await.map_err(BenchError::Kiln)?;
    let (mut sent, mut applied) = (0, 0);
    let cpu_before = cpu()?;
    let started = clock::now();
    while clock::now() < started + secs {
        wire.commit(&mut target, BATCH, durable).await.map_err(BenchError::Kiln)?;
        sent += u64::from(BATCH);
        while sent - applied > UNDER_WAY_MAX {
            applied = wire.acknowledged(durable).await.map_err(BenchError::Kiln)?;
        }
    }
    while applied < sent {
        applied = wire.acknowledged(durable).await.map_err(BenchError::Kiln)?;
    }
    let figures = rate(sent, started);
    Ok(match (cpu_before, cpu()?) {
        // Tells on a busy machine, too, what the coordinator could do with a core of its own.
        (Some(before), Some(after)) => {
            let nanos = count(after.saturating_sub(before)) / count(sent);
            figures.noted(format!("{nanos:.0} ns of the coordinator's CPU each"))
        }
        _ => figures,
    })
}

pub(super) async fn by_runtime(bench: &mut Bench) -> Result<Figures> {
    let (sample, runtime) = sample_and_runtime(bench, "pipelined").await?;
    let mut laps = Laps::new(bench.secs());
    let started = clock::now();
    let before = runtime.stats().commits;
    while laps.next().is_some() {
        for _ in 0..BATCH {
            one_queued(&sample).await?;
        }
        // The driver shares this thread: it sends and reads now.
        tokio::task::yield_now().await;
        acknowledged(&runtime, UNDER_WAY_MAX).await?;
    }
    acknowledged(&runtime, 0).await?;
    Ok(rate(runtime.stats().commits - before, started))
}
