//! The store for actix-session.

use crate::http::{
    ROUNDS, Rendezvous, Servers, Slow, assert_no_resurrection, assert_no_resurrection_under_another_id, lost_of_400,
};
use actix_session::config::CookieContentSecurity;
use actix_session::storage::{CookieSessionStore, SessionKey, SessionStore};
use actix_session::{Session, SessionMiddleware};
use actix_web::cookie::Key;
use actix_web::cookie::time::Duration;
use actix_web::web::{Data, Path, get};
use actix_web::{App, HttpServer, Responder};
use kiln_sessions::ActixStore;
use kiln_tests::{Browser, Coordinator};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

const TTL: Duration = Duration::minutes(30);

async fn set(key: Path<String>, session: Session, both: Data<Rendezvous>) -> impl Responder {
    both.0.wait().await;
    session.insert(key.as_str(), 1).unwrap();
    ""
}

async fn count(session: Session) -> impl Responder {
    let keys = (0..ROUNDS).flat_map(|round| ["a", "b"].map(|name| format!("{name}{round}")));
    keys.filter(|key| session.contains_key(key)).count().to_string()
}

async fn begin(session: Session) -> impl Responder {
    session.insert("begun", 1).unwrap();
    ""
}

async fn slow(session: Session, slow: Data<Slow>) -> impl Responder {
    slow.wait().await;
    session.insert("late", 1).unwrap();
    ""
}

async fn slow_login(session: Session, slow: Data<Slow>) -> impl Responder {
    slow.wait().await;
    session.insert("late", 1).unwrap();
    session.renew();
    ""
}

async fn logout(session: Session) -> impl Responder {
    session.purge();
    ""
}

async fn login(session: Session) -> impl Responder {
    session.renew();
    ""
}

async fn is(key: Path<String>, session: Session) -> impl Responder {
    session.contains_key(&key).to_string()
}

/// What the nodes of a site share.
struct Site {
    key: Key,
    both: Rendezvous,
    slow: Slow,
}

impl Default for Site {
    fn default() -> Self {
        Self { key: Key::generate(), both: Rendezvous::default(), slow: Slow::default() }
    }
}

impl Servers {
    fn serve_actix<S: SessionStore + 'static>(
        &mut self,
        site: &Site,
        store: impl Fn() -> S + Clone + Send + 'static,
    ) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (key, both, slow_request) = (site.key.clone(), site.both.clone(), site.slow.clone());
        let app = move || {
            let sessions = SessionMiddleware::builder(store(), key.clone());
            // The framework's own store keeps all in the cookie, so that it has to be short.
            let sessions = sessions.cookie_content_security(CookieContentSecurity::Private);
            App::new()
                .app_data(Data::new(both.clone()))
                .app_data(Data::new(slow_request.clone()))
                .wrap(sessions.build())
                .route("/begin", get().to(begin))
                .route("/set/{key}", get().to(set))
                .route("/count", get().to(count))
                .route("/slow", get().to(slow))
                .route("/slow-login", get().to(slow_login))
                .route("/logout", get().to(logout))
                .route("/login", get().to(login))
                .route("/is/{key}", get().to(is))
        };
        self.0.spawn(HttpServer::new(app).workers(1).disable_signals().listen(listener).unwrap().run());
        address
    }

    /// The site on two nodes with Kiln's store.
    async fn serve_two_actix(&mut self, site: &Site, coordinator: &Coordinator) -> [SocketAddr; 2] {
        let (a, b) = two_stores(coordinator).await;
        [self.serve_actix(site, move || a.clone()), self.serve_actix(site, move || b.clone())]
    }
}

async fn two_stores(coordinator: &Coordinator) -> (ActixStore, ActixStore) {
    let (a, b) = coordinator.two_nodes().await;
    (ActixStore::open(&a).await.unwrap(), ActixStore::open(&b).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_400_overlapping_writes_none_is_lost() {
    let (coordinator, mut servers, site) = (Coordinator::start().await, Servers::default(), Site::default());
    let with_kiln = servers.serve_two_actix(&site, &coordinator).await;
    let with_cookie = [
        servers.serve_actix(&site, CookieSessionStore::default),
        servers.serve_actix(&site, CookieSessionStore::default),
    ];
    let (kiln, cookie) = (lost_of_400(with_kiln).await, lost_of_400(with_cookie).await);
    println!("actix-session: of 400 overlapping writes CookieSessionStore lost {cookie}, Kiln {kiln}");
    assert_eq!((cookie, kiln), (200, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_request_does_not_bring_a_deleted_session_back() {
    let (coordinator, mut servers, site) = (Coordinator::start().await, Servers::default(), Site::default());
    let nodes = servers.serve_two_actix(&site, &coordinator).await;
    assert_no_resurrection(nodes, &site.slow).await;
    assert_no_resurrection_under_another_id(nodes, &site.slow).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_session_has_another_key_and_the_same_content() {
    let (coordinator, mut servers) = (Coordinator::start().await, Servers::default());
    let [a, b] = servers.serve_two_actix(&Site::default(), &coordinator).await;
    let mut browser = Browser::default();
    browser.get(a, "/begin").await;
    let old = browser.clone();
    browser.get(b, "/login").await;
    assert_eq!(old.ask(a, "/is/begun").await.body, "false");
    assert_eq!(browser.get(a, "/is/begun").await.body, "true");
    browser.get(b, "/logout").await;
    assert_eq!(browser.cookie, None);
}

#[expect(clippy::disallowed_types, reason = "the trait has it")]
fn state(entries: &[(&str, &str)]) -> std::collections::HashMap<String, String> {
    entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// What is stored, without the store's own entry.
async fn content(store: &ActixStore, key: &SessionKey) -> Option<Vec<(String, String)>> {
    let state = store.load(key).await.unwrap()?;
    let mut entries: Vec<_> = state.into_iter().filter(|(name, _)| name != "kiln.base").collect();
    entries.sort();
    Some(entries)
}

fn entries(entries: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
    Some(entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
}

fn copy(key: &SessionKey) -> SessionKey {
    key.as_ref().to_owned().try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_are_merged_by_keys() {
    let coordinator = Coordinator::start().await;
    let (a, b) = two_stores(&coordinator).await;
    let key = a.save(state(&[("kept", "1"), ("changed", "1"), ("removed", "1")]), &TTL).await.unwrap();
    let (mut one, mut other) = (a.load(&key).await.unwrap().unwrap(), b.load(&key).await.unwrap().unwrap());
    one.insert("changed".to_owned(), "2".to_owned());
    other.insert("new".to_owned(), "3".to_owned());
    other.remove("removed");
    assert_eq!(a.update(copy(&key), one, &TTL).await.unwrap(), key);
    assert_eq!(b.update(copy(&key), other, &TTL).await.unwrap(), key);
    assert_eq!(content(&a, &key).await, entries(&[("changed", "2"), ("kept", "1"), ("new", "3")]));
    // Cleared, and so without a base: what is saved replaces the session.
    b.update(copy(&key), state(&[("after", "4")]), &TTL).await.unwrap();
    assert_eq!(content(&a, &key).await, entries(&[("after", "4")]));
    let forged = state(&[("kiln.base", "nonsense")]);
    assert!(b.update(copy(&key), forged, &TTL).await.is_err());
    assert_eq!(content(&a, &key).await, entries(&[("after", "4")]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_session_stays_deleted() {
    let coordinator = Coordinator::start().await;
    let (a, b) = two_stores(&coordinator).await;
    let key = a.save(state(&[("n", "1")]), &TTL).await.unwrap();
    let late = a.load(&key).await.unwrap().unwrap();
    b.delete(&key).await.unwrap();
    a.update(copy(&key), late.clone(), &TTL).await.unwrap();
    a.update_ttl(&key, &TTL).await.unwrap();
    assert_eq!(content(&a, &key).await, None);
    let strict = a.fail_when_deleted();
    let renewed = late.clone();
    assert!(strict.update(copy(&key), late, &TTL).await.is_err());
    assert!(strict.update_ttl(&key, &TTL).await.is_err());
    // As `renew` does it.
    strict.delete(&key).await.unwrap();
    assert!(strict.save(renewed, &TTL).await.is_err());
    b.delete(&key).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expiry_is_moved_and_expired_sessions_can_be_removed() {
    let coordinator = Coordinator::start().await;
    let (a, b) = two_stores(&coordinator).await;
    let [kept, expired] = [a.save(state(&[]), &TTL).await.unwrap(), a.save(state(&[]), &TTL).await.unwrap()];
    b.update_ttl(&expired, &Duration::seconds(-1)).await.unwrap();
    assert_eq!(content(&a, &expired).await, None);
    assert_eq!(a.delete_expired().await.unwrap(), 1);
    assert_eq!(content(&b, &kept).await, entries(&[]));
    assert_eq!(b.delete_expired().await.unwrap(), 0);
}
