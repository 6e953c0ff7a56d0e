//! Counters for the `metrics` facade: the engine's totals, and what was sent.

use crate::engine::Totals;
use metrics::{Counter, Gauge};

/// Small integers in a gauge, which has no other form.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, and for people above")]
const fn gauge(value: u64) -> f64 {
    value as f64
}

pub(super) struct Counters {
    commits: Counter,
    commits_refused: Counter,
    faults: Counter,
    grants: Counter,
    recalls: Counter,
    output_bytes: Counter,
    nodes: Gauge,
    objects: Gauge,
    object_bytes: Gauge,
    published: Totals,
}

impl Counters {
    /// Uses the recorder that is installed now.
    pub(super) fn new() -> Self {
        metrics::describe_counter!("kiln_commits_total", "Commits applied");
        metrics::describe_counter!("kiln_commits_refused_total", "Commits refused");
        metrics::describe_counter!("kiln_faults_total", "Objects sent to nodes that asked for them");
        metrics::describe_counter!("kiln_grants_total", "Lock grants given");
        metrics::describe_counter!("kiln_recalls_total", "Lock grants wanted back");
        metrics::describe_counter!("kiln_output_bytes_total", metrics::Unit::Bytes, "Bytes sent to peers, above QUIC");
        metrics::describe_counter!("kiln_peers_refused_total", "Peers that did not get attached");
        metrics::describe_counter!("kiln_peers_cut_total", "Attached peers cut off for what they sent or did not read");
        metrics::describe_gauge!("kiln_nodes", "Attached nodes and observers");
        metrics::describe_gauge!("kiln_objects", "Objects");
        metrics::describe_gauge!("kiln_object_bytes", metrics::Unit::Bytes, "Keys and slots of all objects");
        Self {
            commits: metrics::counter!("kiln_commits_total"),
            commits_refused: metrics::counter!("kiln_commits_refused_total"),
            faults: metrics::counter!("kiln_faults_total"),
            grants: metrics::counter!("kiln_grants_total"),
            recalls: metrics::counter!("kiln_recalls_total"),
            output_bytes: metrics::counter!("kiln_output_bytes_total"),
            nodes: metrics::gauge!("kiln_nodes"),
            objects: metrics::gauge!("kiln_objects"),
            object_bytes: metrics::gauge!("kiln_object_bytes"),
            published: Totals::default(),
        }
    }

    /// Says what has changed since the last time.
    pub(super) fn publish(&mut self, now: Totals, output_bytes: u64) {
        let last = std::mem::replace(&mut self.published, now);
        for (counter, now, last) in [
            (&self.commits, now.commits, last.commits),
            (&self.commits_refused, now.commits_refused, last.commits_refused),
            (&self.faults, now.faults, last.faults),
            (&self.grants, now.grants, last.grants),
            (&self.recalls, now.recalls, last.recalls),
            (&self.output_bytes, output_bytes, 0),
        ] {
            if now != last {
                counter.increment(now - last);
            }
        }
        for (level, now, last) in [
            (&self.nodes, now.nodes, last.nodes),
            (&self.objects, now.objects, last.objects),
            (&self.object_bytes, now.object_bytes, last.object_bytes),
        ] {
            if now != last {
                level.set(gauge(now));
            }
        }
    }
}

/// A peer that did not get attached.
pub(super) fn refused() {
    metrics::counter!("kiln_peers_refused_total").increment(1);
}

/// An attached peer that was cut off.
pub(super) fn cut() {
    metrics::counter!("kiln_peers_cut_total").increment(1);
}
