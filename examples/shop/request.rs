//! What is read from a request: the form, the host.

use crate::trouble::Trouble;
use axum::Form;
use axum::extract::{FromRequest, Request};
use axum::http::header::HOST;
use axum::http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;

/// A form, filled in as the page has it.
pub(crate) struct Filled<F>(pub(crate) F);

impl<S: Send + Sync, F: DeserializeOwned> FromRequest<S> for Filled<F> {
    type Rejection = Trouble;

    async fn from_request(request: Request, state: &S) -> Result<Self, Trouble> {
        let Form(form) = Form::from_request(request, state).await.map_err(|error| {
            let is_too_long = error.status() == StatusCode::PAYLOAD_TOO_LARGE;
            Trouble::BadForm(if is_too_long {
                "That is too long."
            } else {
                "The form is not filled in as it should be."
            })
        })?;
        Ok(Self(form))
    }
}

/// The session's cookie. Cookies belong to a host, not to a port: both nodes get it.
pub(crate) const COOKIE_NAME: &str = "kiln-shop";

/// The name by which the visitor reached this node, without the port: the other node has the cookie only under the same
/// name. Anything that is not plainly a host's name is not repeated into a page.
pub(crate) fn host(headers: &HeaderMap) -> &str {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.split_once(':').map_or(host, |(name, _port)| name);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    if !name.is_empty() && name.bytes().all(plain) { name } else { "127.0.0.1" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use std::collections::BTreeMap;

    fn headers(host: &'static str) -> HeaderMap {
        [(HOST, HeaderValue::from_static(host))].into_iter().collect()
    }

    #[tokio::test]
    async fn a_form_that_is_not_filled_in_gets_a_page() {
        let post = |body: &'static str| {
            let request = Request::post("/").header("content-type", "application/x-www-form-urlencoded");
            request.body(axum::body::Body::from(body)).unwrap()
        };
        let form = Filled::<BTreeMap<String, u32>>::from_request(post("quantity=2"), &()).await;
        assert!(form.is_ok_and(|Filled(form)| form["quantity"] == 2));
        let bad = Filled::<BTreeMap<String, u32>>::from_request(post("quantity=many"), &()).await;
        assert!(matches!(bad, Err(Trouble::BadForm(_))));
    }

    #[test]
    fn only_a_plain_host_is_repeated() {
        assert_eq!(host(&headers("localhost:8081")), "localhost");
        assert_eq!(host(&headers("my-box.example")), "my-box.example");
        for hostile in ["", ":80", "a\"onclick=", "<b>", "[::1]:8081", "evil/path"] {
            assert_eq!(host(&headers(hostile)), "127.0.0.1", "{hostile}");
        }
        assert_eq!(host(&HeaderMap::new()), "127.0.0.1");
    }
}
