//! What a request can run into, and how the visitor is told.

use crate::pages;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use kiln::{CommitError, LockError};
use kiln_sessions::SessionError;

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
                (StatusCode::UNAUTHORIZED, page).into_response()
            }
            Self::BadForm(why) => (StatusCode::BAD_REQUEST, pages::notice("That did not work", why)).into_response(),
            Self::Cluster(why) => {
                let page = pages::notice("The shop is not reachable right now", &why);
                (StatusCode::SERVICE_UNAVAILABLE, page).into_response()
            }
        }
    }
}

impl From<SessionError> for Trouble {
    fn from(error: SessionError) -> Self {
        // A login in between has taken the session over: this request is of before it.
        let is_over = matches!(error, SessionError::Destroyed | SessionError::Rotated);
        if is_over { Self::LoggedOut } else { Self::Cluster(error.to_string()) }
    }
}

impl From<LockError> for Trouble {
    fn from(error: LockError) -> Self {
        SessionError::from(error).into()
    }
}

impl From<CommitError> for Trouble {
    fn from(error: CommitError) -> Self {
        SessionError::from(error).into()
    }
}
