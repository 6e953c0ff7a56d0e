//! A coordinator in this process. The only place where the runtime knows the coordinator.

use crate::api::AttachError;
use kiln_coordinator::server::{Options, Server, Storage};
use kiln_coordinator::store::SyncPolicy;
use kiln_protocol::profile::Profile;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use temporary::Temporary;

mod temporary;

/// How an embedded coordinator starts.
#[derive(Clone, Debug)]
pub(crate) struct EmbeddedOptions {
    pub(crate) listen: SocketAddr,
    pub(crate) directory: Option<PathBuf>,
    /// Keep the objects there, too.
    pub(crate) data: bool,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self { listen: (Ipv4Addr::LOCALHOST, 0).into(), directory: None, data: false }
    }
}

/// A running one; dropping it stops it.
#[derive(Debug)]
pub(crate) struct Embedded {
    server: Server,
    _temporary: Option<Temporary>,
}

impl Embedded {
    pub(crate) async fn start(options: EmbeddedOptions) -> Result<Self, AttachError> {
        let failed = |what: String| AttachError::Embedded { what };
        let (directory, temporary) = match options.directory {
            Some(directory) => (directory, None),
            None => {
                let made =
                    Temporary::new().map_err(|error| failed(format!("cannot make a temporary directory: {error}")))?;
                (made.path().to_owned(), Some(made))
            }
        };
        let storage = if options.data { Storage::Disk(SyncPolicy::Always) } else { Storage::Memory };
        let options = Options { listen: options.listen, directory, storage, ..Options::default() };
        let server = Server::start(options).await.map_err(|error| failed(error.to_string()))?;
        Ok(Self { server, _temporary: temporary })
    }

    pub(crate) fn profile(&self) -> Profile {
        self.server.profile().clone()
    }

    pub(crate) fn profile_path(&self) -> PathBuf {
        self.server.profile_path().to_owned()
    }

    pub(crate) async fn stop(self, deadline: Duration) {
        if let Err(error) = self.server.stop(deadline).await {
            tracing::warn!(%error, "the embedded coordinator did not stop cleanly");
        }
    }
}
