//! S20: memory per peer is bounded: a node's outbox keeps to its limit, except for a single commit that is larger, and for
//! frames that are made again for another epoch of the coordinator, with tokens of the earlier one in full. What waits in the
//! coordinator for one node is looked at in `network.rs`, where it is sent.

use crate::keeper::OUTBOX_BYTES;
use crate::process::Process;

pub(crate) fn check(process: &Process) {
    let (commits, bytes) = process.node().outbox.unacknowledged();
    let longest = OUTBOX_BYTES + OUTBOX_BYTES / 8;
    assert!(bytes <= longest || commits == 1, "S20: {commits} commits with {bytes} bytes wait in an outbox");
}
