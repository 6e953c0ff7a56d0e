//! Heartbeats, and the end of a lease that was not renewed.

use crate::clock::boot_nanos;
use kiln_engine::{Lapse, Node};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

/// Heartbeats in the time of one lease.
const HEARTBEATS_PER_LEASE: u32 = 5;

/// Runs until the node ends; tells `lapsed` whenever its lease has lapsed.
pub(super) async fn renew(node: Arc<Node>, lease: Duration, lapsed: Arc<Notify>) {
    let period = (lease / HEARTBEATS_PER_LEASE).max(Duration::from_millis(1));
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while node.ended().is_none() {
        let left = node.link.leased_until().saturating_sub(boot_nanos());
        tokio::select! {
            _ = ticks.tick() => node.heartbeat(boot_nanos()),
            () = tokio::time::sleep(Duration::from_nanos(left)), if !node.link.has_lapsed() => {
                if node.link.is_leased(boot_nanos()) {
                    continue;
                }
                if let Lapse::Now { unknown } = node.lapse() {
                    tracing::warn!(unknown, "the lease has lapsed: locks are lost, commits without an answer are unknown");
                    lapsed.notify_one();
                }
            }
        }
    }
}
