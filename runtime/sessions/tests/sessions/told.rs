//! What is told of sessions, and what never is: their ids.

use crate::http::Servers;
use crate::typed::{Shop, layer, router};
use axum::Router;
use axum::routing::get;
use kiln::{Event, EventKind, SlotChange, Told};
use kiln_sessions::{Session, SessionError, SessionId, key_of};
use kiln_tests::{Browser, Coordinator, log, soon};

async fn put(session: Session<Shop>) -> Result<(), SessionError> {
    session.update(|shop| shop.cart.insert("mug".to_owned(), 1)).await
}

async fn take(session: Session<Shop>) -> Result<(), SessionError> {
    session.update(|shop| shop.cart.remove("mug")).await.map(drop)
}

/// An event in words, with what became of each attribute.
fn said(event: &Event<String>) -> String {
    match &event.kind {
        EventKind::Updated { slots, .. } => {
            let slots = slots.iter().map(|slot| {
                let change = match slot.change {
                    SlotChange::Added => "added",
                    SlotChange::Changed => "changed",
                    SlotChange::Removed => "removed",
                };
                match slot.entry::<String>() {
                    Some(entry) => format!("{}[{entry}] {change}", slot.field),
                    None => format!("{} {change}", slot.field),
                }
            });
            slots.collect::<Vec<_>>().join(", ")
        }
        EventKind::Renamed { .. } => "renamed".to_owned(),
        EventKind::Created => "created".to_owned(),
        EventKind::Removed => "removed".to_owned(),
        EventKind::Expired | EventKind::Gap => "something else".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_is_told_each_attribute_and_one_of_them_for_the_cluster() {
    let (coordinator, mut servers) = (Coordinator::start().await, Servers::default());
    let (kiln_a, kiln_b) = coordinator.two_nodes().await;
    let cart = Router::new().route("/put", get(put)).route("/take", get(take)).layer(layer(&kiln_a));
    let a = servers.serve(router(&kiln_a, layer(&kiln_a)).merge(cart)).await;
    let mut watches = [layer(&kiln_a).watch().await.unwrap(), layer(&kiln_b).watch().await.unwrap()];
    let mut mail = layer(&kiln_a).listen("mail").await.unwrap();
    let mut other = layer(&kiln_b).listen("mail").await.unwrap();
    let mut browser = Browser::default();
    for path in ["/visit", "/visit", "/put", "/put", "/take", "/login", "/logout"] {
        assert_eq!(browser.get(a, path).await.status, 200, "{path}");
    }
    let expected = [
        "created",
        "visits changed",
        "visits changed",
        "cart[mug] added",
        "cart[mug] changed",
        "cart[mug] removed",
        "renamed",
        "user changed",
        "removed",
    ];
    for watch in &mut watches {
        for expected in expected {
            assert_eq!(said(&soon("an event", watch.next()).await.unwrap()), expected);
        }
    }
    for expected in expected {
        let notice = soon("an event", mail.next()).await.unwrap();
        let Told::Event(event) = notice.told() else { panic!("{:?}", notice.told()) };
        assert_eq!((said(event).as_str(), notice.redelivered()), (expected, false));
        notice.acknowledge();
    }
    // The other one of the group was told nothing of all that.
    drop(mail);
    browser.get(a, "/visit").await;
    let notice = soon("an event", other.next()).await.unwrap();
    let Told::Event(event) = notice.told() else { panic!("{:?}", notice.told()) };
    assert_eq!((said(event).as_str(), notice.redelivered()), ("created", false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_id_is_ever_logged() {
    log::listen_to_all();
    let (coordinator, mut servers) = (Coordinator::start().await, Servers::default());
    let (kiln_a, kiln_b) = coordinator.two_nodes().await;
    let a = servers.serve(router(&kiln_a, layer(&kiln_a))).await;
    let b = servers.serve(router(&kiln_b, layer(&kiln_b))).await;
    let mut browser = Browser { cookie: Some(format!("__Host-shop={}", SessionId::random().unwrap().expose())) };
    let mut cookies = Vec::new();
    for (node, path) in [(a, "/look"), (a, "/visit"), (b, "/login"), (b, "/visit"), (a, "/renew"), (b, "/logout")] {
        cookies.extend(browser.cookie.clone());
        assert_eq!(browser.get(node, path).await.status, 200, "{path}");
    }
    // And where something goes wrong.
    let mut late = Browser::default();
    late.get(a, "/visit").await;
    cookies.extend(late.cookie.clone());
    kiln_a.detach(std::time::Duration::from_secs(5)).await.unwrap();
    assert_eq!(late.ask(a, "/visit").await.status, 503);
    let lines = log::lines();
    assert!(!lines.is_empty());
    let ids: Vec<_> = cookies.iter().filter_map(|cookie| cookie.split_once('=')).map(|(_, id)| id).collect();
    assert!(ids.len() >= 6, "{ids:?}");
    for id in ids {
        assert!(!lines.iter().any(|line| line.contains(id)), "an id is in the log");
        assert!(!format!("{:?}", SessionId::parse(id).unwrap()).contains(id));
        assert!(!key_of(id).contains(id));
    }
}
