//! Heartbeats, and the end of a lease that was not renewed.

use crate::clock::boot_nanos;
use kiln_engine::{LeaseKeeper, Node};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Runs until the node ends; tells `lapsed` whenever its lease, which is trusted for so long, has lapsed.
pub(super) async fn renew(node: Arc<Node>, trusted: Duration, lapsed: Arc<Notify>) {
    let mut keeper = LeaseKeeper::new(trusted, boot_nanos());
    while node.ended().is_none() {
        let turn = keeper.turn(&node, boot_nanos());
        if let Some(unknown) = turn.lapsed {
            tracing::warn!(unknown, "the lease has lapsed: locks are lost, commits without an answer are unknown");
            lapsed.notify_one();
        }
        tokio::time::sleep(turn.idle).await;
    }
}
