//! Commits that are synced before they return.

use super::commits::{OBJECTS, TASKS_EACH};
use super::{Bench, Result, Sample, kiln, open};
use crate::bench::clock::Laps;
use crate::bench::job::Job;
use crate::bench::row::Figures;
use kiln::Level;

pub(super) async fn one(bench: &mut Bench) -> Result<Figures> {
    let secs = bench.secs();
    let runtime = bench.durable().await?.runtime.clone();
    let sample = open(&runtime).await?.get_or_create("durable", Sample::default).await.map_err(kiln)?;
    // The first lock is fetched; from then on its grant is cached.
    sample.update_with(Level::Durable, |sample| *sample.value += 1).await.map_err(kiln)?;
    let mut laps = Laps::new(secs);
    while let Some(lap) = laps.next() {
        sample.update_with(Level::Durable, |sample| *sample.value += 1).await.map_err(kiln)?;
        laps.end(lap, 1);
    }
    Ok(Figures::micros(laps.times()))
}

pub(super) async fn by_two(bench: &mut Bench) -> Result<Figures> {
    let time = bench.secs();
    let job = |prefix: &str| Job::Update {
        prefix: prefix.to_owned(),
        objects: OBJECTS,
        tasks: TASKS_EACH,
        time,
        durable: true,
    };
    let (here, there) = bench.durable().await?.both(job("durable-a"), &job("durable-b")).await?;
    Ok(Figures {
        p50: Some(here.p50_us.max(there.p50_us)),
        p99: Some(here.p99_us.max(there.p99_us)),
        ..Figures::of(here.per_second + there.per_second)
    })
}
