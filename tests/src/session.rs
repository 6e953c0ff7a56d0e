//! What most tests share: a session with a field of every kind.

use kiln::rkyv;
use kiln::{Clustered, Map, Value};

/// One line of a cart.
#[derive(Clone, Debug, Default, PartialEq, Value, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = kiln::rkyv)]
pub struct Line {
    /// What.
    pub title: String,
    /// How many.
    pub count: u32,
}

/// The root of sessions in processes of the tests: another one than that of any program that shares their coordinator.
pub const SESSIONS: &str = "test-sessions";

/// A session.
#[derive(Clustered, Debug, Default)]
#[clustered(rename = "TestSession")]
pub struct Session {
    /// Who is logged in.
    pub user: Option<String>,
    /// A string block.
    pub theme: String,
    /// A plain number, under lock.
    pub visits: u64,
    /// A commutative number.
    #[clustered(counter)]
    pub clicks: i64,
    /// Entries with deltas of their own.
    pub cart: Map<String, Line>,
    /// In a lock group of its own.
    #[clustered(lock = "money")]
    pub balance: i64,
    /// A second field of that group.
    #[clustered(lock = "money")]
    pub currency: String,
}
