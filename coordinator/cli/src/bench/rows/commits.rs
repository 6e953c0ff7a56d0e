//! Commits of one scalar.

use super::{BATCH, Bench, Result, Sample, kiln, open};
use crate::bench::clock::{Laps, count};
use crate::bench::job::Job;
use crate::bench::row::Figures;
use kiln::{Level, Runtime, Shared};

pub(super) const TASKS_EACH: u32 = 32;
pub(super) const OBJECTS: u32 = 500;

pub(super) async fn one_queued(sample: &Shared<Sample>) -> Result<()> {
    let mut guard = sample.write().await.map_err(kiln)?;
    *guard.value += 1;
    guard.commit_with(Level::Queued).await.map_err(kiln)?;
    Ok(())
}

/// Lets the driver send and read until at most so many commits are unacknowledged.
pub(super) async fn acknowledged(runtime: &Runtime, most: u64) -> Result<()> {
    while runtime.stats().unacknowledged > most {
        if runtime.take_refusals().is_empty() {
            tokio::task::yield_now().await;
        } else {
            return Err(kiln("the coordinator refused commits"));
        }
    }
    Ok(())
}

pub(super) async fn sample_and_runtime(bench: &mut Bench, key: &str) -> Result<(Shared<Sample>, Runtime)> {
    let runtime = bench.cluster().await?.runtime.clone();
    let sample = open(&runtime).await?.get_or_create(key, Sample::default).await.map_err(kiln)?;
    // The first lock is fetched; from then on its grant is cached.
    sample.update_with(Level::Applied, |sample| *sample.value += 1).await.map_err(kiln)?;
    Ok((sample, runtime))
}

pub(super) async fn queued(bench: &mut Bench) -> Result<Figures> {
    let (sample, runtime) = sample_and_runtime(bench, "queued").await?;
    let mut laps = Laps::new(bench.secs());
    while let Some(lap) = laps.next() {
        for _ in 0..BATCH {
            one_queued(&sample).await?;
        }
        laps.end(lap, BATCH);
        acknowledged(&runtime, 0).await?;
    }
    Ok(Figures::nanos(laps.times()))
}

pub(super) async fn bytes(bench: &mut Bench) -> Result<Figures> {
    const COMMITS: u32 = 100 * BATCH;
    let (sample, runtime) = sample_and_runtime(bench, "bytes").await?;
    let before = runtime.stats();
    for commit in 0..COMMITS {
        one_queued(&sample).await?;
        if commit % BATCH == 0 {
            acknowledged(&runtime, 0).await?;
        }
    }
    acknowledged(&runtime, 0).await?;
    let after = runtime.stats();
    let commits = after.commits - before.commits;
    let bytes = count(after.commit_bytes - before.commit_bytes) / count(commits.max(1));
    Ok(Figures::of(bytes).noted(format!("{commits} commits")))
}

pub(super) async fn applied(bench: &mut Bench) -> Result<Figures> {
    let (sample, _runtime) = sample_and_runtime(bench, "applied").await?;
    let mut laps = Laps::new(bench.secs());
    while let Some(lap) = laps.next() {
        sample.update_with(Level::Applied, |sample| *sample.value += 1).await.map_err(kiln)?;
        laps.end(lap, 1);
    }
    Ok(Figures::micros(laps.times()))
}

pub(super) async fn applied_by_two(bench: &mut Bench, prefixes: [&str; 2]) -> Result<Figures> {
    let time = bench.secs();
    let job = |prefix: &str| Job::Update {
        prefix: prefix.to_owned(),
        objects: OBJECTS,
        tasks: TASKS_EACH,
        time,
        durable: false,
    };
    let [here, there] = prefixes;
    let (here, there) = bench.cluster().await?.both(job(here), &job(there)).await?;
    Ok(Figures {
        p50: Some(here.p50_us.max(there.p50_us)),
        p99: Some(here.p99_us.max(there.p99_us)),
        ..Figures::of(here.per_second + there.per_second)
    })
}

pub(super) async fn seen(bench: &mut Bench) -> Result<Figures> {
    let time = bench.secs();
    let object = "seen".to_owned();
    let ping = Job::Ping { object: object.clone(), time };
    let (here, _there) = bench.cluster().await?.both(ping, &Job::Pong { object }).await?;
    Ok(Figures { p50: Some(here.p50_us), p99: Some(here.p99_us), ..Figures::of(here.p50_us) }
        .noted("half of there and back"))
}
