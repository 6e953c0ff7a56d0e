//! Roots whose keys are hashes.

use crate::{Running, kiln as command_of, run, serve};
use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::Request;
use http::header::SET_COOKIE;
use kiln::{Clustered, Level, Root, RootSettings, Runtime};
use kiln_sessions::{SessionError, SessionId, SessionLayer};
use tower_service::Service as _;

#[derive(Clustered, Default)]
#[clustered(rename = "HashedSession")]
struct Session {
    user: String,
}

#[tokio::test]
async fn get_takes_what_a_key_is_the_hash_of() {
    // `printf abc | sha256sum`
    let key = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let running = Running::start().await;
    let kiln = Runtime::builder().profile(running.server.profile_path()).attach().await.unwrap();
    let plain: Root<String, Session> = kiln.root("plain").await.unwrap();
    let sessions: Root<String, Session> = kiln.root_with("sessions", &RootSettings::new().hashed_keys()).await.unwrap();
    for root in [&plain, &sessions] {
        root.insert(key.to_owned(), Session { user: "ada".to_owned() }).await.unwrap();
    }
    for (root, text, code) in [
        ("sessions", "abc", Some(0)),
        ("sessions", key, Some(0)),
        ("sessions", "abd", Some(1)),
        ("plain", key, Some(0)),
        ("plain", "abc", Some(1)),
    ] {
        let said = running.kiln(&["get", root, text]).await;
        assert_eq!((said.code, said.out.contains("\"ada\"")), (code, code == Some(0)), "{root} {text}: {}", said.err);
    }
    let said = running.kiln(&["ls"]).await;
    assert_eq!(said.out.matches("hashed keys").count(), 1, "{}", said.out);
    // Who opens the root without a word about its keys has the same root.
    let elsewhere = Runtime::builder().profile(running.server.profile_path()).attach().await.unwrap();
    let same: Root<String, Session> = elsewhere.root("sessions").await.unwrap();
    assert!(same.get(key).await.unwrap().is_some());
}

async fn visit(session: kiln_sessions::Session<Session>) -> Result<(), SessionError> {
    session.update(|session| *session.user = "grace".to_owned()).await
}

#[tokio::test]
async fn the_session_of_a_visitor_is_found_by_the_id_in_the_cookie() {
    let directory = tempfile::tempdir().unwrap();
    let (_process, _, profile) = serve(directory.path(), &[]);
    let kiln = Runtime::builder().profile(directory.path().join(profile)).attach().await.unwrap();
    let sessions = SessionLayer::<Session>::new(&kiln).level(Level::Durable);
    let mut site = Router::new().route("/", get(visit)).layer(sessions);
    let answer = site.call(Request::new(Body::empty())).await.unwrap();
    let cookie = answer.headers()[SET_COOKIE].to_str().unwrap();
    let id = cookie.split(['=', ';']).nth(1).unwrap();
    let stranger = SessionId::random().unwrap();
    for (command, id, code) in [
        ("get", id, Some(0)),
        ("log", id, Some(0)),
        ("get", stranger.expose(), Some(1)),
        ("log", stranger.expose(), Some(0)), // nothing has happened to it
    ] {
        let said = run(command_of(directory.path(), &[command, "sessions", id]));
        assert_eq!(said.code, code, "{command}: {}{}", said.out, said.err);
        assert_eq!(said.out.contains("\"grace\""), id != stranger.expose(), "{command}: {}{}", said.out, said.err);
    }
}
