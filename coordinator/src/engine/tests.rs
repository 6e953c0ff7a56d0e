//! Scenarios, and random operations against invariants. No I/O, no clock: [`cluster::Cluster`] is the driver.

mod attaching;
mod cluster;
mod commits;
mod copy;
mod everywhere;
mod faults;
mod hostile;
mod invariants;
mod locks;
mod operations;
mod random;
mod schemas;
mod speech;
mod watches;
