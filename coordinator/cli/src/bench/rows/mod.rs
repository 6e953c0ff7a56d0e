//! Kiln's own figures, beside budget and floor.

mod commits;
mod durable;
mod footprint;
mod locks;
mod pipelined;
mod reads;
mod restart;

use super::floors::{
    BATCH, DASHMAP_1K, DASHMAP_1M, ECHO_AND_SYNC, EPOCH_PIN, FEW_KEYS, MANY_KEYS, QUIC_ECHO, QUIC_RELAY,
};
use super::job::{Done, ROOT, Sample};
use super::row::{Budget, Row, Unit};
use super::{Bench, BenchError};
use kiln::{Root, Runtime};
use std::error::Error;

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "view_handle",
        what: "view() and one scalar, through a handle",
        unit: Unit::Nanos,
        budget: Budget::AtMost(10.0),
        floor: Some(EPOCH_PIN),
        run: |bench| Box::pin(reads::through_handle(bench)),
    },
    Row {
        name: "view_key_1k",
        what: "peek(key), view() and one scalar, among 1,000 objects",
        unit: Unit::Nanos,
        budget: Budget::AtMost(60.0),
        floor: Some(DASHMAP_1K),
        run: |bench| Box::pin(reads::by_key(bench, FEW_KEYS)),
    },
    Row {
        name: "commit_queued",
        what: "write() and commit of one scalar under a cached grant, Queued",
        unit: Unit::Nanos,
        budget: Budget::AtMost(250.0),
        floor: None,
        run: |bench| Box::pin(commits::queued(bench)),
    },
    Row {
        name: "delta_bytes",
        what: "bytes above QUIC of a commit of one u64, batched",
        unit: Unit::Bytes,
        budget: Budget::AtMost(24.0),
        floor: None,
        run: |bench| Box::pin(commits::bytes(bench)),
    },
    Row {
        name: "commit_applied",
        what: "commit of one scalar, Applied, one at a time",
        unit: Unit::Micros,
        budget: Budget::TimesFloor(1.25),
        floor: Some(QUIC_ECHO),
        run: |bench| Box::pin(commits::applied(bench)),
    },
    Row {
        name: "applied_own",
        what: "Applied, 64 tasks on two nodes, each node its own 500 objects",
        unit: Unit::PerSecond,
        budget: Budget::AtLeast(400_000.0),
        floor: None,
        run: |bench| Box::pin(commits::applied_by_two(bench, ["own-a", "own-b"])),
    },
    Row {
        name: "applied_shared",
        what: "Applied, 64 tasks on two nodes, 500 objects shared by all",
        unit: Unit::PerSecond,
        budget: Budget::None,
        floor: None,
        run: |bench| Box::pin(commits::applied_by_two(bench, ["all", "all"])),
    },
    Row {
        name: "increments",
        what: "64 tasks x 200 increments of one object, two processes, Applied",
        unit: Unit::PerSecond,
        budget: Budget::AtLeast(200_000.0),
        floor: None,
        run: |bench| Box::pin(locks::increments(bench)),
    },
    Row {
        name: "hand_off_turns",
        what: "lock hand-off between two nodes in strict turns; p50 and p99 of the wait",
        unit: Unit::Micros,
        budget: Budget::TimesFloor(1.5),
        floor: Some(QUIC_RELAY),
        run: |bench| Box::pin(locks::hand_offs(bench, true)),
    },
    Row {
        name: "hand_off_flat_out",
        what: "lock hand-off between two nodes flat out; p50 and p99 of the wait",
        unit: Unit::Micros,
        budget: Budget::TimesFloor(1.5),
        floor: Some(QUIC_RELAY),
        run: |bench| Box::pin(locks::hand_offs(bench, false)),
    },
    Row {
        name: "commit_seen",
        what: "commit on one node until another holds the value",
        unit: Unit::Micros,
        budget: Budget::TimesFloor(1.25),
        floor: Some(QUIC_ECHO),
        run: |bench| Box::pin(commits::seen(bench)),
    },
    Row {
        name: "commits_pipelined",
        what: "one-field commits through one coordinator, in memory; sent by a bare stream",
        unit: Unit::PerSecond,
        budget: Budget::AtLeast(2_000_000.0),
        floor: None,
        run: |bench| Box::pin(pipelined::by_wire(bench, false)),
    },
    Row {
        name: "commits_by_runtime",
        what: "the same by one runtime: Queued commits until all are acknowledged",
        unit: Unit::PerSecond,
        budget: Budget::None,
        floor: None,
        run: |bench| Box::pin(pipelined::by_runtime(bench)),
    },
    Row {
        name: "durable_one",
        what: "commit of one scalar, Durable, one at a time",
        unit: Unit::Micros,
        budget: Budget::TimesFloor(1.25),
        floor: Some(ECHO_AND_SYNC),
        run: |bench| Box::pin(durable::one(bench)),
    },
    Row {
        name: "durable_64",
        what: "Durable, 64 tasks on two nodes, each node its own 500 objects",
        unit: Unit::PerSecond,
        budget: Budget::PerFloor(0.6 * 64.0),
        floor: Some(ECHO_AND_SYNC),
        run: |bench| Box::pin(durable::by_two(bench)),
    },
    Row {
        name: "durable_pipelined",
        what: "one-field commits through one coordinator, durable; sent by a bare stream",
        unit: Unit::PerSecond,
        budget: Budget::AtLeast(1_000_000.0),
        floor: None,
        run: |bench| Box::pin(pipelined::by_wire(bench, true)),
    },
    Row {
        name: "idle_cpu",
        what: "an attached runtime that does nothing",
        unit: Unit::PercentOfCore,
        budget: Budget::AtMost(0.5),
        floor: None,
        run: |bench| Box::pin(footprint::idle(bench)),
    },
    Row {
        name: "object_memory",
        what: "coordinator memory per object of one 1,000-byte blob",
        unit: Unit::Bytes,
        budget: Budget::AtMost(1_163.0),
        floor: None,
        run: |bench| Box::pin(footprint::object_memory(bench)),
    },
    Row {
        name: "restart",
        what: "kill -9 with 1,000,000 objects of 1 KB, then from the start to a get of one of them",
        unit: Unit::Micros,
        budget: Budget::AtMost(1e6),
        floor: None,
        run: |bench| Box::pin(restart::with_objects(bench, bench.scaled(MANY_KEYS), 0)),
    },
    Row {
        name: "restart_deltas",
        what: "the same with 1,000,000 one-field deltas behind the last snapshot",
        unit: Unit::Micros,
        budget: Budget::None,
        floor: None,
        run: |bench| Box::pin(restart::with_objects(bench, bench.scaled(MANY_KEYS), bench.scaled(MANY_KEYS))),
    },
    // Last: its million objects stay.
    Row {
        name: "view_key_1m",
        what: "peek(key), view() and one scalar, among 1,000,000 objects",
        unit: Unit::Nanos,
        budget: Budget::TimesFloor(2.0),
        floor: Some(DASHMAP_1M),
        run: |bench| Box::pin(reads::by_key(bench, bench.scaled(MANY_KEYS))),
    },
];

type Result<T> = std::result::Result<T, BenchError>;

fn kiln<E: Into<Box<dyn Error + Send + Sync>>>(error: E) -> BenchError {
    BenchError::Kiln(error.into())
}

async fn open(runtime: &Runtime) -> Result<Root<String, Sample>> {
    runtime.root(ROOT).await.map_err(kiln)
}
