//! Two nodes that want the same lock.

use super::{Bench, Done, Result, Sample, kiln, open};
use crate::bench::clock;
use crate::bench::job::Job;
use crate::bench::row::Figures;

const TASKS_EACH: u32 = 32;
const TIMES: u32 = 200;
/// A budget of its own, beside that of the hand-off.
const WAIT_MAX_US: f64 = 5_000.0;

pub(super) async fn increments(bench: &mut Bench) -> Result<Figures> {
    // Whole rounds, as many as the time allows, each on an object of its own; the median round counts.
    let until = clock::now() + bench.secs();
    let mut rounds = Vec::new();
    while rounds.is_empty() || clock::now() < until {
        rounds.push(round(bench, rounds.len()).await?);
    }
    rounds.sort_by(|one, other| one.rate.total_cmp(&other.rate));
    let unfair = rounds.iter().filter(|round| !round.fair).count();
    let broken = rounds.iter_mut().find_map(|round| round.broken.take());
    let median = &rounds[rounds.len() / 2];
    let rounds = rounds.len();
    Ok(Figures {
        p50: Some(median.p50_us),
        p99: Some(median.p99_us),
        broken,
        breach: (unfair > 0)
            .then(|| format!("in {unfair} of {rounds} rounds one node was done before the other had made a quarter")),
        ..Figures::of(median.rate).noted(format!("{rounds} rounds"))
    })
}

struct Round {
    rate: f64,
    p50_us: f64,
    p99_us: f64,
    /// What is wrong with the sum.
    broken: Option<String>,
    /// Neither node was done before the other had made a quarter of its own.
    fair: bool,
}

async fn round(bench: &mut Bench, number: usize) -> Result<Round> {
    let object = format!("increments-{}-{number}", std::process::id());
    let job = Job::Increment { object: object.clone(), tasks: TASKS_EACH, times: TIMES };
    let cluster = bench.cluster().await?;
    let (here, there) = cluster.both(job.clone(), &job).await?;
    let root = open(&cluster.runtime).await?;
    let sample = root.get_or_create(&format!("{object}-0"), Sample::default).await.map_err(kiln)?;
    // Coherent: under a read lock that both writers have given up.
    let sum = sample.read().await.map_err(kiln)?.get(|sample| sample.value());
    let wanted = u64::from(2 * TASKS_EACH * TIMES);
    let broken = (sum != wanted).then(|| format!("the object is at {sum} after {wanted} increments"));
    let fair = here.all_done_us >= there.quarter_done_us && there.all_done_us >= here.quarter_done_us;
    let elapsed_us = here.all_done_us.max(there.all_done_us);
    Ok(Round {
        rate: f64::from(2 * TASKS_EACH * TIMES) / elapsed_us * 1e6,
        p50_us: here.p50_us.max(there.p50_us),
        p99_us: here.p99_us.max(there.p99_us),
        broken,
        fair,
    })
}

pub(super) async fn hand_offs(bench: &mut Bench, strict: bool) -> Result<Figures> {
    let time = bench.secs();
    let object = if strict { "turns" } else { "flat-out" };
    let job = |me| Job::HandOff { object: object.to_owned(), me, strict, time };
    let (here, there) = bench.cluster().await?.both(job(1), &job(2)).await?;
    let per_second = here.per_second + there.per_second;
    let longest = |figure: fn(&Done) -> f64| figure(&here).max(figure(&there));
    let longest_us = longest(|done| done.max_us);
    Ok(Figures {
        p50: Some(longest(|done| done.p50_us)),
        p99: Some(longest(|done| done.p99_us)),
        breach: (longest_us > WAIT_MAX_US).then(|| format!("one waiter had to wait for {longest_us:.0} us")),
        ..Figures::of(1e6 / per_second).noted(format!("{per_second:.0} hand-offs/s"))
    })
}
