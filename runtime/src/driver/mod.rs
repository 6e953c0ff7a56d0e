//! The thin driver: one QUIC connection after the other, one stream, and the clock. All decisions are the engine's.
//!
//! Its tasks live in the tokio runtime of the program, so that a commit and its answer need no wake-up of another
//! thread: the task that commits wakes the writer on its own worker. They end with the node.

mod comeback;
mod connect;
mod keep;
mod lease;
mod measure;
mod stream;
mod tls;

use crate::api::internals::{Attached, ClusterEvent, Options};
use crate::api::{AttachError, Level};
use keep::Keeper;
use kiln_engine::{Node, Settings};
use kiln_heap::Heap;
use kiln_protocol::CloseCode;
use kiln_protocol::profile::Profile;
use quinn::VarInt;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, broadcast};
use tokio::task::JoinSet;
use tracing::Instrument;

/// Cluster events that a slow listener can be behind.
const EVENTS_KEPT: usize = 1024;

/// How long the last packets of a node may take.
const CLOSING_MAX: Duration = Duration::from_millis(500);

const GOODBYE: VarInt = VarInt::from_u32(CloseCode::Goodbye.to_bits());

/// The tasks and the present connection of a runtime; dropping it ends both.
#[derive(Debug)]
pub(crate) struct Connection {
    line: Arc<Mutex<Line>>,
    _tasks: JoinSet<()>,
}

/// A connection and the endpoint that it is made with.
#[derive(Clone, Debug)]
struct Line {
    endpoint: quinn::Endpoint,
    connection: quinn::Connection,
}

impl Line {
    /// Here and now. Closing the endpoint instead would leave it to another task, and whoever drops the last handle
    /// of the connection before that closes it without a word: then nobody knows that this was a goodbye.
    fn close(&self, code: VarInt, reason: &[u8]) {
        self.connection.close(code, reason);
    }
}

impl Connection {
    pub(crate) fn close(&self) {
        self.line.lock().unwrap_or_else(PoisonError::into_inner).close(GOODBYE, b"detached");
    }

    /// Waits until the close has gone out. A process that ends before that leaves the coordinator waiting for it.
    pub(crate) async fn closed(&self) {
        let endpoint = self.line.lock().unwrap_or_else(PoisonError::into_inner).endpoint.clone();
        drop(tokio::time::timeout(CLOSING_MAX, endpoint.wait_idle()).await);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}

/// Connects, says hello, and starts the tasks.
pub(crate) async fn attach(
    profile: Profile,
    profile_path: Option<PathBuf>,
    options: Options,
) -> Result<Arc<Attached>, AttachError> {
    let heap = Heap::new(kiln_heap::Options { bytes_max: options.heap_bytes })
        .map_err(|error| AttachError::Heap { bytes: options.heap_bytes, error })?;
    let welcomed = connect::connect(&profile, &options, None).await?;
    if options.level == Level::Durable && !welcomed.durable {
        welcomed.line.close(GOODBYE, b"it keeps no log");
        return Err(AttachError::NotDurable { address: profile.address });
    }
    let settings =
        Settings { epoch: welcomed.epoch, durable: welcomed.durable, outbox_bytes_max: options.outbox_bytes };
    let node = Arc::new(Node::new(settings, heap));
    node.limit_journal(options.journal_bytes);
    node.link.welcomed(welcomed.incarnation, welcomed.secret, welcomed.sent_nanos, nanos(welcomed.trusted));
    let span = tracing::info_span!("node", name = %options.node_name, incarnation = %welcomed.incarnation);
    span.in_scope(|| tracing::info!(address = %profile.address, epoch = %welcomed.epoch, "attached"));
    let oldest_pin_ms = Arc::new(AtomicU64::new(0));
    let (events, _) = broadcast::channel::<ClusterEvent>(EVENTS_KEPT);
    let line = Arc::new(Mutex::new(welcomed.line.clone()));
    let lapsed = Arc::new(Notify::new());
    let mut tasks = JoinSet::new();
    let lease = lease::renew(Arc::clone(&node), welcomed.trusted, Arc::clone(&lapsed));
    tasks.spawn(lease.instrument(span.clone()));
    let measure = measure::measure(Arc::clone(&node), Arc::clone(&oldest_pin_ms));
    tasks.spawn(measure.instrument(span.clone()));
    let connected = Arc::new(Notify::new());
    let comeback = comeback::Comeback {
        node: Arc::clone(&node),
        events: events.clone(),
        connected: Arc::clone(&connected),
        timeout: options.timeout,
    };
    tasks.spawn(comeback.run().instrument(span.clone()));
    let keeper = Keeper {
        node: Arc::clone(&node),
        profile,
        options: options.clone(),
        line: Arc::clone(&line),
        events: events.clone(),
        lapsed,
        connected,
    };
    tasks.spawn(keeper.keep(welcomed).instrument(span));
    let connection = Connection { line, _tasks: tasks };
    Ok(Arc::new(Attached::new(node, options, profile_path, connection, events, oldest_pin_ms)))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
