//! Who sent a request: found by the cookie before the handler begins, and before the request's body is read.

use crate::request::session_id;
use crate::session::Session;
use crate::site::Site;
use crate::trouble::Trouble;
use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::http::request::Parts;
use kiln::Shared;

/// A visitor with a session. As an extractor it refuses everybody else; `Option<Visitor>` lets them in.
pub(crate) struct Visitor {
    pub(crate) id: String,
    pub(crate) session: Shared<Session>,
}

impl OptionalFromRequestParts<Site> for Visitor {
    type Rejection = Trouble;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Option<Self>, Trouble> {
        let Some(id) = session_id(&parts.headers) else { return Ok(None) };
        let session = site.session(id).await?;
        Ok(session.map(|session| Self { id: id.to_owned(), session }))
    }
}

impl FromRequestParts<Site> for Visitor {
    type Rejection = Trouble;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Self, Trouble> {
        let visitor = <Self as OptionalFromRequestParts<Site>>::from_request_parts(parts, site).await?;
        visitor.ok_or(Trouble::LoggedOut)
    }
}
