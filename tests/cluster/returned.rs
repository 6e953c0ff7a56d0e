//! What becomes of what was done alone when the cluster is back.

use crate::alone::{DISCARD, Net, REPLAY, add, conflict, replayed};
use crate::{session, sessions, visits};
use kiln::{AccessError, Conflict, ConflictCause, ConflictKind, LocalValue, LockError, Returned, State};
use kiln_tests::{Line, Session, SessionCounters as _, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_to_be_discarded_is_dropped_and_told() {
    let mut net = Net::start(DISCARD).await;
    let root = sessions(&net.a).await;
    let (on_a, on_b) = net.both("s").await;
    let (removed, removed_on_b) = net.both("removed").await;
    add(&on_a, 1).await;
    net.leave(&on_a).await;
    add(&on_a, 10).await;
    on_a.clicks().add(5).unwrap();
    let new = root.get_or_create("new", Session::default).await.unwrap();
    add(&new, 1).await;
    assert!(root.remove("removed").await.unwrap());
    assert_eq!(removed.state(), State::Destroyed);
    assert!(root.get("removed").await.unwrap().is_none());
    let returned = net.come_back().await;
    assert_eq!(returned, Returned { discarded: 5, ..Returned::default() });

    assert_eq!((visits(&on_a).await, visits(&on_b).await, on_a.view().clicks()), (1, 1, 0));
    assert_eq!((new.state(), root.get("new").await.unwrap().is_none()), (State::Destroyed, true));
    assert_eq!(removed_on_b.state(), State::Current);
    assert_eq!(root.get("removed").await.unwrap().unwrap().id(), removed_on_b.id());
    let conflicts = net.a.take_conflicts();
    assert!(conflicts.iter().all(|conflict| conflict.cause == ConflictCause::Discarded), "{conflicts:?}");
    let lost = conflicts.iter().flat_map(Conflict::fields).find(|field| field.ours::<u64>() == Some(11)).unwrap();
    assert_eq!(
        (lost.field(), lost.base::<u64>(), lost.name.key::<String>()),
        ("visits", Some(1), Some("s".to_owned()))
    );
    let made = |conflict: &&Conflict| matches!(&conflict.kind, ConflictKind::Creation(name) if name.key() == Some("new".to_owned()));
    assert_eq!(conflicts.iter().filter(made).count(), 1);
    add(&on_a, 1).await;
    assert_eq!(visits(&on_b).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_base_that_does_not_hold_is_a_conflict_with_both_values() {
    let mut net = Net::start(REPLAY).await;
    let (on_a, on_b) = net.both("s").await;
    let (other_a, other_b) = net.both("other").await;
    on_a.update(|session| {
        *session.visits = 1;
        session.cart.insert("mug".to_owned(), Line { title: "mug".to_owned(), count: 1 });
    })
    .await
    .unwrap();
    net.leave(&on_a).await;
    // A field that somebody changes, an entry of a map that somebody changes, and with each of them one that nobody does.
    let mut from = on_a.write().await.unwrap();
    let mut to = other_a.write().await.unwrap();
    *from.visits += 10;
    "dark".clone_into(&mut from.theme);
    *to.visits += 10;
    net.a.commit((from, to)).await.unwrap();
    on_a.update(|session| {
        session.cart.insert("mug".to_owned(), Line { title: "mug".to_owned(), count: 2 });
    })
    .await
    .unwrap();
    on_a.update(|session| {
        session.cart.insert("pen".to_owned(), Line { title: "pen".to_owned(), count: 3 });
    })
    .await
    .unwrap();
    on_a.clicks().add(1).unwrap();
    // What is based on a change that is a conflict is one.
    add(&on_a, 100).await;
    on_b.clicks().add(10).unwrap();
    on_b.update(|session| {
        *session.visits = 7;
        session.cart.insert("mug".to_owned(), Line { title: "mug".to_owned(), count: 9 });
    })
    .await
    .unwrap();
    let returned = net.come_back().await;
    assert_eq!(returned, Returned { replayed: 2, conflicts: 3, discarded: 0 });

    let conflicts = net.a.take_conflicts();
    assert!(conflicts.iter().all(|conflict| conflict.cause == ConflictCause::Changed), "{conflicts:?}");
    let [both, cart, later] = &conflicts[..] else { panic!("{conflicts:?}") };
    let fields: Vec<_> =
        both.fields().iter().map(|field| (field.name.key::<String>().unwrap(), field.field())).collect();
    let expected = [("s", "theme"), ("s", "visits"), ("other", "visits")];
    assert_eq!(fields, expected.map(|(key, field)| (key.to_owned(), field)));
    let [theme, of_s, of_other] = both.fields() else { panic!("{both:?}") };
    assert_eq!((theme.base::<String>(), theme.ours::<String>()), (Some(String::new()), Some("dark".to_owned())));
    assert_eq!((of_s.base::<u64>(), of_s.ours::<u64>(), of_s.theirs::<u64>()), (Some(1), Some(11), Some(7)));
    assert_eq!(
        (of_other.base::<u64>(), of_other.ours::<u64>(), of_other.theirs::<u64>()),
        (Some(0), Some(10), Some(0))
    );
    assert_eq!((of_s.name.root.as_str(), of_s.object()), (kiln_tests::SESSIONS, on_a.id()));
    let count = |line: Option<Line>| line.map(|line| line.count);
    let [mug] = cart.fields() else { panic!("{cart:?}") };
    assert_eq!((mug.field(), mug.entry::<String>()), ("cart", Some("mug".to_owned())));
    assert_eq!((count(mug.base()), count(mug.ours()), count(mug.theirs())), (Some(1), Some(2), Some(9)));
    assert_eq!((later.fields()[0].base::<u64>(), later.fields()[0].ours::<u64>()), (Some(11), Some(111)));

    assert_eq!((visits(&on_a).await, visits(&on_b).await, visits(&other_b).await), (7, 7, 0));
    for on in [&on_a, &on_b] {
        until("all is the same everywhere", async || {
            let shown = |key: &str| on.view().cart().get(key).map(|line| line.count.to_native());
            (on.view().clicks(), on.view().theme() == "", shown("mug"), shown("pen")) == (11, true, Some(9), Some(3))
        })
        .await;
    }
    assert_eq!((on_a.state(), other_a.state()), (State::Current, State::Current));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_removed_meanwhile_stays_removed() {
    let mut net = Net::start(REPLAY).await;
    let root = sessions(&net.a).await;
    let (on_a, on_b) = net.both("s").await;
    let (kept_a, kept_b) = net.both("kept").await;
    net.leave(&on_a).await;
    on_a.clicks().add(1).unwrap();
    let (mut gone, mut kept) = (on_a.write().await.unwrap(), kept_a.write().await.unwrap());
    *gone.visits = 5;
    *kept.visits = 6;
    net.a.commit((gone, kept)).await.unwrap();
    assert!(sessions(&net.b).await.remove_everywhere("s").await.unwrap());
    let returned = net.come_back().await;
    assert_eq!(returned, Returned { conflicts: 2, ..Returned::default() });
    let conflicts = net.a.take_conflicts();
    assert!(conflicts.iter().all(|conflict| conflict.cause == ConflictCause::Destroyed), "{conflicts:?}");
    let [added, both] = &conflicts[..] else { panic!("{conflicts:?}") };
    assert_eq!(added.fields()[0].values(), (Some(&LocalValue::Scalar(0)), &LocalValue::Added(1), None));
    assert_eq!((both.fields()[0].ours::<u64>(), both.fields()[1].ours::<u64>()), (Some(5), Some(6)));
    assert_eq!((on_a.state(), on_b.state()), (State::Destroyed, State::Destroyed));
    assert!(root.get("s").await.unwrap().is_none());
    assert_eq!((visits(&kept_a).await, visits(&kept_b).await), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_is_not_undone() {
    let mut net = Net::start(REPLAY).await;
    let root = sessions(&net.a).await;
    let (on_a, on_b) = net.both("s").await;
    // Of these two, one is logged in again by the time the cluster is back, the other was never resident.
    let (again_a, again_b) = net.both("again").await;
    let far = session(&net.b, "far").await;
    net.leave(&on_a).await;
    add(&on_a, 1).await;
    let everywhere = root.remove_everywhere("s").await;
    assert!(matches!(everywhere, Err(AccessError::RemovedHere)), "{everywhere:?}");
    assert!(root.remove("again").await.unwrap());
    assert!(!root.remove("far").await.unwrap());
    assert_eq!((on_a.state(), again_a.state(), on_b.state()), (State::Destroyed, State::Destroyed, State::Current));
    assert!(matches!(on_a.write().await, Err(LockError::Destroyed)));
    assert!(root.get("s").await.unwrap().is_none());
    // Somebody logs in again, here and there.
    let new = root.get_or_create("s", Session::default).await.unwrap();
    add(&new, 50).await;
    assert_ne!(new.id(), on_a.id());
    let root_b = sessions(&net.b).await;
    assert!(root_b.remove("again").await.unwrap());
    let newer = session(&net.b, "again").await;
    assert_eq!(net.come_back().await, replayed(5));
    assert_eq!(net.a.take_conflicts(), []);
    until("the removals arrive", async || {
        [&on_b, &again_b, &far].iter().all(|session| session.state() == State::Destroyed)
    })
    .await;
    assert_eq!((newer.state(), session(&net.a, "again").await.id()), (State::Current, newer.id()));
    let found = session(&net.b, "s").await;
    assert_eq!((found.id(), visits(&found).await), (new.id(), 50));
    assert!(root_b.get("far").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_made_here_is_what_the_cluster_has_under_its_key() {
    let mut net = Net::start(REPLAY).await;
    let root = sessions(&net.a).await;
    let on_a = session(&net.a, "s").await;
    let there = session(&net.b, "there").await;
    there.update(|session| *session.visits = 7).await.unwrap();
    net.leave(&on_a).await;
    let here = root.get_or_create("there", Session::default).await.unwrap();
    add(&here, 1).await;
    here.update(|session| "dark".clone_into(&mut session.theme)).await.unwrap();
    here.clicks().add(2).unwrap();
    let returned = net.come_back().await;
    assert_eq!(returned, Returned { replayed: 3, conflicts: 1, discarded: 0 });
    let conflict = conflict(&net.a);
    let field = &conflict.fields()[0];
    assert_eq!((field.base::<u64>(), field.ours::<u64>(), field.theirs::<u64>()), (Some(0), Some(1), Some(7)));
    assert_eq!((here.id(), visits(&here).await, visits(&there).await), (there.id(), 7, 7));
    until("the rest arrives", async || there.get(|view| (view.clicks(), view.theme() == "dark")) == (2, true)).await;
}
