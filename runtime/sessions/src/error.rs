//! What can go wrong with a session.

use http::StatusCode;
use kiln::{AccessError, CommitError, Failure, LockError, RootError, UpdateError};

/// Why a session could not be had or changed. As an answer of axum it is a [`status`](Self::status) with a short text that
/// tells nothing of the cluster; the cause is logged.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The session was destroyed meanwhile, here or on another node: somebody logged out. It is not brought back.
    #[error("the session has ended")]
    Destroyed,
    /// Another request has given the session a new id meanwhile ([`Session::rotate`](crate::Session::rotate)). The visitor's next
    /// request brings that one; who knew the old one only has no session.
    #[error("the session has got a new id, which this request does not bring")]
    Rotated,
    /// The root of the sessions cannot be opened.
    #[error("the sessions cannot be opened: {0}")]
    Root(#[from] RootError),
    /// The session cannot be had, made, renamed or removed.
    #[error("the session cannot be reached: {0}")]
    Access(AccessError),
    /// Its lock was not taken.
    #[error("the session is not locked: {0}")]
    Lock(LockError),
    /// The change was not committed; see [`CommitError`] for when that is unknown.
    #[error("the session's change is not committed: {0}")]
    Commit(CommitError),
    /// The lock that a `SessionLock` asked for is not the one it was asked for before.
    #[error("the request has asked for another lock of its session already")]
    OtherLock,
    /// The lock that a `SessionLock` asked for is none that the layer's lock mode allows.
    #[error(
        "the lock mode is `{mode}`, which does not allow the lock of this route: give `SessionLayer::lock_mode` one that does, on \
         every node; a root that exists keeps its mode, so take another `SessionLayer::root` with it"
    )]
    OtherLockMode {
        /// The word for the layer's lock mode.
        mode: &'static str,
    },
    /// The request holds a lock of its session, and would wait for itself.
    #[error(
        "the request holds a lock of its session, so that its read lock is not to be had: use `view` or `get` under it"
    )]
    OwnLock,
    /// The system has no randomness to give for an id.
    #[error("the system gives no random numbers")]
    NoRandomness,
    /// Every new id was in use: the system's random numbers are not random.
    #[error("every new session id was in use already")]
    IdsInUse,
    /// The request came by no [`SessionLayer`](crate::SessionLayer) of this type.
    #[error("the route has no `SessionLayer` for this type of session")]
    NoLayer,
}

impl SessionError {
    /// The answer to the visitor: 401 when the session has ended, 409 when it has got a new id, 503 when the cluster does not do it now, 500 for mistakes
    /// of the program, and for nodes that do not agree.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Destroyed => StatusCode::UNAUTHORIZED,
            Self::Rotated => StatusCode::CONFLICT,
            Self::OtherLock
            | Self::OtherLockMode { .. }
            | Self::OwnLock
            | Self::NoLayer
            | Self::Root(
                RootError::Bind(_)
                | RootError::OtherType { .. }
                | RootError::Access(AccessError::Refused(
                    Failure::RootChanged { .. } | Failure::FieldChanged { .. } | Failure::Schema { .. },
                )),
            )
            | Self::Lock(LockError::UnknownGroup { .. })
            | Self::Commit(
                CommitError::NotLocked { .. }
                | CommitError::BadWrite { .. }
                | CommitError::Value(_)
                | CommitError::TooLarge { .. },
            )
            | Self::Access(
                AccessError::TooLarge { .. }
                | AccessError::Value(_)
                | AccessError::BadRecord { .. }
                | AccessError::KeyTooLong { .. },
            ) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Root(_) | Self::Access(_) | Self::Lock(_) | Self::Commit(_) | Self::NoRandomness | Self::IdsInUse => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }
}

impl From<AccessError> for SessionError {
    fn from(error: AccessError) -> Self {
        if matches!(error, AccessError::Refused(Failure::Destroyed { .. }) | AccessError::Removed) {
            return Self::Destroyed;
        }
        Self::Access(error)
    }
}

impl From<LockError> for SessionError {
    fn from(error: LockError) -> Self {
        if let LockError::Fetch(error) = error {
            return error.into();
        }
        if matches!(error, LockError::Destroyed) { Self::Destroyed } else { Self::Lock(error) }
    }
}

impl From<CommitError> for SessionError {
    fn from(error: CommitError) -> Self {
        if matches!(error, CommitError::Destroyed) { Self::Destroyed } else { Self::Commit(error) }
    }
}

impl From<UpdateError> for SessionError {
    fn from(error: UpdateError) -> Self {
        match error {
            UpdateError::Lock(error) => error.into(),
            UpdateError::Commit(error) => error.into(),
        }
    }
}
