//! Changes that cannot be archived, and so stay in the process that made them.

use crate::left_out::{Picture, no_text};
use crate::reconnect::Net;
use kiln::{
    Away, Clustered, Commit, CommitError, Distribution, Level, Map, OnReturn, Root, Runtime, Shared, State, UpdateError,
};
use kiln_tests::{Coordinator, Weather, soon, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

#[derive(Clustered, Default)]
#[clustered(rename = "TestPage", on_archive_failure = "keep_local")]
struct Page {
    title: String,
    visits: u64,
    #[clustered(archive = "picture-1")]
    picture: Picture,
    notes: Map<String, u32>,
    #[clustered(lock = "cart")]
    cart: Map<String, u32>,
    #[clustered(counter)]
    clicks: i64,
    #[clustered(nested)]
    imprint: Imprint,
    #[clustered(archive = "picture-1", on_archive_failure = "stop")]
    seal: Picture,
}

#[derive(Clustered, Default)]
#[clustered(rename = "TestImprint")]
struct Imprint {
    #[clustered(on_archive_failure = "keep_local")]
    text: String,
}

fn picture() -> Picture {
    Picture { path: "mug.png".into() }
}

/// Longer than a field may be.
fn too_long() -> String {
    "x".repeat((15 << 20) + 1)
}

struct Pages {
    _coordinator: Coordinator,
    a: Runtime,
    _b: Runtime,
    here: Shared<Page>,
    other: Shared<Page>,
    on_b: Root<String, Page>,
}

async fn pages() -> Pages {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let on_a: Root<String, Page> = a.root("pages").await.unwrap();
    let on_b: Root<String, Page> = b.root("pages").await.unwrap();
    let here = on_a.get_or_create("p", Page::default).await.unwrap();
    let other = on_b.get_or_create("p", Page::default).await.unwrap();
    Pages { _coordinator: coordinator, a, _b: b, here, other, on_b }
}

async fn change(page: &Shared<Page>, change: impl FnOnce(&mut PageMut<'_>)) -> Commit {
    let mut guard = page.write().await.unwrap();
    change(&mut guard);
    guard.commit_with(Level::Everywhere).await.unwrap()
}

fn left_out(page: &Shared<Page>) -> Vec<String> {
    page.left_out().iter().map(|error| error.field().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_changes_stay_here_until_the_field_can_be_archived() {
    let pages = pages().await;
    let Pages { here, other, .. } = &pages;
    change(here, |page| {
        page.title.set("pots".to_owned());
        page.notes.insert("old".to_owned(), 1);
        page.cart.insert("jug".to_owned(), 1);
        page.clicks.add(5);
    })
    .await;
    assert_eq!(here.distribution(), Distribution::Distributed);

    let kept = change(here, |page| {
        page.title.set("bowls".to_owned());
        page.picture.set(no_text());
        page.notes.insert("new".to_owned(), 2);
        page.notes.insert("gone".to_owned(), 2);
        page.cart.insert("mug".to_owned(), 1);
        page.clicks.add(1);
    });
    let kept = kept.await;
    assert!(kept.is_local && kept.seq.is_none());
    assert_eq!((here.distribution(), left_out(here)), (Distribution::KeptLocal, vec!["picture".to_owned()]));
    // Later changes stay here as well, and see the ones before.
    let kept = change(here, |page| {
        assert_eq!((page.title.as_str(), page.notes.get("new")), ("bowls", Some(2)));
        *page.visits += 1;
        page.notes.remove("old");
        page.notes.remove("gone");
        page.cart.clear();
        page.cart.insert("cup".to_owned(), 3);
    });
    assert!(kept.await.is_local);
    here.clicks().add(10).unwrap();
    let notes = |page: &Shared<Page>| page.get(|page| page.notes().iter().map(|(key, _)| key).collect::<Vec<_>>());
    assert_eq!(here.get(|page| (page.title().to_owned(), page.visits(), page.clicks())), ("bowls".into(), 1, 16));
    assert_eq!((notes(here), here.clicks().get()), (vec!["new".to_owned()], 16));

    // The other nodes go on with what they have, and what they change is seen here beneath what is kept.
    change(other, |page| {
        assert_eq!((page.title.as_str(), *page.visits, page.notes.len(), page.clicks.get()), ("pots", 0, 1, 5));
        page.title.set("plates".to_owned());
        page.notes.insert("theirs".to_owned(), 9);
        page.imprint.text.set("Ada".to_owned());
        page.clicks.add(100);
    })
    .await;
    assert_eq!(here.get(|page| (page.title().to_owned(), page.clicks())), ("bowls".into(), 116));
    assert_eq!((notes(here), here.view().imprint().text()), (vec!["new".to_owned(), "theirs".to_owned()], "Ada"));

    // With a value that can be archived, everybody has all of it.
    let commit = change(here, |page| page.picture.set(picture())).await;
    assert!(!commit.is_local && commit.seq.is_some());
    assert_eq!(here.distribution(), Distribution::Distributed);
    for page in [here, other] {
        let view = page.view();
        assert_eq!((view.title(), view.visits(), view.clicks(), &*view.picture().path), ("bowls", 1, 116, "mug.png"));
        assert_eq!(view.cart().iter().collect::<Vec<_>>(), [("cup".to_owned(), 3)]);
        drop(view);
        assert_eq!(notes(page), ["new", "theirs"]);
        assert!(left_out(page).is_empty());
    }
    here.clicks().add(1).unwrap();
    change(here, |page| *page.visits += 1).await;
    until("the other has the click", || async { other.clicks().get() == 117 }).await;
    assert_eq!(other.view().visits(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_only_too_long_is_shown_here() {
    let pages = pages().await;
    let Pages { here, other, .. } = &pages;
    let kept = change(here, |page| {
        page.imprint.text.set(too_long());
        *page.visits = 7;
    });
    assert!(kept.await.is_local);
    assert_eq!(here.get(|page| (page.imprint().text().len(), page.visits())), ((15 << 20) + 1, 7));
    let why = here.left_out();
    assert!(
        why[0].to_string().starts_with("field `imprint.text` cannot be stored: it takes 15728641 bytes"),
        "{why:?}"
    );
    assert_eq!(other.get(|page| (page.imprint().text().len(), page.visits())), (0, 0));
    // Shortened by who can see it.
    change(here, |page| page.imprint.text.truncate(3)).await;
    for page in [here, other] {
        assert_eq!(page.get(|page| (page.imprint().text().to_owned(), page.visits())), ("xxx".to_owned(), 7));
    }
    assert!(left_out(here).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_is_not_distributed_any_more_never_is_again() {
    let pages = pages().await;
    let Pages { here, other, on_b, .. } = &pages;
    change(here, |page| page.seal.set(no_text())).await;
    assert_eq!((here.distribution(), left_out(here)), (Distribution::Stopped, vec!["seal".to_owned()]));
    change(here, |page| {
        page.seal.set(picture());
        page.title.set("bowls".to_owned());
    })
    .await;
    here.clicks().add(1).unwrap();
    assert_eq!(here.distribution(), Distribution::Stopped);
    assert_eq!(here.get(|page| (page.title().to_owned(), page.clicks())), ("bowls".to_owned(), 1));
    assert_eq!(other.get(|page| (page.title().to_owned(), page.clicks())), (String::new(), 0));
    // A logout elsewhere holds here nevertheless.
    assert!(on_b.remove_everywhere("p").await.unwrap());
    assert_eq!(here.state(), State::Destroyed);
    assert!(matches!(here.clicks().add(1), Err(CommitError::Destroyed)));
    assert!(matches!(here.write().await, Err(kiln::LockError::Destroyed)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_is_distributed_under_the_locks_of_all_of_it() {
    let pages = pages().await;
    let Pages { here, other, .. } = &pages;
    let mut guard = here.write_group("cart").await.unwrap();
    guard.cart.insert("jug".to_owned(), 1);
    guard.cart.insert("x".repeat(2000), 1);
    // The changes of a map are left out together, and so this keeps nothing but the word that the session is local.
    assert!(guard.commit().await.unwrap().is_local);
    let mut guard = here.write_group("cart").await.unwrap();
    guard.cart.insert("cup".to_owned(), 1);
    assert!(!guard.commit().await.unwrap().is_local, "all that is kept is in this group");
    assert_eq!(other.read().await.unwrap().view().cart().len(), 1);

    change(here, |page| {
        page.picture.set(no_text());
        page.cart.insert("pot".to_owned(), 1);
    })
    .await;
    let mut guard = here.write_group("default").await.unwrap();
    guard.picture.set(picture());
    assert!(guard.commit().await.unwrap().is_local, "the cart is not locked");
    assert_eq!(other.read().await.unwrap().view().cart().len(), 1);
    change(here, |page| *page.visits += 1).await;
    let view = other.view();
    assert_eq!((view.cart().len(), &*view.picture().path, view.visits()), (2, "mug.png", 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_of_several_objects_is_not_half_kept() {
    let pages = pages().await;
    let Pages { a, here, other, .. } = &pages;
    let on_a: Root<String, Page> = a.root("pages").await.unwrap();
    let second = on_a.get_or_create("q", Page::default).await.unwrap();
    let both = || async {
        let (mut one, mut two) = (here.write().await.unwrap(), second.write().await.unwrap());
        *one.visits += 1;
        *two.visits += 1;
        (one, two)
    };
    let (mut one, two) = both().await;
    one.picture.set(no_text());
    assert!(matches!(a.commit((one, two)).await, Err(CommitError::Value(error)) if error.field() == "picture"));
    assert_eq!((here.distribution(), here.view().visits()), (Distribution::Distributed, 0));

    change(here, |page| page.picture.set(no_text())).await;
    assert!(matches!(a.commit(both().await).await, Err(CommitError::KeptLocal)));
    let done = a.transaction(async |tx| {
        *tx.write(&second).await?.visits += 1;
        *tx.write(here).await?.visits += 1;
        Ok::<_, kiln::LockError>(())
    });
    let refused = done.await.unwrap_err();
    assert!(matches!(refused, kiln::TransactionError::Commit(CommitError::KeptLocal)), "{refused}");
    assert_eq!((here.view().visits(), second.view().visits(), other.view().visits()), (0, 0, 0));
    // Under a lock of its own it is a commit like any other.
    let lock = here.lock().await.unwrap();
    let mut guard = lock.write().await.unwrap();
    *guard.visits += 1;
    guard.picture.set(picture());
    assert!(!guard.commit_with(Level::Everywhere).await.unwrap().is_local);
    assert_eq!(other.view().visits(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_fails_as_a_whole_keeps_nothing() {
    let pages = pages().await;
    let Pages { here, .. } = &pages;
    let mut guard = here.write_group("cart").await.unwrap();
    guard.picture.set(no_text());
    guard.title.set("bowls".to_owned());
    assert!(matches!(guard.commit().await, Err(CommitError::NotLocked { field: "title", .. })));
    assert_eq!((here.distribution(), here.view().title()), (Distribution::Distributed, ""));
    let panicked = here.try_update(|page| {
        page.picture.set(no_text());
        Err::<(), _>("no")
    });
    assert!(panicked.await.is_err());
    assert_eq!(here.distribution(), Distribution::Distributed);
    let refused: Result<(), UpdateError> = here.update(|page| page.title.set("pots".to_owned())).await;
    refused.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_is_neither_evicted_nor_lost_with_the_lease() {
    const HEAP_BYTES: usize = 1 << 20;
    let mut net = Net::with(Duration::from_secs(2), |builder| builder.heap_bytes(HEAP_BYTES)).await;
    let pages: Root<String, Page> = net.a.root("pages").await.unwrap();
    let page = pages.get_or_create("p", Page::default).await.unwrap();
    let keep = |page: &mut PageMut<'_>| {
        page.picture.set(no_text());
        *page.visits = 7;
    };
    change(&page, keep).await;
    drop(page);
    for key in 0..1000 {
        let title = "x".repeat(2000);
        pages.insert(key.to_string(), Page { title, ..Page::default() }).await.unwrap();
    }
    assert!(net.a.stats().evictions > 300, "{:?}", net.a.stats());
    let page = pages.peek("p").expect("it is resident");
    assert_eq!((page.view().visits(), page.distribution()), (7, Distribution::KeptLocal));

    let mut guard = page.write().await.unwrap();
    net.proxy.set(Weather::cut());
    net.event().await;
    *guard.visits += 1;
    assert!(matches!(guard.commit().await, Err(CommitError::Fenced)), "not without its lock");
    assert_eq!(page.view().visits(), 7);
    net.proxy.heal();
    while net.event().await != kiln::ClusterEvent::OperationsEnabled {}
    assert_eq!((page.view().visits(), page.distribution()), (7, Distribution::KeptLocal));
    let commit = change(&page, |page| page.picture.set(picture())).await;
    assert!(!commit.is_local);
    let on_b: Root<String, Page> = net.b.root("pages").await.unwrap();
    assert_eq!(on_b.get("p").await.unwrap().unwrap().view().visits(), 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_add_is_lost_or_made_twice_on_the_way() {
    const ROUNDS: i64 = 60;
    let pages = pages().await;
    let Pages { here, other, .. } = &pages;
    let mut tasks = JoinSet::new();
    let page = here.clone();
    tasks.spawn(async move {
        for round in 0..ROUNDS {
            let mut guard = page.write().await.unwrap();
            guard.picture.set(if round % 3 == 2 { picture() } else { no_text() });
            guard.clicks.add(1);
            guard.commit().await.unwrap();
        }
    });
    for page in [here.clone(), other.clone()] {
        tasks.spawn(async move {
            for _ in 0..ROUNDS {
                page.clicks().add(1).unwrap();
                let mut guard = page.write_group("cart").await.unwrap();
                guard.clicks.add(1);
                let pieces = guard.cart.get("jug").unwrap_or(0);
                guard.cart.insert("jug".to_owned(), pieces + 1);
                guard.commit().await.unwrap();
            }
        });
    }
    // All the while, on a thread of its own.
    let (page, is_over, added) = (here.clone(), Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
    let (until_over, count) = (Arc::clone(&is_over), Arc::clone(&added));
    let mut adder = JoinSet::new();
    adder.spawn_blocking(move || {
        while !until_over.load(Ordering::Relaxed) {
            if page.clicks().add(1).is_ok() {
                count.fetch_add(1, Ordering::Relaxed);
            }
            std::thread::yield_now();
        }
    });
    while let Some(done) = soon("the tasks end", tasks.join_next()).await {
        done.unwrap();
    }
    is_over.store(true, Ordering::Relaxed);
    soon("the adder ends", adder.join_next()).await.unwrap().unwrap();
    change(here, |page| page.picture.set(picture())).await;
    assert_eq!(here.distribution(), Distribution::Distributed);
    let all = 5 * ROUNDS + added.load(Ordering::Relaxed);
    let clicks = || async { (here.clicks().get(), other.clicks().get()) == (all, all) };
    until("both have all clicks", clicks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_kept_is_kept_on_when_the_cluster_refuses_it() {
    const HALF: usize = 8 << 20;
    let pages = pages().await;
    let Pages { here, other, .. } = &pages;
    change(here, |page| page.title.set("x".repeat(HALF))).await;
    change(here, |page| {
        page.imprint.text.set(too_long());
        *page.visits = 7;
        page.clicks.add(1);
    })
    .await;
    // Each of its fields is short enough, the object is not.
    for level in [Level::Queued, Level::Everywhere] {
        let mut guard = here.write().await.unwrap();
        guard.imprint.text.set("y".repeat(HALF));
        *guard.visits += 1;
        assert!(matches!(guard.commit_with(level).await, Err(CommitError::Refused(_))));
        assert_eq!(here.distribution(), Distribution::KeptLocal);
        let coherent = here.read().await.unwrap();
        let kept = coherent.get(|page| (page.imprint().text().len(), page.visits(), page.clicks()));
        assert_eq!(kept, ((15 << 20) + 1, 7, 1));
    }
    change(here, |page| {
        page.title.set(String::new());
        page.imprint.text.set("y".repeat(HALF));
    })
    .await;
    for page in [here, other] {
        let shown = page.get(|page| (page.title().len(), page.imprint().text().len(), page.visits(), page.clicks()));
        assert_eq!(shown, (0, HALF, 7, 1));
    }
    // What is too long for one commit stays, too.
    change(here, |page| {
        page.picture.set(no_text());
        page.title.set("x".repeat(HALF));
    })
    .await;
    let kept = change(here, |page| {
        page.picture.set(picture());
        page.imprint.text.set("z".repeat(HALF));
    });
    assert!(kept.await.is_local);
    assert!(!change(here, |page| page.title.set(String::new())).await.is_local);
    assert!(other.view().imprint().text().starts_with('z'));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_kept_without_its_lock_or_while_the_cluster_is_away() {
    let mut net = Net::start(Duration::from_secs(2)).await;
    let pages: Root<String, Page> = net.a.root("pages").await.unwrap();
    let page = pages.get_or_create("p", Page::default).await.unwrap();
    let mut guard = page.write_group("cart").await.unwrap();
    guard.seal.set(no_text());
    assert!(matches!(guard.commit().await, Err(CommitError::NotLocked { field: "seal", .. })));
    assert_eq!(page.distribution(), Distribution::Distributed);

    let alone = page.with_away(Away::LocalReadWrite { on_return: OnReturn::Discard });
    net.proxy.set(Weather::cut());
    net.event().await;
    alone.update_with(Level::Applied, |page| *page.visits = 7).await.unwrap();
    let mut guard = alone.write().await.unwrap();
    guard.picture.set(no_text());
    assert!(matches!(guard.commit_with(Level::Applied).await, Err(CommitError::Away)));
    net.proxy.heal();
    while net.event().await != kiln::ClusterEvent::OperationsEnabled {}
    change(&page, |page| page.picture.set(no_text())).await;
    assert_eq!((page.distribution(), page.view().visits()), (Distribution::KeptLocal, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_heap_makes_room_for_what_is_kept() {
    const HEAP_BYTES: usize = 1 << 20;
    let net = Net::with(Duration::from_secs(5), |builder| builder.heap_bytes(HEAP_BYTES)).await;
    let on_a: Root<String, Page> = net.a.root("pages").await.unwrap();
    let on_b: Root<String, Page> = net.b.root("pages").await.unwrap();
    let fill = async |from: usize| {
        for key in from..from + 700 {
            let page = Page { title: "x".repeat(2000), ..Page::default() };
            on_a.insert(key.to_string(), page).await.unwrap();
        }
    };
    let here = on_a.get_or_create("p", Page::default).await.unwrap();
    let other: Shared<Page> = on_b.get("p").await.unwrap().unwrap();
    fill(0).await;
    let keep = |page: &mut PageMut<'_>| {
        page.picture.set(no_text());
        page.imprint.text.set("y".repeat(50_000));
    };
    change(&here, keep).await;
    fill(1000).await;
    // What another node has changed is seen under the lock.
    for visits in 1..5 {
        change(&other, |page| {
            *page.visits = visits;
            page.title.set("z".repeat(50_000));
        })
        .await;
        assert_eq!(here.read().await.unwrap().view().visits(), visits);
        fill(usize::try_from(visits).unwrap() * 2000).await;
    }
    change(&here, |page| page.picture.set(picture())).await;
    assert_eq!(other.get(|page| (page.visits(), page.imprint().text().len())), (4, 50_000));
}
