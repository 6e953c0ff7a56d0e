//! What the machine itself can do: the floors that budgets are held against, measured in the same run.

mod disk;
mod memory;
mod quic;
mod relay;

pub(super) use memory::{BATCH, FEW_KEYS, Keys, MANY_KEYS, Order};
pub(super) use quic::{serve_echo, transport};
pub(super) use relay::{serve_relay, serve_relay_client};

use super::row::{Budget, Figures, Row, Run, Unit};
use super::{Bench, BenchError};

pub(super) const QUIC_ECHO: &str = "quic_echo";
pub(super) const ECHO_AND_SYNC: &str = "echo_and_sync";
pub(super) const QUIC_RELAY: &str = "quic_relay";
pub(super) const DASHMAP_1K: &str = "dashmap_get_1k";
pub(super) const DASHMAP_1M: &str = "dashmap_get_1m";
pub(super) const EPOCH_PIN: &str = "epoch_pin_load";

/// What a durable commit cannot do without.
async fn echo_and_sync(bench: &Bench) -> Result<Figures, BenchError> {
    let (echo, sync) = (quic::measure_echo(bench).await?, disk::measure(bench).await?);
    Ok(Figures::of(echo.value + sync.value).noted(format!("{:.1} and {:.1}", echo.value, sync.value)))
}

const fn floor(name: &'static str, what: &'static str, unit: Unit, run: Run) -> Row {
    Row { name, what, unit, budget: Budget::None, floor: None, run }
}

pub(super) const ROWS: &[Row] = &[
    floor(QUIC_ECHO, "floor: 64 bytes to another process and back over QUIC", Unit::Micros, |bench| {
        Box::pin(quic::measure_echo(bench))
    }),
    floor(QUIC_RELAY, "floor: 64 bytes to a third process through a second one, per hand-off", Unit::Micros, |bench| {
        Box::pin(relay::measure_relay(bench))
    }),
    floor("pwrite_fdatasync", "floor: 4 KiB written and synced in the working directory", Unit::Micros, |bench| {
        Box::pin(disk::measure(bench))
    }),
    floor(
        ECHO_AND_SYNC,
        "floor: 64 bytes there and back, and 4 KiB written and synced, one by one",
        Unit::Micros,
        |bench| Box::pin(echo_and_sync(bench)),
    ),
    floor(DASHMAP_1K, "floor: a dashmap look-up among 1,000 strings", Unit::Nanos, |bench| {
        Box::pin(memory::measure_dashmap(bench, FEW_KEYS))
    }),
    floor(DASHMAP_1M, "floor: a dashmap look-up among 1,000,000 strings", Unit::Nanos, |bench| {
        Box::pin(memory::measure_dashmap(bench, bench.scaled(MANY_KEYS)))
    }),
    floor(EPOCH_PIN, "floor: an epoch pin and one load", Unit::Nanos, |bench| Box::pin(memory::measure_pin(bench))),
];
