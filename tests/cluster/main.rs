//! Whole clusters: coordinators and nodes over real sockets, in processes of their own where processes matter.

mod processes;

/// The node that is steered by lines.
const TEST_NODE: &str = env!("CARGO_BIN_EXE_test-node");
/// The coordinator as a process.
const TEST_COORDINATOR: &str = env!("CARGO_BIN_EXE_test-coordinator");
