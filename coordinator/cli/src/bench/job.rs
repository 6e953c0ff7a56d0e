//! What a node does for a row; the same code here and in the second node's process.

use super::clock::{self, Laps};
use super::floors::Order;
use kiln::{Clustered, EventKind, Level, Root, Runtime, Shared, Watch};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

pub(super) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// The object of most rows.
#[derive(Clustered, Default)]
pub(super) struct Sample {
    pub(super) value: u64,
    /// Who wrote it last.
    pub(super) last: u64,
}

pub(super) const ROOT: &str = "bench";

/// Objects under `prefix`, created where they are not there yet.
pub(super) async fn samples(root: &Root<String, Sample>, prefix: &str, objects: u32) -> Outcome<Vec<Shared<Sample>>> {
    let mut samples = Vec::new();
    for index in 0..objects {
        samples.push(root.get_or_create(&format!("{prefix}-{index}"), Sample::default).await?);
    }
    Ok(samples)
}

/// Work for a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Job {
    /// `tasks` tasks add one to random objects under `prefix`, one commit after the other, each `Applied` or `Durable`.
    Update { prefix: String, objects: u32, tasks: u32, time: Duration, durable: bool },
    /// `tasks` tasks add one to the same object, `times` times each, each commit `Applied`.
    Increment { object: String, tasks: u32, times: u32 },
    /// One task takes the lock of one object again and again. `strict`: and adds one only if the other node was last.
    HandOff { object: String, me: u64, strict: bool, time: Duration },
    /// Writes `ping`, and waits until the other node has seen it and has written it to `pong`.
    Ping { object: String, time: Duration },
    /// The other side of [`Self::Ping`].
    Pong { object: String },
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Done {
    /// Of all tasks together.
    pub(super) per_second: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) max_us: f64,
    /// Since the start.
    pub(super) quarter_done_us: f64,
    /// Since the start.
    pub(super) all_done_us: f64,
}

/// A job whose objects are there.
pub(super) struct Prepared {
    job: Job,
    objects: Vec<Shared<Sample>>,
    watch: Option<Watch<String>>,
}

/// The value that ends a ping-pong.
const OVER: u64 = u64::MAX;

impl Job {
    pub(super) async fn prepare(self, runtime: &Runtime) -> Outcome<Prepared> {
        let root: Root<String, Sample> = runtime.root(ROOT).await?;
        let (objects, watched) = match &self {
            Self::Update { prefix, objects, .. } => (samples(&root, prefix, *objects).await?, None),
            Self::Increment { object, .. } | Self::HandOff { object, .. } => (samples(&root, object, 1).await?, None),
            Self::Ping { object, .. } => (samples(&root, object, 2).await?, Some(1)),
            Self::Pong { object } => (samples(&root, object, 2).await?, Some(0)),
        };
        let watch = match watched {
            Some(index) => {
                let object: &Shared<Sample> = &objects[index];
                Some(object.watch().await?)
            }
            None => None,
        };
        Ok(Prepared { job: self, objects, watch })
    }
}

impl Prepared {
    pub(super) async fn run(self) -> Outcome<Done> {
        let Self { job, objects, watch } = self;
        match (job, watch) {
            (Job::Update { tasks, time, durable, .. }, _) => update(objects, tasks, time, durable).await,
            (Job::Increment { tasks, times, .. }, _) => increment(&objects[0], tasks, times).await,
            (Job::HandOff { me, strict, time, .. }, _) => hand_off(&objects[0], me, strict, time).await,
            (Job::Ping { time, .. }, Some(watch)) => ping(&objects[0], &objects[1], watch, time).await,
            (Job::Pong { .. }, Some(watch)) => pong(&objects[0], &objects[1], watch).await,
            (Job::Ping { .. } | Job::Pong { .. }, None) => Err("nothing to watch".into()),
        }
    }
}

fn done(laps: &Laps) -> Done {
    let times = laps.times();
    Done {
        per_second: times.rate,
        p50_us: times.p50.micros(),
        p99_us: times.p99.micros(),
        max_us: times.max.micros(),
        ..Done::default()
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

async fn join(mut tasks: JoinSet<Outcome<()>>) -> Outcome<()> {
    while let Some(joined) = tasks.join_next().await {
        joined??;
    }
    Ok(())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn update(objects: Vec<Shared<Sample>>, tasks: u32, time: Duration, durable: bool) -> Outcome<Done> {
    let level = if durable { Level::Durable } else { Level::Applied };
    let laps = Arc::new(Mutex::new(Laps::new(time)));
    let objects = Arc::new(objects);
    let mut set = JoinSet::new();
    for task in 0..tasks {
        let (laps, objects) = (Arc::clone(&laps), Arc::clone(&objects));
        // Far enough apart that no task follows another one.
        let mut order = Order::new(u32::try_from(objects.len())?).starting_at(task as usize * 7);
        set.spawn(async move {
            loop {
                let Some(lap) = locked(&laps).next() else {
                    return Ok(());
                };
                let object = &objects[order.next()];
                object.update_with(level, |sample| *sample.value += 1).await?;
                locked(&laps).end(lap, 1);
            }
        });
    }
    join(set).await?;
    let laps = locked(&laps);
    Ok(done(&laps))
}

async fn increment(object: &Shared<Sample>, tasks: u32, times: u32) -> Outcome<Done> {
    let quarter = u64::from(tasks) * u64::from(times) / 4;
    let started = clock::now();
    let laps = Arc::new(Mutex::new(Laps::untimed()));
    let quarter_done = Arc::new(Mutex::new(Duration::ZERO));
    let mut set = JoinSet::new();
    for _ in 0..tasks {
        let (object, laps, quarter_done) = (object.clone(), Arc::clone(&laps), Arc::clone(&quarter_done));
        set.spawn(async move {
            for _ in 0..times {
                let lap = locked(&laps).next().ok_or("took too long")?;
                object.update_with(Level::Applied, |sample| *sample.value += 1).await?;
                let mut laps = locked(&laps);
                laps.end(lap, 1);
                if laps.operations() == quarter {
                    *locked(&quarter_done) = since(started);
                }
            }
            Ok(())
        });
    }
    join(set).await?;
    let quarter_done_us = micros(*locked(&quarter_done));
    let laps = locked(&laps);
    Ok(Done { quarter_done_us, all_done_us: micros(since(started)), ..done(&laps) })
}

fn since(started: Instant) -> Duration {
    clock::now().saturating_duration_since(started)
}

/// Counts how often the lock came from the other node; a lap is the wait for it.
async fn hand_off(object: &Shared<Sample>, me: u64, strict: bool, time: Duration) -> Outcome<Done> {
    let mut laps = Laps::new(time);
    while let Some(lap) = laps.next() {
        let mut sample = object.write().await?;
        let from_other = *sample.last != me;
        if from_other {
            laps.end(lap, 1);
        }
        if from_other || !strict {
            *sample.value += 1;
            *sample.last = me;
            sample.commit_with(Level::Queued).await?;
        } else {
            sample.rollback();
        }
        // A cached lock is taken without a wait: without this the recall would never be read.
        tokio::task::yield_now().await;
    }
    Ok(done(&laps))
}

/// A lap is there and back: two commits, each until the other node held it.
async fn ping(ping: &Shared<Sample>, pong: &Shared<Sample>, mut watch: Watch<String>, time: Duration) -> Outcome<Done> {
    let mut laps = Laps::new(time);
    let mut value = pong.view().value();
    while let Some(lap) = laps.next() {
        value += 1;
        ping.update_with(Level::Queued, |sample| *sample.value = value).await?;
        while pong.view().value() != value {
            next_change(&mut watch).await?;
        }
        laps.end(lap, 2);
    }
    ping.update_with(Level::Applied, |sample| *sample.value = OVER).await?;
    Ok(done(&laps))
}

async fn pong(ping: &Shared<Sample>, pong: &Shared<Sample>, mut watch: Watch<String>) -> Outcome<Done> {
    loop {
        next_change(&mut watch).await?;
        let value = ping.view().value();
        if value == OVER {
            return Ok(Done::default());
        }
        pong.update_with(Level::Queued, |sample| *sample.value = value).await?;
    }
}

async fn next_change(watch: &mut Watch<String>) -> Outcome<()> {
    match watch.next().await {
        Some(event) if matches!(event.kind, EventKind::Removed) => Err("the object was removed".into()),
        Some(_) => Ok(()),
        None => Err("the watch ended".into()),
    }
}
