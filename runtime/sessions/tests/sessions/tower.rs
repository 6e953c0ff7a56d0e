//! The store for tower-sessions, with both of its cores.

use crate::http::{
    Rendezvous, Servers, Slow, assert_no_resurrection, assert_no_resurrection_under_another_id, lost_of_400,
};
use axum::extract::Path;
use axum::routing::get;
use axum::{Extension, Router};
use kiln::{Away, ClusterEvent, OnReturn};
use kiln_sessions::TowerSessionsStore;
use kiln_tests::{Browser, Coordinator, Proxy, Weather, soon, until};
use serde_json::json;
use std::net::SocketAddr;
use time::{Duration, OffsetDateTime};

/// One trait in two crates: every test with both.
macro_rules! with {
    ($version:ident, $tower_sessions:ident) => {
        mod $version {
            use super::*;
            use $tower_sessions::session::{Id, Record};
            use $tower_sessions::session_store::ExpiredDeletion;
            use $tower_sessions::{MemoryStore, Session, SessionManagerLayer, SessionStore};

            async fn set(Path(key): Path<String>, session: Session, Extension(both): Extension<Rendezvous>) {
                session.get::<bool>(&key).await.unwrap();
                both.0.wait().await;
                session.insert(&key, true).await.unwrap();
            }

            async fn count(session: Session) -> String {
                session.get::<bool>("begun").await.unwrap();
                let mut there = 0;
                for round in 0..crate::http::ROUNDS {
                    for name in ["a", "b"] {
                        there += usize::from(session.get::<bool>(&format!("{name}{round}")).await.unwrap().is_some());
                    }
                }
                there.to_string()
            }

            async fn slow(session: Session, Extension(slow): Extension<Slow>) {
                session.get::<bool>("begun").await.unwrap();
                slow.wait().await;
                session.insert("late", true).await.unwrap();
            }

            async fn slow_login(session: Session, slow_request: Extension<Slow>) {
                slow(session.clone(), slow_request).await;
                session.cycle_id().await.unwrap();
                // What is saved once more is saved to the new one.
                session.save().await.unwrap();
                session.insert("later", true).await.unwrap();
            }

            async fn login_slow(session: Session, slow_request: Extension<Slow>) {
                session.cycle_id().await.unwrap();
                slow_request.wait().await;
            }

            async fn logout_and_more(session: Session) {
                session.flush().await.unwrap();
                session.insert("after", true).await.unwrap();
            }

            fn router(store: impl SessionStore + Clone) -> Router {
                Router::new()
                    .route("/begin", get(async |session: Session| session.insert("begun", true).await.unwrap()))
                    .route("/set/{key}", get(set))
                    .route("/count", get(count))
                    .route("/slow", get(slow))
                    .route("/slow-login", get(slow_login))
                    .route("/login-slow", get(login_slow))
                    .route("/logout-and-more", get(logout_and_more))
                    .route("/try-logout", get(async |session: Session| session.flush().await.is_ok().to_string()))
                    .route("/write/{key}", get(async |Path(key): Path<String>, session: Session| {
                        session.insert(&key, true).await.unwrap();
                    }))
                    .route("/logout", get(async |session: Session| session.flush().await.unwrap()))
                    .route("/login", get(async |session: Session| session.cycle_id().await.unwrap()))
                    .route(
                        "/clear",
                        get(async |session: Session| {
                            session.clear().await;
                            session.insert("after", true).await.unwrap();
                        }),
                    )
                    .route("/is/{key}", get(async |Path(key): Path<String>, session: Session| {
                        session.get::<bool>(&key).await.unwrap().is_some().to_string()
                    }))
                    .layer(SessionManagerLayer::new(store))
            }

            async fn two_stores(coordinator: &Coordinator) -> (TowerSessionsStore, TowerSessionsStore) {
                let (a, b) = coordinator.two_nodes().await;
                (TowerSessionsStore::open(&a).await.unwrap(), TowerSessionsStore::open(&b).await.unwrap())
            }

            async fn two_sites(servers: &mut Servers, coordinator: &Coordinator) -> (SocketAddr, SocketAddr) {
                let (a, b) = two_stores(coordinator).await;
                (servers.serve(router(a)).await, servers.serve(router(b)).await)
            }

            fn record(data: serde_json::Value) -> Record {
                let data = serde_json::from_value(data).unwrap();
                Record { id: Id::default(), data, expiry_date: OffsetDateTime::now_utc() + Duration::minutes(30) }
            }

            /// A record as a request gets it.
            async fn loaded(store: &TowerSessionsStore, id: Id) -> Record {
                SessionStore::load(store, &id).await.unwrap().unwrap()
            }

            async fn created(store: &TowerSessionsStore, data: serde_json::Value) -> Id {
                let mut record = record(data);
                SessionStore::create(store, &mut record).await.unwrap();
                record.id
            }

            async fn content(store: &TowerSessionsStore, id: Id) -> serde_json::Value {
                serde_json::to_value(loaded(store, id).await.data).unwrap()
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn of_400_overlapping_writes_none_is_lost() {
                let (coordinator, mut servers) = (Coordinator::start().await, Servers::default());
                let (a, b) = two_stores(&coordinator).await;
                let own = MemoryStore::default();
                let both = Extension(Rendezvous::default());
                let with_kiln = [
                    servers.serve(router(a).layer(both.clone())).await,
                    servers.serve(router(b).layer(both.clone())).await,
                ];
                // Both servers are in this process, so the framework's own store can be one for both.
                let with_memory = [
                    servers.serve(router(own.clone()).layer(both.clone())).await,
                    servers.serve(router(own).layer(both)).await,
                ];
                let (kiln, memory) = (lost_of_400(with_kiln).await, lost_of_400(with_memory).await);
                println!("tower-sessions {}: of 400 overlapping writes MemoryStore lost {memory}, Kiln {kiln}", stringify!($version));
                assert_eq!((memory, kiln), (200, 0));
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn a_slow_request_does_not_bring_a_deleted_session_back() {
                let (coordinator, mut servers, slow) = (Coordinator::start().await, Servers::default(), Slow::default());
                let (a, b) = two_stores(&coordinator).await;
                let a = servers.serve(router(a).layer(Extension(slow.clone()))).await;
                let b = servers.serve(router(b)).await;
                assert_no_resurrection([a, b], &slow).await;
                assert_no_resurrection_under_another_id([a, b], &slow).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn of_two_that_change_an_id_at_once_the_first_keeps_the_session() {
                let (coordinator, mut servers, slow) = (Coordinator::start().await, Servers::default(), Slow::default());
                let (a, _b) = two_stores(&coordinator).await;
                let a = servers.serve(router(a).layer(Extension(slow.clone()))).await;
                let mut browser = Browser::default();
                browser.get(a, "/begin").await;
                let second = slow.ask(&browser, a, "/slow-login").await;
                let first = slow.ask(&browser, a, "/login-slow").await;
                let mut other = browser.clone();
                other.keep(&second.go_on().await);
                browser.keep(&first.go_on().await);
                assert_eq!(other.ask(a, "/is/late").await.body, "true");
                assert_eq!(other.ask(a, "/is/begun").await.body, "false");
                assert_eq!(browser.ask(a, "/is/begun").await.body, "true");
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn what_is_written_after_a_logout_has_another_id() {
                let (coordinator, mut servers) = (Coordinator::start().await, Servers::default());
                let (a, b) = two_sites(&mut servers, &coordinator).await;
                let mut browser = Browser::default();
                browser.get(a, "/begin").await;
                let old = browser.clone();
                browser.get(a, "/logout-and-more").await;
                assert_ne!(browser.cookie, old.cookie);
                for (browser, after) in [(&browser, "true"), (&old, "false")] {
                    assert_eq!(browser.ask(b, "/is/after").await.body, after);
                    assert_eq!(browser.ask(b, "/is/begun").await.body, "false");
                }
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn a_node_that_is_alone_goes_on_where_it_may() {
                let coordinator = Coordinator::with(|options| options.tuning.lease = std::time::Duration::from_secs(1)).await;
                let mut servers = Servers::default();
                let proxy = Proxy::before(coordinator.profile(), 1);
                let kiln = coordinator.builder_through(&proxy, "a").timeout(std::time::Duration::from_secs(1));
                let kiln = kiln.away(Away::LocalReadWrite { on_return: OnReturn::Replay }).attach().await.unwrap();
                let a = servers.serve(router(TowerSessionsStore::open(&kiln).await.unwrap())).await;
                let (mut browser, mut stays, mut new) = (Browser::default(), Browser::default(), Browser::default());
                browser.get(a, "/begin").await;
                stays.get(a, "/begin").await;
                let mut events = kiln.events();
                proxy.set(Weather::cut());
                let disabled = async { while events.next().await != Some(ClusterEvent::OperationsDisabled) {} };
                soon("the cluster is away", disabled).await;
                assert_eq!(stays.ask(a, "/write/alone").await.status, 200);
                assert_eq!(stays.ask(a, "/is/alone").await.body, "true");
                new.get(a, "/begin").await;
                assert_eq!(new.ask(a, "/is/begun").await.body, "true");
                // It holds here, and the visitor is told that it may not hold elsewhere.
                assert_eq!(browser.get(a, "/try-logout").await.body, "false");
                assert_eq!(browser.ask(a, "/is/begun").await.body, "false");
                proxy.heal();
                let elsewhere = coordinator.node("b").await;
                let b = servers.serve(router(TowerSessionsStore::open(&elsewhere).await.unwrap())).await;
                until("the cluster has it", || async { stays.ask(b, "/is/alone").await.body == "true" }).await;
                until("the new one too", || async { new.ask(b, "/is/begun").await.body == "true" }).await;
                assert_eq!(browser.ask(b, "/is/begun").await.body, "false");
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn a_session_can_be_cleared_before_it_is_read_and_get_another_id() {
                let (coordinator, mut servers) = (Coordinator::start().await, Servers::default());
                let (a, b) = two_sites(&mut servers, &coordinator).await;
                let mut browser = Browser::default();
                browser.get(a, "/begin").await;
                let old = browser.clone();
                browser.get(b, "/login").await;
                assert_ne!(browser.cookie, old.cookie);
                assert_eq!(old.ask(a, "/is/begun").await.body, "false");
                assert_eq!(browser.get(a, "/is/begun").await.body, "true");
                browser.get(b, "/clear").await;
                assert_eq!(browser.get(a, "/is/begun").await.body, "false");
                assert_eq!(browser.get(a, "/is/after").await.body, "true");
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn a_record_comes_back_as_it_was() {
                let coordinator = Coordinator::start().await;
                let (a, b) = two_stores(&coordinator).await;
                let mut new = record(json!({"n": 1, "deep": {"list": [1, null, "x"]}, "": "empty key"}));
                SessionStore::create(&a, &mut new).await.unwrap();
                assert_eq!(SessionStore::load(&b, &new.id).await.unwrap(), Some(new.clone()));
                new.data.insert("n".into(), json!(2));
                new.expiry_date += Duration::nanoseconds(1_000_000_001);
                SessionStore::save(&a, &new).await.unwrap();
                assert_eq!(SessionStore::load(&b, &new.id).await.unwrap(), Some(new.clone()));
                SessionStore::delete(&b, &new.id).await.unwrap();
                assert_eq!(SessionStore::load(&a, &new.id).await.unwrap(), None);
                assert_eq!(SessionStore::load(&a, &Id::default()).await.unwrap(), None);
                SessionStore::delete(&a, &new.id).await.unwrap();
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn an_id_in_use_is_not_taken() {
                let coordinator = Coordinator::start().await;
                let (a, b) = two_stores(&coordinator).await;
                let first = created(&a, json!({"whose": "first"})).await;
                let mut second = record(json!({"whose": "second"}));
                second.id = first;
                SessionStore::create(&b, &mut second).await.unwrap();
                assert_ne!(second.id, first);
                assert_eq!(content(&b, first).await, json!({"whose": "first"}));
                assert_eq!(content(&a, second.id).await, json!({"whose": "second"}));
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn saves_are_merged_by_top_level_keys() {
                let coordinator = Coordinator::start().await;
                let (a, b) = two_stores(&coordinator).await;
                let id = created(&a, json!({"kept": 1, "changed": 1, "both": {"x": 1}, "removed": 1, "gone": 1})).await;
                let (mut one, mut other) = (loaded(&a, id).await, loaded(&b, id).await);
                one.data.insert("changed".into(), json!(2));
                one.data.insert("both".into(), json!({"x": 2}));
                one.data.remove("gone");
                other.data.insert("new".into(), json!(3));
                other.data.insert("both".into(), json!({"y": 3}));
                other.data.remove("removed");
                SessionStore::save(&a, &one).await.unwrap();
                SessionStore::save(&b, &other).await.unwrap();
                // The later one wins a key that both changed, with its whole value.
                let merged = json!({"kept": 1, "changed": 2, "both": {"y": 3}, "new": 3});
                assert_eq!(content(&a, id).await, merged);
                // A second save of the same record counts from the first.
                let mut third = loaded(&b, id).await;
                third.data.insert("changed".into(), json!(4));
                SessionStore::save(&b, &third).await.unwrap();
                one.data.insert("again".into(), json!(5));
                SessionStore::save(&a, &one).await.unwrap();
                let merged = json!({"kept": 1, "changed": 4, "both": {"y": 3}, "new": 3, "again": 5});
                assert_eq!(content(&b, id).await, merged);
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn a_save_after_the_deletion_saves_nothing_or_fails() {
                let coordinator = Coordinator::start().await;
                let (a, b) = two_stores(&coordinator).await;
                let id = created(&a, json!({"n": 1})).await;
                let late = loaded(&a, id).await;
                SessionStore::delete(&b, &id).await.unwrap();
                SessionStore::save(&a, &late).await.unwrap();
                assert_eq!(SessionStore::load(&a, &id).await.unwrap(), None);
                let strict = a.clone().fail_when_deleted();
                let error = SessionStore::save(&strict, &late).await.unwrap_err();
                assert!(error.to_string().contains("deleted meanwhile"), "{error}");
                // As `cycle_id` does it.
                SessionStore::delete(&a, &id).await.unwrap();
                let mut renewed = Record { id: Id::default(), ..late };
                let error = SessionStore::create(&strict, &mut renewed).await.unwrap_err();
                assert!(error.to_string().contains("deleted meanwhile"), "{error}");
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn a_save_whose_base_is_gone_fails_and_changes_nothing() {
                let coordinator = Coordinator::start().await;
                let (a, b) = two_stores(&coordinator).await;
                let a = a.bases_max(1);
                let id = created(&b, json!({"n": 1})).await;
                // Never loaded: the record is the whole session.
                let mut fresh = record(json!({"n": 2}));
                fresh.id = id;
                SessionStore::save(&a, &fresh).await.unwrap();
                assert_eq!(content(&b, id).await, json!({"n": 2}));
                // Loaded, but another one was since.
                let mut old = loaded(&a, id).await;
                loaded(&a, id).await;
                old.data.insert("late".into(), json!(1));
                let error = SessionStore::save(&a, &old).await.unwrap_err();
                assert!(error.to_string().contains("not known any more"), "{error}");
                assert_eq!(content(&b, id).await, json!({"n": 2}));
                // What is emptied is emptied.
                old.data.clear();
                SessionStore::save(&a, &old).await.unwrap();
                assert_eq!(content(&b, id).await, json!({}));
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn expired_sessions_are_not_loaded_and_can_be_removed() {
                let coordinator = Coordinator::start().await;
                let (a, b) = two_stores(&coordinator).await;
                let mut expired = record(json!({}));
                expired.expiry_date = OffsetDateTime::now_utc() - Duration::seconds(1);
                SessionStore::create(&a, &mut expired).await.unwrap();
                let alive = created(&a, json!({"n": 1})).await;
                assert_eq!(SessionStore::load(&b, &expired.id).await.unwrap(), None);
                ExpiredDeletion::delete_expired(&b).await.unwrap();
                assert_eq!(content(&b, alive).await, json!({"n": 1}));
                let kiln = coordinator.node("look").await;
                let sessions: kiln::Root<String, crate::tower::Anything> = kiln.root("sessions").await.unwrap();
                let alive = kiln_sessions::key_of(&alive.to_string());
                assert_eq!(sessions.keys().next_page(0).await.unwrap(), std::slice::from_ref(&alive));
                // Some that cannot be looked at do not keep the others.
                let mut ids = Vec::new();
                for _ in 0..4 {
                    expired.expiry_date = OffsetDateTime::now_utc() - Duration::seconds(1);
                    SessionStore::create(&a, &mut expired).await.unwrap();
                    ids.push(kiln_sessions::key_of(&expired.id.to_string()));
                }
                ids.sort();
                let busy = sessions.get(&ids[0]).await.unwrap().unwrap();
                let busy = busy.write().await.unwrap();
                let hurried = coordinator.builder("hurried").timeout(std::time::Duration::from_millis(200));
                let hurried = TowerSessionsStore::open(&hurried.attach().await.unwrap()).await.unwrap();
                ExpiredDeletion::delete_expired(&hurried).await.unwrap();
                drop(busy);
                let mut left = [alive, ids.remove(0)];
                left.sort();
                assert_eq!(sessions.keys().next_page(0).await.unwrap(), left);
            }
        }
    };
}

/// The type of the stored sessions, as far as these tests have to know it.
#[derive(kiln::Clustered, Default)]
#[clustered(rename = "KilnStoredSession")]
pub(crate) struct Anything {
    pub(crate) expires_secs: i64,
}

with!(v0_14, tower_sessions_014);
with!(v0_15, tower_sessions_015);
