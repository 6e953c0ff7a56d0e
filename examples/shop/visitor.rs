//! Who sent a request: found by the cookie before the handler begins, and before the request's body is read.

use crate::session::Session;
use crate::site::Site;
use crate::trouble::Trouble;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;

/// Anybody, with a session or without one.
pub(crate) struct Anybody(pub(crate) kiln_sessions::Session<Session>);

/// A visitor with a session. Everybody else is refused.
pub(crate) struct Visitor(pub(crate) kiln_sessions::Session<Session>);

impl FromRequestParts<Site> for Anybody {
    type Rejection = Trouble;

    async fn from_request_parts(parts: &mut Parts, _site: &Site) -> Result<Self, Trouble> {
        Ok(Self(kiln_sessions::Session::of(&parts.extensions).await?))
    }
}

impl FromRequestParts<Site> for Visitor {
    type Rejection = Trouble;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Self, Trouble> {
        let Anybody(session) = Anybody::from_request_parts(parts, site).await?;
        if session.exists() { Ok(Self(session)) } else { Err(Trouble::LoggedOut) }
    }
}
