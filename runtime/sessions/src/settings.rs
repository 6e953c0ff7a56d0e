//! What the layer was told, and the root that it opens.

use crate::keys::KnownKeys;
use crate::{Cookie, LockMode, SessionError};
use kiln::{Away, Clustered, Level, Root, RootSettings, Runtime};
use tokio::sync::OnceCell;

/// The root of the sessions, where none is named.
const ROOT: &str = "sessions";

pub(crate) struct Settings<T: Clustered> {
    kiln: Runtime,
    pub(crate) root: String,
    pub(crate) cookie: Cookie,
    pub(crate) level: Level,
    pub(crate) away: Option<Away>,
    pub(crate) keys: KnownKeys,
    /// What all nodes agree on.
    pub(crate) agreed: RootSettings,
    pub(crate) lock_mode: LockMode,
    opened: OnceCell<Root<String, T>>,
}

impl<T: Clustered> Clone for Settings<T> {
    /// The same settings, with the root not opened yet.
    fn clone(&self) -> Self {
        Self {
            kiln: self.kiln.clone(),
            root: self.root.clone(),
            cookie: self.cookie.clone(),
            level: self.level,
            away: self.away,
            keys: KnownKeys::default(),
            agreed: self.agreed.clone(),
            lock_mode: self.lock_mode,
            opened: OnceCell::new(),
        }
    }
}

impl<T: Clustered> Settings<T> {
    pub(crate) fn new(kiln: &Runtime) -> Self {
        Self {
            kiln: kiln.clone(),
            root: ROOT.to_owned(),
            cookie: Cookie::default(),
            level: Level::Everywhere,
            away: None,
            keys: KnownKeys::default(),
            agreed: RootSettings::new().hashed_keys(),
            lock_mode: LockMode::default(),
            opened: OnceCell::new(),
        }
    }

    /// The root, opened at first use.
    pub(crate) async fn root(&self) -> Result<&Root<String, T>, SessionError> {
        let open = async {
            let root = self.kiln.root_with(&self.root, &self.agreed).await?;
            Ok(self.away.map_or_else(|| root.clone(), |away| root.with_away(away)))
        };
        self.opened.get_or_try_init(|| open).await
    }

    /// The root, if it is open.
    pub(crate) fn opened(&self) -> Option<&Root<String, T>> {
        self.opened.get()
    }
}
