//! The thin driver: one QUIC connection, one stream, and the clock. All decisions are the engine's.
//!
//! Its tasks live in the tokio runtime of the program, so that a commit and its answer need no wake-up of another
//! thread: the task that commits wakes the writer on its own worker. They end when the connection does.

mod connect;
mod measure;
mod stream;
mod tls;

use crate::api::AttachError;
use crate::api::internals::{Attached, Options};
use kiln_engine::{Node, Settings};
use kiln_heap::Heap;
use kiln_protocol::profile::Profile;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::task::JoinSet;
use tracing::Instrument;

/// The tasks and the connection of a runtime; dropping it ends both.
#[derive(Debug)]
pub(crate) struct Connection {
    endpoint: quinn::Endpoint,
    _tasks: JoinSet<()>,
}

impl Connection {
    pub(crate) fn close(&self) {
        self.endpoint.close(quinn::VarInt::from_u32(0), b"detached");
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
    let welcomed = connect::connect(&profile, &options).await?;
    let settings =
        Settings { epoch: welcomed.epoch, incarnation: welcomed.incarnation, outbox_bytes_max: options.outbox_bytes };
    let node = Arc::new(Node::new(settings, heap));
    let span = tracing::info_span!("node", name = %options.node_name, incarnation = %welcomed.incarnation);
    span.in_scope(|| tracing::info!(address = %profile.address, epoch = %welcomed.epoch, "attached"));
    let oldest_pin_ms = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    let read = stream::read(Arc::clone(&node), welcomed.receive, welcomed.connection.clone());
    tasks.spawn(read.instrument(span.clone()));
    let write = stream::write(Arc::clone(&node), welcomed.send);
    tasks.spawn(write.instrument(span.clone()));
    let measure = measure::measure(Arc::clone(&node), Arc::clone(&oldest_pin_ms));
    tasks.spawn(measure.instrument(span));
    let connection = Connection { endpoint: welcomed.endpoint, _tasks: tasks };
    Ok(Arc::new(Attached::new(node, options, profile_path, connection, oldest_pin_ms)))
}
