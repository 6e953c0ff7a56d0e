//! Once a second: how old the oldest reader is, what metrics say, and stale copies that are looked at again.

use kiln_engine::Node;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

const PERIOD: Duration = Duration::from_secs(1);
/// A reader that keeps old versions alive for longer is worth a warning.
const OLD_PIN: Duration = Duration::from_secs(1);
const OLD_PIN_WARNING_EVERY: Duration = Duration::from_secs(60);

/// Runs until the node ends.
pub(super) async fn measure(node: Arc<Node>, oldest_pin_ms: Arc<AtomicU64>) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut probe = (node.heap.probe(), Instant::now());
    let mut warned: Option<Instant> = None;
    while node.ended().is_none() {
        let now = ticks.tick().await;
        node.heap.collect();
        if probe.0.is_done() {
            oldest_pin_ms.store(0, Ordering::Relaxed);
            probe = (node.heap.probe(), now);
        } else {
            let age = now.saturating_duration_since(probe.1);
            oldest_pin_ms.store(u64::try_from(age.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
            if age > OLD_PIN && warned.is_none_or(|last| now.duration_since(last) > OLD_PIN_WARNING_EVERY) {
                warned = Some(now);
                tracing::warn!(?age, "a view has been held for long: the heap cannot free old versions meanwhile");
            }
        }
        node.refetch_stale();
        record(&node, oldest_pin_ms.load(Ordering::Relaxed));
    }
}

#[expect(clippy::cast_precision_loss, reason = "gauges are floats; figures beyond 2^53 do not occur")]
fn record(node: &Node, oldest_pin_ms: u64) {
    let figures = node.figures();
    metrics::counter!("kiln_commits_total").absolute(node.outbox.totals().0);
    metrics::counter!("kiln_commits_refused_total").absolute(figures.refused);
    metrics::counter!("kiln_faults_total").absolute(figures.faults);
    metrics::counter!("kiln_recalls_total").absolute(figures.recalls);
    metrics::counter!("kiln_lock_waits_total").absolute(figures.waits);
    metrics::counter!("kiln_evictions_total").absolute(figures.evictions);
    metrics::gauge!("kiln_resident_objects").set(node.cache.len() as f64);
    metrics::gauge!("kiln_resident_bytes").set(node.heap.used_bytes() as f64);
    metrics::gauge!("kiln_outbox_bytes").set(node.outbox.unacknowledged().1 as f64);
    metrics::gauge!("kiln_oldest_pin_milliseconds").set(oldest_pin_ms as f64);
}
