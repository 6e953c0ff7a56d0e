//! Scenarios, and random operations against invariants. No I/O, no clock: [`cluster::Cluster`] is the driver.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test names the messages it is about")]

mod attaching;
mod behind;
mod cluster;
mod commits;
mod copy;
mod deadlocks;
mod durable;
mod everywhere;
mod expiry;
mod faults;
mod full;
mod hostile;
mod invariants;
mod kept;
mod leases;
mod listeners;
mod locks;
mod operations;
mod peer;
mod random;
mod restart;
mod schemas;
mod speech;
mod watches;
