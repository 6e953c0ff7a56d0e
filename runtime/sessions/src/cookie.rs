//! The cookie that carries a session's id.

use crate::SessionId;
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use std::fmt::Write as _;
use std::time::Duration;

/// Whether the cookie comes along when another site leads to this one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SameSite {
    /// Never.
    Strict,
    /// With links that are followed, not with forms and scripts of other sites.
    Lax,
    /// Always. Browsers take such a cookie only with `Secure`.
    None,
}

/// How the cookie is made. What is not said is the safe choice: `Secure`, `HttpOnly`, `SameSite=Lax`, the whole path, this
/// host alone, gone with the browser, and with the prefix `__Host-` on its name as long as browsers allow it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cookie {
    bare_name: String,
    domain: Option<String>,
    path: String,
    secure: bool,
    http_only: bool,
    same_site: SameSite,
    max_age: Option<Duration>,
    prefix: bool,
    /// With its prefix.
    name: String,
}

impl Default for Cookie {
    fn default() -> Self {
        Self::named("session")
    }
}

impl Cookie {
    /// A cookie of this name.
    ///
    /// # Panics
    /// When a cookie cannot have this name: it is not made of letters, digits, `-`, `_` and `.`, or it begins with `__Host-`
    /// (which comes by itself) or `__Secure-`.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        let name = name.into();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        assert!(!name.is_empty() && name.bytes().all(is_plain), "`{name}` is no name for a cookie");
        let begins_with =
            |prefix: &str| name.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix));
        assert!(
            !begins_with("__Host-") && !begins_with("__Secure-"),
            "`{name}`: the prefix is put before the name where browsers allow it"
        );
        let cookie = Self {
            bare_name: name,
            domain: None,
            path: "/".to_owned(),
            secure: true,
            http_only: true,
            same_site: SameSite::Lax,
            max_age: None,
            prefix: true,
            name: String::new(),
        };
        cookie.renamed()
    }

    /// The domain whose hosts share the cookie: with `example.com`, `www1.example.com` and `www2.example.com` have the
    /// same session. Without one, this host alone.
    ///
    /// # Panics
    /// When it is no domain's name.
    #[must_use]
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        let domain = domain.into();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        assert!(!domain.is_empty() && domain.bytes().all(is_plain), "`{domain}` is no domain");
        self.domain = Some(domain);
        self.renamed()
    }

    /// The path below which the cookie is sent. Default: `/`.
    ///
    /// # Panics
    /// When it does not begin with `/`, or has a character that ends a cookie's setting.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        let path = path.into();
        let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b';';
        assert!(path.starts_with('/') && path.bytes().all(is_plain), "`{path}` is no path");
        self.path = path;
        self.renamed()
    }

    /// Whether the cookie is sent over TLS alone. Default: yes. Browsers make an exception for `localhost`, most of them.
    #[must_use]
    pub fn secure(mut self, secure: bool) -> Self {
        self.secure = secure;
        self.renamed()
    }

    /// Whether scripts cannot read it. Default: they cannot.
    #[must_use]
    pub const fn http_only(mut self, http_only: bool) -> Self {
        self.http_only = http_only;
        self
    }

    /// Default: `Lax`.
    #[must_use]
    pub const fn same_site(mut self, same_site: SameSite) -> Self {
        self.same_site = same_site;
        self
    }

    /// How long the browser keeps it, from the moment it is set; in whole seconds, at least one. Default: until the browser ends.
    #[must_use]
    pub const fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = Some(max_age);
        self
    }

    /// The name as it was given, even where browsers would allow `__Host-` before it.
    #[must_use]
    pub fn without_prefix(mut self) -> Self {
        self.prefix = false;
        self.renamed()
    }

    /// The name, with its prefix.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Why browsers would not keep it.
    pub(crate) fn refused_by_browsers(&self) -> Option<&'static str> {
        if self.same_site == SameSite::None && !self.secure {
            return Some("browsers drop a cookie with `SameSite=None` and without `Secure`: say `secure(true)`");
        }
        let is_over = self.max_age.is_some_and(|age| age.as_secs() == 0);
        is_over.then_some("browsers drop a cookie whose `Max-Age` is 0: say a second at least")
    }

    /// `__Host-` promises that this host has set the cookie, and not another of the domain.
    fn renamed(mut self) -> Self {
        let allowed = self.prefix && self.secure && self.domain.is_none() && self.path == "/";
        self.name = if allowed { format!("__Host-{}", self.bare_name) } else { self.bare_name.clone() };
        self
    }

    /// The ids that a request brings: of the cookies that have the name and the form, in their order.
    pub(crate) fn find<'h>(&'h self, headers: &'h HeaderMap) -> impl Iterator<Item = SessionId> + 'h {
        let (mut headers, mut rest) = (headers.get_all(COOKIE).iter(), [].as_slice());
        std::iter::from_fn(move || {
            loop {
                if let Some(id) = self.find_in(&mut rest) {
                    return Some(id);
                }
                rest = headers.next()?.as_bytes();
            }
        })
    }

    /// The next id in what is left of a header.
    fn find_in(&self, rest: &mut &[u8]) -> Option<SessionId> {
        while !rest.is_empty() {
            *rest = rest.trim_ascii_start();
            let value = rest.strip_prefix(self.name.as_bytes()).and_then(|rest| rest.strip_prefix(b"="));
            let found = value.and_then(SessionId::split_from);
            *rest = found.as_ref().map_or(*rest, |(_, behind)| behind.trim_ascii_start());
            let end = rest.iter().position(|byte| *byte == b';').unwrap_or(rest.len());
            *rest = rest.get(end + 1..).unwrap_or_default();
            if let Some((id, _)) = found
                && end == 0
            {
                return Some(id);
            }
        }
        None
    }

    /// The header's value that gives a visitor this session.
    pub(crate) fn set(&self, id: &SessionId) -> Option<HeaderValue> {
        self.header(id.expose(), self.max_age)
    }

    /// The header's value that takes the session away.
    pub(crate) fn clear(&self) -> Option<HeaderValue> {
        self.header("", Some(Duration::ZERO))
    }

    fn header(&self, value: &str, max_age: Option<Duration>) -> Option<HeaderValue> {
        let mut text = format!("{}={value}; Path={}", self.name, self.path);
        if let Some(domain) = &self.domain {
            text.push_str("; Domain=");
            text.push_str(domain);
        }
        if let Some(max_age) = max_age {
            write!(text, "; Max-Age={}", max_age.as_secs()).ok()?;
        }
        text.push_str(match self.same_site {
            SameSite::Strict => "; SameSite=Strict",
            SameSite::Lax => "; SameSite=Lax",
            SameSite::None => "; SameSite=None",
        });
        if self.http_only {
            text.push_str("; HttpOnly");
        }
        if self.secure {
            text.push_str("; Secure");
        }
        let mut header = HeaderValue::from_str(&text).ok()?;
        header.set_sensitive(true);
        Some(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(cookie: &Cookie) -> String {
        let id = SessionId::parse(&"0".repeat(40)).unwrap();
        cookie.set(&id).unwrap().to_str().unwrap().replace(&"0".repeat(40), "ID")
    }

    #[test]
    fn the_safe_choice_is_what_is_not_said() {
        assert_eq!(set(&Cookie::default()), "__Host-session=ID; Path=/; SameSite=Lax; HttpOnly; Secure");
    }

    #[test]
    fn the_prefix_goes_where_browsers_refuse_it() {
        let cookie = Cookie::named("shop");
        assert_eq!(cookie.name(), "__Host-shop");
        assert_eq!(cookie.clone().domain("example.com").name(), "shop");
        assert_eq!(cookie.clone().path("/shop").name(), "shop");
        assert_eq!(cookie.clone().secure(false).name(), "shop");
        assert_eq!(cookie.clone().without_prefix().name(), "shop");
        assert_eq!(cookie.secure(false).secure(true).name(), "__Host-shop");
    }

    #[test]
    fn every_setting_is_in_the_header() {
        let cookie = Cookie::named("s").domain("example.com").path("/a").http_only(false).same_site(SameSite::Strict);
        let cookie = cookie.max_age(Duration::from_secs(3600));
        assert_eq!(set(&cookie), "s=ID; Path=/a; Domain=example.com; Max-Age=3600; SameSite=Strict; Secure");
        let cleared = cookie.clear().unwrap();
        assert_eq!(cleared.to_str().unwrap(), "s=; Path=/a; Domain=example.com; Max-Age=0; SameSite=Strict; Secure");
    }

    #[test]
    fn the_id_is_found_among_other_cookies() {
        let cookie = Cookie::default();
        let id = SessionId::random().unwrap();
        let mut headers = HeaderMap::new();
        assert_eq!(cookie.find(&headers).next(), None);
        headers.append(COOKIE, HeaderValue::from_static("a=b; __Host-session=nonsense; session=c;; ;"));
        assert_eq!(cookie.find(&headers).next(), None);
        let longer = format!("__Host-session={}0; my__Host-session={}", id.expose(), id.expose());
        headers.append(COOKIE, HeaderValue::from_str(&longer).unwrap());
        assert_eq!(cookie.find(&headers).next(), None);
        headers.append(COOKIE, HeaderValue::from_str(&format!("x=y; __Host-session={} ;z", id.expose())).unwrap());
        let other = SessionId::random().unwrap();
        headers.append(COOKIE, HeaderValue::from_str(&format!("__Host-session={}", other.expose())).unwrap());
        assert_eq!(cookie.find(&headers).collect::<Vec<_>>(), [id, other]);
    }

    #[test]
    fn what_browsers_would_drop_is_known() {
        let cookie = Cookie::default().same_site(SameSite::None);
        assert_eq!(cookie.refused_by_browsers(), None);
        assert!(cookie.clone().secure(false).refused_by_browsers().is_some());
        let cookie = cookie.secure(false).same_site(SameSite::Lax);
        assert_eq!(cookie.clone().max_age(Duration::from_secs(1)).refused_by_browsers(), None);
        assert!(cookie.max_age(Duration::from_millis(999)).refused_by_browsers().is_some());
    }

    #[test]
    #[should_panic(expected = "the prefix is put before the name where browsers allow it")]
    fn a_prefix_is_not_part_of_the_name() {
        drop(Cookie::named("__host-shop").domain("example.com"));
    }

    #[test]
    #[should_panic(expected = "is no name for a cookie")]
    fn a_name_cannot_end_the_cookie() {
        drop(Cookie::named("a;b"));
    }
}
