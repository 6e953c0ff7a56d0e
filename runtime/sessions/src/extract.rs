//! Axum: the extractor, and errors as answers.

use crate::{Session, SessionError};
use axum_core::extract::FromRequestParts;
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;
use kiln::Clustered;

impl<S: Send + Sync, T: Clustered + Default> FromRequestParts<S> for Session<T> {
    type Rejection = SessionError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, SessionError> {
        Self::of(&parts.extensions).await
    }
}

impl IntoResponse for SessionError {
    fn into_response(self) -> Response {
        let status = self.status();
        let text = match status {
            StatusCode::UNAUTHORIZED => "Your session has ended.",
            StatusCode::SERVICE_UNAVAILABLE => "Your session cannot be reached right now.",
            _ => "Something is wrong with this page.",
        };
        if status != StatusCode::UNAUTHORIZED {
            tracing::warn!(error = %self, "a request failed for its session");
        }
        (status, text).into_response()
    }
}
