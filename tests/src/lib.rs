//! The harness of Kiln's tests: coordinators and nodes to test with, peers and networks that misbehave, and patience with an end.
//!
//! Absent: the tests, which are in `cluster/`, `sim/`, `fuzz/` and `tidy/` beside this; `README.md` says what is where.
#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks for one message among all")]

pub mod browser;
pub mod coordinator;
pub mod disk;
pub mod dropping;
pub mod load;
pub mod log;
pub mod patience;
pub mod peer;
pub mod process;
pub mod proxy;
pub mod random;
pub mod session;

pub use browser::{Answer, Browser, Question};
pub use coordinator::Coordinator;
pub use disk::{Disk, Fate};
pub use dropping::{Dropped, drop_after};
pub use load::{Load, Record};
pub use patience::{PATIENCE, soon, until};
pub use peer::Peer;
pub use process::Process;
pub use proxy::{Proxy, Way, Weather};
pub use random::Random;
pub use session::{Line, SESSIONS, Session, SessionCounters};
