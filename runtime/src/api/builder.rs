//! How a runtime attaches.

use super::commit::Level;
use super::error::AttachError;
use super::runtime::Runtime;
use crate::driver;
use kiln_engine::OnReturn;
use kiln_protocol::profile::Profile;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

const HEAP_BYTES: usize = 256 << 20;
const OUTBOX_BYTES: usize = 64 << 20;
const JOURNAL_BYTES: usize = 16 << 20;
const TIMEOUT: Duration = Duration::from_secs(10);

/// What an operation does that needs the coordinator while the connection is lost. Locks that this node holds need it
/// not, as long as the lease lasts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Away {
    /// Fails at once.
    Fail,
    /// Waits this long, or until its own deadline if that is sooner, for the connection.
    Block(Duration),
    /// Reads answer from what is resident here, and say that it is stale ([`ReadGuard::is_stale`](crate::ReadGuard::is_stale),
    /// [`Shared::state`](crate::Shared::state)); everything else fails at once.
    LocalReads,
    /// Goes on alone, from the lapse of this node's lease until the cluster is back. Until the lapse this node goes on
    /// under the locks that it has, and whatever needs the coordinator waits. Commits that are on their way when it lapses
    /// are local as well, and asked for on the return: none is made twice. One of a level above `Applied` is unknown
    /// instead.
    ///
    /// Alone, objects are read, changed, made (`get_or_create`) and removed here, and nowhere else: what was changed is
    /// [`State::Local`](crate::State::Local), commits say that they [are local](crate::Commit::is_local), reads are
    /// marked stale, and locks hold among the tasks of this process only. Named locks cannot be had, keys not listed, and
    /// objects neither inserted, renamed nor, where they are not resident, read. A change of a level above
    /// `Applied` is refused.
    ///
    /// Changes are kept in a journal in memory ([`Builder::journal_bytes`]): a process that ends loses them. What becomes
    /// of them on the return is `on_return`'s to say; [`ClusterEvent::Returned`](crate::ClusterEvent::Returned) tells when
    /// it is done, [`Runtime::take_conflicts`] what was not done again.
    LocalReadWrite {
        /// What becomes of what was done alone.
        on_return: OnReturn,
    },
}

impl Away {
    /// What becomes of what is done alone, if anything may be.
    pub(super) const fn on_return(self) -> Option<OnReturn> {
        match self {
            Self::LocalReadWrite { on_return } => Some(on_return),
            Self::Fail | Self::Block(_) | Self::LocalReads => None,
        }
    }

    /// Whether reads may answer from what is resident.
    pub(super) const fn reads_locally(self) -> bool {
        matches!(self, Self::LocalReads | Self::LocalReadWrite { .. })
    }

    /// What becomes of a commit over objects whose handles say this.
    pub(super) fn together(all: impl Iterator<Item = Self>) -> Option<OnReturn> {
        all.map(Self::on_return).min().flatten()
    }
}

impl Default for Away {
    /// Blocks for 10 s.
    fn default() -> Self {
        Self::Block(TIMEOUT)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) node_name: String,
    pub(crate) heap_bytes: usize,
    pub(crate) outbox_bytes: usize,
    pub(crate) journal_bytes: usize,
    pub(crate) timeout: Duration,
    pub(crate) level: Level,
    pub(crate) away: Away,
}

#[derive(Clone, Debug)]
enum Source {
    File(PathBuf),
    Profile(Profile),
}

/// Attaches a runtime with other settings than the defaults.
#[derive(Clone, Debug)]
pub struct Builder {
    options: Options,
    source: Source,
    #[cfg(feature = "embedded")]
    embedded: crate::embedded::EmbeddedOptions,
}

impl Builder {
    pub(super) fn new() -> Self {
        let program = std::env::current_exe().ok();
        let program =
            program.as_deref().and_then(Path::file_name).map_or_else(|| "kiln".into(), |name| name.to_string_lossy());
        let options = Options {
            node_name: format!("{program}-{}", std::process::id()),
            heap_bytes: HEAP_BYTES,
            outbox_bytes: OUTBOX_BYTES,
            journal_bytes: JOURNAL_BYTES,
            timeout: TIMEOUT,
            level: Level::default(),
            away: Away::default(),
        };
        Self {
            options,
            source: Source::File("kiln.toml".into()),
            #[cfg(feature = "embedded")]
            embedded: crate::embedded::EmbeddedOptions::default(),
        }
    }

    /// The file with the client profile. Default: `kiln.toml`.
    #[must_use]
    pub fn profile(mut self, path: impl AsRef<Path>) -> Self {
        self.source = Source::File(path.as_ref().to_owned());
        self
    }

    /// The client profile itself.
    #[must_use]
    pub fn with_profile(mut self, profile: Profile) -> Self {
        self.source = Source::Profile(profile);
        self
    }

    /// The node's name, for people. Default: the program's name and process id.
    #[must_use]
    pub fn node_name(mut self, name: impl Into<String>) -> Self {
        self.options.node_name = name.into();
        self
    }

    /// How many bytes of objects this process keeps. Address space is reserved, memory is used as needed.
    /// Default: 256 MiB.
    #[must_use]
    pub const fn heap_bytes(mut self, bytes: usize) -> Self {
        self.options.heap_bytes = bytes;
        self
    }

    /// How many bytes of unacknowledged commits are kept before commits wait. Default: 64 MiB.
    #[must_use]
    pub const fn outbox_bytes(mut self, bytes: usize) -> Self {
        self.options.outbox_bytes = bytes;
        self
    }

    /// How many bytes of local changes are kept while the cluster is away, and of conflicts that nobody has taken
    /// ([`Away::LocalReadWrite`]). When they are full, local commits fail with `JournalFull`. Default: 16 MiB.
    #[must_use]
    pub const fn journal_bytes(mut self, bytes: usize) -> Self {
        self.options.journal_bytes = bytes;
        self
    }

    /// The deadline of everything that waits, where none is given. Default: 10 s.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = timeout;
        self
    }

    /// How safe a commit is when it returns, where no level is given. Default: [`Level::Applied`].
    #[must_use]
    pub const fn level(mut self, level: Level) -> Self {
        self.options.level = level;
        self
    }

    /// What operations do while the cluster is away. Default: `Away::Block` for 10 s.
    #[must_use]
    pub const fn away(mut self, away: Away) -> Self {
        self.options.away = away;
        self
    }

    /// Attaches. The driver's tasks run in the tokio runtime that this is called in.
    ///
    /// # Errors
    /// [`AttachError`].
    pub async fn attach(self) -> Result<Runtime, AttachError> {
        let (profile, path) = match self.source {
            Source::Profile(profile) => (profile, None),
            Source::File(path) => (read_profile(&path)?, Some(path)),
        };
        let attached = driver::attach(profile, path, self.options).await?;
        Ok(Runtime { attached })
    }
}

#[cfg(feature = "embedded")]
impl Builder {
    /// Where the embedded coordinator listens. Default: a free port of 127.0.0.1.
    #[must_use]
    pub const fn listen(mut self, address: std::net::SocketAddr) -> Self {
        self.embedded.listen = address;
        self
    }

    /// Where the embedded coordinator keeps its CA and writes the profile; objects are in memory. Default: a temporary
    /// directory.
    #[must_use]
    pub fn directory(mut self, directory: impl AsRef<Path>) -> Self {
        (self.embedded.directory, self.embedded.data) = (Some(directory.as_ref().to_owned()), false);
        self
    }

    /// As [`Builder::directory`], and the objects are kept there: the next process that gives this directory finds them.
    /// One process at a time.
    #[must_use]
    pub fn data(mut self, directory: impl AsRef<Path>) -> Self {
        (self.embedded.directory, self.embedded.data) = (Some(directory.as_ref().to_owned()), true);
        self
    }

    /// Starts a coordinator in this process and attaches to it.
    ///
    /// # Errors
    /// [`AttachError`].
    pub async fn embedded(self) -> Result<Runtime, AttachError> {
        let server = crate::embedded::Embedded::start(self.embedded).await?;
        let (profile, path) = (server.profile(), server.profile_path());
        let attached = driver::attach(profile, Some(path), self.options).await?;
        attached.keep(server);
        Ok(Runtime { attached })
    }
}

fn read_profile(path: &Path) -> Result<Profile, AttachError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| AttachError::ProfileFile { path: path.to_owned(), error })?;
    if let Ok(metadata) = std::fs::metadata(path)
        && metadata.permissions().mode() & 0o077 != 0
    {
        tracing::warn!(path = %path.display(), "others can read the profile and its private key: give it mode 0600");
    }
    Profile::parse(&text).map_err(|error| AttachError::Profile { path: Some(path.to_owned()), error })
}
