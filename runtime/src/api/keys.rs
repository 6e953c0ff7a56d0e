//! The keys of a root, page by page.

use super::error::AccessError;
use super::root::Root;
use bytes::Bytes;
use kiln_engine::KeysPage;
use kiln_object::{Clustered, Key};
use kiln_protocol::limits::KEYS_PAGE_MAX;

/// Pages through the keys of a root.
#[derive(Debug)]
pub struct Keys<K, T> {
    root: Root<K, T>,
    after: Option<Bytes>,
    done: bool,
}

impl<K: Key, T: Clustered> Keys<K, T> {
    pub(super) const fn of(root: Root<K, T>) -> Self {
        Self { root, after: None, done: false }
    }

    /// The next keys, at most `limit` (0: as many as fit) of them; empty at the end. Keys that come and go meanwhile
    /// may or may not be seen.
    ///
    /// # Errors
    /// [`AccessError`]; the next call asks for the same page again.
    pub async fn next_page(&mut self, limit: usize) -> Result<Vec<K>, AccessError> {
        if self.done {
            return Ok(Vec::new());
        }
        let limit = if limit == 0 { KEYS_PAGE_MAX } else { limit.min(KEYS_PAGE_MAX) };
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let KeysPage { keys, more } = self.root.keys_after(self.after.clone(), limit).await?;
        self.done = !more;
        self.after = keys.last().cloned().or_else(|| self.after.take());
        let decoded = keys.iter().map(|key| {
            K::decode(key).ok_or_else(|| AccessError::BadRecord { what: format!("a key is not valid: {key:?}") })
        });
        decoded.collect()
    }
}
