//! When a node sends heartbeats, stops trusting its lease and tries to connect again, and what it makes of the answer.
//!
//! No clock and no timers here: the driver says what time it is and is told how long it may sleep.

use crate::link::Lapse;
use crate::node::{Ended, Node};
use kiln_protocol::message::Past;
use kiln_protocol::{Epoch, Incarnation, Secret};
use std::time::Duration;

/// Heartbeats in the time of one lease.
const HEARTBEATS_PER_LEASE: u32 = 5;
/// What two clocks may differ by in the course of a lease: this part of it.
const MARGIN_PART: u32 = 10;
const HEARTBEAT_MIN: Duration = Duration::from_millis(1);
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// How long one attempt to connect may take while the lease lasts: a handshake that lost its first packets backs off for
/// longer than the lease may last.
const HASTE: Duration = Duration::from_millis(500);

/// For how long grants can be trusted after the sending of an answered heartbeat: the lease, less a margin.
#[must_use]
pub fn trusted(lease: Duration) -> Duration {
    lease - lease / MARGIN_PART
}

/// Renews a lease in time, and ends it in time when that fails.
#[derive(Clone, Copy, Debug)]
pub struct LeaseKeeper {
    period_nanos: u64,
    next_nanos: u64,
}

/// What a [`LeaseKeeper`] did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LeaseTurn {
    /// The lease has lapsed just now; the fate of so many commits is unknown.
    pub lapsed: Option<usize>,
    /// How long there is nothing to do.
    pub idle: Duration,
}

impl LeaseKeeper {
    /// Of a lease that is trusted for this long; the first heartbeat is due at once.
    #[must_use]
    pub fn new(trusted: Duration, now_nanos: u64) -> Self {
        Self { period_nanos: nanos((trusted / HEARTBEATS_PER_LEASE).max(HEARTBEAT_MIN)), next_nanos: now_nanos }
    }

    /// Does what is due at this time.
    pub fn turn(&mut self, node: &Node, now_nanos: u64) -> LeaseTurn {
        let mut lapsed = None;
        if !node.link.has_lapsed()
            && !node.link.is_leased(now_nanos)
            && let Lapse::Now { unknown } = node.lapse()
        {
            lapsed = Some(unknown);
        }
        if now_nanos >= self.next_nanos {
            node.heartbeat(now_nanos);
            self.next_nanos = now_nanos.saturating_add(self.period_nanos);
        }
        let mut idle = self.next_nanos - now_nanos;
        if !node.link.has_lapsed() {
            idle = idle.min(node.link.leased_until().saturating_sub(now_nanos));
        }
        LeaseTurn { lapsed, idle: Duration::from_nanos(idle) }
    }
}

/// How long to wait between attempts to connect.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    next: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { next: RETRY_MIN }
    }
}

impl Retry {
    /// How long to wait before the next attempt.
    #[must_use]
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(RETRY_MAX);
        pause
    }

    /// How long an attempt may take, from its beginning to its welcome; `None`: as long as any.
    #[must_use]
    pub fn attempt_max(node: &Node) -> Option<Duration> {
        (!node.link.has_lapsed()).then_some(HASTE)
    }
}

/// The answer to a node that connects again.
#[derive(Clone, Copy, Debug)]
pub struct Welcome {
    /// The epoch of the connection.
    pub epoch: Epoch,
    /// The node's incarnation from now on.
    pub incarnation: Incarnation,
    /// Its secret.
    pub secret: Secret,
    /// What became of the incarnation that was to be resumed.
    pub past: Past,
    /// When the node asked, on the clock of leases.
    pub sent_nanos: u64,
    /// For how long grants can be [trusted].
    pub trusted: Duration,
}

/// What a node makes of a [`Welcome`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Adoption {
    /// The node goes on as what it was.
    Resumed,
    /// The node is another incarnation.
    Rejoined {
        /// Commits of the former one whose fate is unknown since just now.
        unknown: usize,
    },
    /// The connection is of no use: the lease has lapsed meanwhile. Connect again.
    Useless,
    /// The node has ended; the caller tells it so.
    Ended(Ended),
}

impl Node {
    /// Goes on with a new connection.
    pub fn go_on(&self, welcome: &Welcome) -> Adoption {
        if welcome.past == Past::Reset {
            return Adoption::Ended(Ended::Reset);
        }
        match welcome.past {
            Past::Resumed { applied } => {
                if self.resumed(welcome.epoch, applied, welcome.sent_nanos) {
                    return Adoption::Resumed;
                }
                if self.link.has_lapsed() {
                    return Adoption::Useless;
                }
                Adoption::Ended(Ended::Lost("the coordinator does not know what it has acknowledged".to_owned()))
            }
            Past::None | Past::Lapsed | Past::Reset => {
                let unknown = match self.lapse() {
                    Lapse::Now { unknown } => unknown,
                    Lapse::Before => 0,
                };
                let (sent_nanos, lease_nanos) = (welcome.sent_nanos, nanos(welcome.trusted));
                self.rejoined(welcome.epoch, welcome.incarnation, welcome.secret, sent_nanos, lease_nanos);
                Adoption::Rejoined { unknown }
            }
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
