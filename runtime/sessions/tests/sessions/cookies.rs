//! The cookie in a jar that keeps to the rules of browsers (RFC 6265).

use crate::http::Servers;
use crate::typed::router;
use cookie_store::CookieStore;
use kiln_sessions::{Cookie, SameSite, SessionLayer};
use kiln_tests::{Browser, Coordinator};
use std::net::SocketAddr;
use url::Url;

/// A browser that knows the nodes by the names of their hosts.
struct Visitor {
    hosts: [(&'static str, SocketAddr); 2],
    jar: CookieStore,
}

impl Visitor {
    async fn get(&mut self, url: &str) -> String {
        let url = Url::parse(url).unwrap();
        let (_, node) = *self.hosts.iter().find(|(host, _)| url.host_str() == Some(host)).unwrap();
        let cookies: Vec<_> =
            self.jar.get_request_values(&url).map(|(name, value)| format!("{name}={value}")).collect();
        let browser = Browser { cookie: (!cookies.is_empty()).then(|| cookies.join("; ")) };
        let answer = browser.ask(node, url.path()).await;
        for cookie in &answer.set_cookie {
            self.jar.parse(cookie, &url).unwrap();
        }
        answer.body
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_of_one_domain_share_a_session_where_the_cookie_says_so() {
    let (coordinator, mut servers) = (Coordinator::start().await, Servers::default());
    let (a, b) = coordinator.two_nodes().await;
    let shared = Cookie::named("shop").domain("shop.example").same_site(SameSite::Strict);
    for (cookie, elsewhere) in [(shared, "2"), (Cookie::named("own"), "none")] {
        let mut nodes = Vec::new();
        for kiln in [&a, &b] {
            nodes.push(servers.serve(router(kiln, SessionLayer::new(kiln).cookie(cookie.clone()))).await);
        }
        let hosts = [("www1.shop.example", nodes[0]), ("www2.shop.example", nodes[1])];
        let mut visitor = Visitor { hosts, jar: CookieStore::default() };
        assert_eq!(visitor.get("https://www1.shop.example/visit").await, "1");
        assert_eq!(visitor.get("https://www1.shop.example/visit").await, "2");
        assert_eq!(visitor.get("https://www2.shop.example/look").await, elsewhere, "{cookie:?}");
        // `Secure`: not without TLS.
        assert_eq!(visitor.get("http://www1.shop.example/look").await, "none");
        // The answer to a logout takes the cookie out of the jar.
        visitor.get("https://www1.shop.example/logout").await;
        assert_eq!(visitor.jar.iter_unexpired().count(), 0, "{cookie:?}");
        assert_eq!(visitor.get("https://www2.shop.example/look").await, "none");
    }
}
