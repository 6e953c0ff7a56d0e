//! What is read from a request, and written to an answer's head: the form, the session's cookie, the host.

use crate::trouble::Trouble;
use axum::Form;
use axum::extract::{FromRequest, Request};
use axum::http::header::{COOKIE, HOST};
use axum::http::{HeaderMap, StatusCode};
use ring::rand::{SecureRandom, SystemRandom};
use serde::de::DeserializeOwned;
use std::fmt::Write;

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

/// A new session's id, which is all that a visitor needs to be that visitor: 128 bits of the system's randomness in
/// hexadecimal. `None` when the system has none to give.
pub(crate) fn new_session_id() -> Option<String> {
    let mut random = [0_u8; 16];
    SystemRandom::new().fill(&mut random).ok()?;
    Some(random.iter().fold(String::with_capacity(32), |mut id, byte| {
        write!(id, "{byte:02x}").expect("a string takes what is written");
        id
    }))
}

/// The id in the request's cookie, if it has the form of one.
pub(crate) fn session_id(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|header| header.to_str().ok());
    let mut pairs = cookies.flat_map(|header| header.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let id = pairs.find_map(|(name, value)| (name == COOKIE_NAME).then_some(value))?;
    (id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))).then_some(id)
}

/// The header's value that gives a visitor this session. Scripts cannot read it, other sites cannot post with it.
pub(crate) fn set_cookie(id: &str) -> String {
    format!("{COOKIE_NAME}={id}; Path=/; HttpOnly; SameSite=Lax")
}

/// The header's value that takes the session away.
pub(crate) fn clear_cookie() -> String {
    format!("{COOKIE_NAME}=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0")
}

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
    use axum::http::{HeaderName, HeaderValue};
    use std::collections::BTreeMap;

    fn headers(name: HeaderName, values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_static(value))).collect()
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
    fn ids_are_new_and_are_read_back_from_the_cookie() {
        let (one, other) = (new_session_id().unwrap(), new_session_id().unwrap());
        assert_ne!(one, other);
        let header = set_cookie(&one);
        let (pair, settings) = header.split_once(';').unwrap();
        assert_eq!(settings, " Path=/; HttpOnly; SameSite=Lax");
        let mut request = HeaderMap::new();
        request.insert(COOKIE, HeaderValue::from_str(&format!("a=b; {pair}; c=d")).unwrap());
        assert_eq!(session_id(&request), Some(one.as_str()));
    }

    #[test]
    fn what_is_no_id_is_no_session() {
        for cookie in ["", "kiln-shop", "kiln-shop=", "kiln-shop=abc", "other=00000000000000000000000000000000"] {
            assert_eq!(session_id(&headers(COOKIE, &[cookie])), None, "{cookie}");
        }
        assert_eq!(session_id(&headers(COOKIE, &["kiln-shop=0123456789ABCDEF0123456789ABCDEF"])), None);
        assert_eq!(session_id(&HeaderMap::new()), None);
        let second = headers(COOKIE, &["a=b", "kiln-shop=0123456789abcdef0123456789abcdef"]);
        assert_eq!(session_id(&second), Some("0123456789abcdef0123456789abcdef"));
    }

    #[test]
    fn only_a_plain_host_is_repeated() {
        assert_eq!(host(&headers(HOST, &["localhost:8081"])), "localhost");
        assert_eq!(host(&headers(HOST, &["my-box.example"])), "my-box.example");
        for hostile in ["", ":80", "a\"onclick=", "<b>", "[::1]:8081", "evil/path"] {
            assert_eq!(host(&headers(HOST, &[hostile])), "127.0.0.1", "{hostile}");
        }
        assert_eq!(host(&HeaderMap::new()), "127.0.0.1");
    }
}
