//! axum-login on the store for tower-sessions.

use crate::http::Servers;
use axum::Router;
use axum::routing::get;
use axum_login::{AuthManagerLayerBuilder, AuthSession, AuthUser, AuthnBackend};
use kiln_sessions::TowerSessionsStore;
use kiln_tests::{Browser, Coordinator};
use std::convert::Infallible;
use tower_sessions_014::SessionManagerLayer;

#[derive(Clone, Debug)]
struct User(String);

impl AuthUser for User {
    type Id = String;

    fn id(&self) -> String {
        self.0.clone()
    }

    fn session_auth_hash(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

#[derive(Clone)]
struct Users;

impl AuthnBackend for Users {
    type User = User;
    type Credentials = String;
    type Error = Infallible;

    async fn authenticate(&self, name: String) -> Result<Option<User>, Infallible> {
        Ok(Some(User(name)))
    }

    async fn get_user(&self, name: &String) -> Result<Option<User>, Infallible> {
        Ok(Some(User(name.clone())))
    }
}

async fn login(mut auth: AuthSession<Users>) {
    let user = auth.authenticate("ada".to_owned()).await.unwrap().unwrap();
    auth.login(&user).await.unwrap();
}

async fn logout(mut auth: AuthSession<Users>) {
    auth.logout().await.unwrap();
}

async fn who(auth: AuthSession<Users>) -> String {
    auth.user.map_or_else(|| "nobody".to_owned(), |user| user.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_logs_in_on_one_node_is_known_on_the_other_until_the_logout() {
    let (coordinator, mut servers) = (Coordinator::start().await, Servers::default());
    let (kiln_a, kiln_b) = coordinator.two_nodes().await;
    let mut nodes = Vec::new();
    for kiln in [&kiln_a, &kiln_b] {
        let sessions = SessionManagerLayer::new(TowerSessionsStore::open(kiln).await.unwrap());
        let site = Router::new().route("/login", get(login)).route("/logout", get(logout)).route("/who", get(who));
        nodes.push(servers.serve(site.layer(AuthManagerLayerBuilder::new(Users, sessions).build())).await);
    }
    let (a, b) = (nodes[0], nodes[1]);
    let mut browser = Browser::default();
    assert_eq!(browser.get(a, "/who").await.body, "nobody");
    assert_eq!(browser.get(a, "/login").await.status, 200);
    for node in [a, b] {
        assert_eq!(browser.ask(node, "/who").await.body, "ada");
    }
    let before = browser.clone();
    assert_eq!(browser.get(b, "/logout").await.status, 200);
    for node in [a, b] {
        assert_eq!(before.ask(node, "/who").await.body, "nobody");
    }
}
