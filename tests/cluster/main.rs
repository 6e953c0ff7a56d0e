//! Whole clusters: coordinators and nodes over real sockets, in processes of their own where processes matter.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "a time that depends on the machine is shown, not asserted")]
#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks for one message among all")]

mod alone;
mod away;
mod bad_input;
mod counters;
mod dropped;
mod durable;
mod embedded;
mod everywhere;
mod eviction;
mod expiry;
mod guards;
mod hostile;
mod kept;
mod kept_local;
mod lapsed;
mod left_out;
mod listeners;
mod locked;
mod maps;
mod named;
mod objects;
mod processes;
mod readers;
mod reconnect;
mod restarted;
mod returned;
mod together;
mod transactions;
mod versions;
mod watches;

use kiln::{Root, Runtime, Shared};
use kiln_tests::Session;

/// The node that is steered by lines.
const TEST_NODE: &str = env!("CARGO_BIN_EXE_test-node");
/// The coordinator as a process.
const TEST_COORDINATOR: &str = env!("CARGO_BIN_EXE_test-coordinator");

type Sessions = Root<String, Session>;

async fn sessions(kiln: &Runtime) -> Sessions {
    kiln.root(kiln_tests::SESSIONS).await.unwrap()
}

/// The session under this key, made if there is none.
async fn session(kiln: &Runtime, key: &str) -> Shared<Session> {
    sessions(kiln).await.get_or_create(key, Session::default).await.unwrap()
}

/// One session, as two nodes hold it.
async fn held_by(a: &Runtime, b: &Runtime) -> (Shared<Session>, Shared<Session>) {
    (session(a, "s").await, session(b, "s").await)
}

/// The coherent number of visits.
async fn visits(session: &Shared<Session>) -> u64 {
    session.read().await.unwrap().view().visits()
}
