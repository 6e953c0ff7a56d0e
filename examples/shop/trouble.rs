//! What a request can run into, and how the visitor is told.

use crate::pages;
use crate::request::clear_cookie;
use axum::http::StatusCode;
use axum::http::header::SET_COOKIE;
use axum::response::{IntoResponse, Response};
use kiln::{AccessError, CommitError, Failure, LockError, UpdateError};

/// Why a request was not done.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// There is no session, or there is none any more: somebody logged out meanwhile, here or on another node.
    LoggedOut,
    /// The form makes no sense.
    BadForm(&'static str),
    /// The cluster did not do it.
    Cluster(String),
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        match self {
            Self::LoggedOut => {
                let page = pages::notice("You are logged out", "Your session has ended.");
                (StatusCode::UNAUTHORIZED, [(SET_COOKIE, clear_cookie())], page).into_response()
            }
            Self::BadForm(why) => (StatusCode::BAD_REQUEST, pages::notice("That did not work", why)).into_response(),
            Self::Cluster(why) => {
                let page = pages::notice("The shop is not reachable right now", &why);
                (StatusCode::SERVICE_UNAVAILABLE, page).into_response()
            }
        }
    }
}

impl From<AccessError> for Trouble {
    fn from(error: AccessError) -> Self {
        if matches!(error, AccessError::Refused(Failure::Destroyed { .. })) {
            return Self::LoggedOut;
        }
        Self::Cluster(error.to_string())
    }
}

impl From<LockError> for Trouble {
    fn from(error: LockError) -> Self {
        if let LockError::Fetch(error) = error {
            return error.into();
        }
        if matches!(error, LockError::Destroyed) {
            return Self::LoggedOut;
        }
        Self::Cluster(error.to_string())
    }
}

impl From<CommitError> for Trouble {
    fn from(error: CommitError) -> Self {
        if matches!(error, CommitError::Destroyed) {
            return Self::LoggedOut;
        }
        Self::Cluster(error.to_string())
    }
}

impl From<UpdateError> for Trouble {
    fn from(error: UpdateError) -> Self {
        match error {
            UpdateError::Lock(error) => error.into(),
            UpdateError::Commit(error) => error.into(),
        }
    }
}
