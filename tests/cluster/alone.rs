//! Going on alone while the cluster is away, and coming back.

use crate::{TEST_NODE, session, sessions, visits};
use kiln::{
    AccessError, Away, ClusterEvent, ClusterEvents, CommitError, Conflict, ConflictCause, ConflictKind, DetachError,
    Ended, EventKind, Fate, Level, LocalValue, LockError, OnReturn, Returned, Runtime, Shared, State, UpdateError,
};
use kiln_tests::{Coordinator, Line, Process, Proxy, Session, SessionCounters as _, Weather, soon, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinSet;

const LEASE: Duration = Duration::from_secs(1);
const REPLAY: Away = Away::LocalReadWrite { on_return: OnReturn::Replay };
const DISCARD: Away = Away::LocalReadWrite { on_return: OnReturn::Discard };

/// A coordinator, a node `a` that goes on alone when it is cut off, and a node `b` that nothing ever happens to.
struct Net {
    _coordinator: Coordinator,
    proxy: Proxy,
    a: Runtime,
    b: Runtime,
    /// Those of `a`.
    events: ClusterEvents,
}

impl Net {
    async fn start(away: Away) -> Self {
        Self::with_journal(away, 1 << 20).await
    }

    async fn with_journal(away: Away, bytes: usize) -> Self {
        let coordinator = Coordinator::with(|options| options.tuning.lease = LEASE).await;
        let proxy = Proxy::before(coordinator.profile(), 1);
        let builder = coordinator.builder_through(&proxy, "a").timeout(kiln_tests::PATIENCE);
        let a = builder.away(away).journal_bytes(bytes).attach().await.unwrap();
        let b = coordinator.builder("b").timeout(kiln_tests::PATIENCE).attach().await.unwrap();
        let events = a.events();
        Self { _coordinator: coordinator, proxy, a, b, events }
    }

    async fn both(&self, key: &str) -> (Shared<Session>, Shared<Session>) {
        (session(&self.a, key).await, session(&self.b, key).await)
    }

    /// Cuts `a` off, and waits until its lease has lapsed.
    async fn leave(&self, shown: &Shared<Session>) {
        self.proxy.set(Weather::cut());
        let shown = shown.with_away(Away::Fail);
        until("the lease lapses", async || shown.state() == State::Stale && shown.try_write().is_none()).await;
        let alone = shown.with_away(REPLAY);
        until("tasks go on alone", async || alone.try_write().is_some()).await;
    }

    /// Lets `a` come back, and waits until its journal is empty.
    async fn come_back(&mut self) -> Returned {
        self.proxy.heal();
        loop {
            if let ClusterEvent::Returned(returned) = soon("the return", self.events.next()).await.unwrap() {
                return returned;
            }
        }
    }
}

async fn add(session: &Shared<Session>, amount: u64) {
    session.update(|session| *session.visits += amount).await.unwrap();
}

fn replayed(replayed: u64) -> Returned {
    Returned { replayed, ..Returned::default() }
}

/// The one conflict there is.
fn conflict(kiln: &Runtime) -> Conflict {
    let mut conflicts = kiln.take_conflicts();
    assert_eq!(conflicts.len(), 1, "{conflicts:?}");
    assert_eq!(kiln.take_conflicts(), []);
    conflicts.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_keep_working_and_are_replayed() {
    let mut net = Net::start(REPLAY).await;
    let root = sessions(&net.a).await;
    let (on_a, on_b) = net.both("s").await;
    let untouched = net.both("untouched").await;
    add(&on_a, 1).await;
    on_a.clicks().add(1).unwrap();
    until("the sum", async || on_b.get(|view| view.clicks()) == 1).await;
    let mut watch = on_b.watch::<String>().await.unwrap();
    net.leave(&on_a).await;

    // Tasks exclude each other.
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let on_a = on_a.clone();
        tasks.spawn(async move {
            for _ in 0..25 {
                let mut guard = on_a.write().await.unwrap();
                let before = *guard.visits;
                tokio::task::yield_now().await;
                *guard.visits = before + 1;
                let commit = guard.commit().await.unwrap();
                assert!(commit.is_local && commit.seq.is_none());
            }
        });
    }
    soon("the commits", tasks.join_all()).await;
    let mut guard = on_a.write_group("money").await.unwrap();
    *guard.balance = 7;
    let commit = guard.commit_with(Level::Queued).await.unwrap();
    assert!(commit.is_local);
    on_a.clicks().add(10).unwrap();
    on_a.update(|session| {
        session.cart.insert("mug".to_owned(), Line { title: "mug".to_owned(), count: 2 });
        "dark".clone_into(&mut session.theme);
    })
    .await
    .unwrap();
    assert_eq!((on_a.state(), untouched.0.state()), (State::Local, State::Stale));
    assert_eq!((on_a.view().visits(), on_a.view().clicks(), on_a.view().balance()), (101, 11, 7));
    let read = on_a.read().await.unwrap();
    assert!(read.is_stale());
    assert!(on_a.try_write().is_none(), "somebody reads");
    assert_eq!(read.view().visits(), 101);
    drop(read);
    // Nothing of it is to be seen elsewhere, and nothing that needs the cluster is promised.
    assert_eq!((on_b.view().visits(), on_b.view().theme().len()), (1, 0));
    let everywhere = on_a.update_with(Level::Everywhere, |session| *session.visits += 1).await;
    assert!(matches!(everywhere, Err(UpdateError::Commit(CommitError::Away))), "{everywhere:?}");
    assert!(matches!(net.a.lock("l").await, Err(kiln::RootError::Access(AccessError::Disconnected))));
    assert!(matches!(root.keys().next_page(1).await, Err(AccessError::Disconnected)));
    assert!(matches!(root.get("nobody").await, Err(AccessError::Disconnected)));
    assert!(matches!(on_a.with_away(Away::Fail).write().await, Err(LockError::Disconnected)));
    assert_eq!(root.get("s").await.unwrap().unwrap().state(), State::Local);

    // An object that is not resident.
    let new = root.get_or_create("new", Session::default).await.unwrap();
    add(&new, 5).await;
    new.clicks().add(3).unwrap();
    assert_eq!((new.state(), new.view().visits()), (State::Local, 5));
    assert_eq!(root.get("new").await.unwrap().unwrap().id(), new.id());
    assert!(net.a.stats().journalled > 100 && net.a.stats().journal_bytes > 0);

    // Who looks meanwhile never sees a local change go and come back.
    let looked = Arc::new(AtomicBool::new(false));
    let looking = {
        let (on_a, new, looked) = (on_a.clone(), new.clone(), Arc::clone(&looked));
        tokio::task::spawn_blocking(move || {
            while !looked.load(Ordering::Relaxed) {
                assert_eq!((on_a.view().visits(), on_a.view().clicks(), new.view().visits()), (101, 11, 5));
            }
        })
    };
    // 100 increments, the balance, the cart, two adds, the new object and what was done to it.
    assert_eq!(net.come_back().await, replayed(106));
    looked.store(true, Ordering::Relaxed);
    looking.await.unwrap();
    assert_eq!(net.a.take_conflicts(), []);
    assert_eq!((visits(&on_a).await, visits(&on_b).await), (101, 101));
    assert_eq!((on_a.state(), new.state()), (State::Current, State::Current));
    until("everything arrives", async || {
        on_b.get(|view| (view.clicks(), view.balance(), view.theme() == "dark")) == (11, 7, true)
    })
    .await;
    assert_eq!(on_b.view().cart().get("mug").map(|line| line.count.to_native()), Some(2));
    let new_on_b = session(&net.b, "new").await;
    assert_eq!((new_on_b.id(), visits(&new_on_b).await, new_on_b.view().clicks()), (new.id(), 5, 3));
    // Each commit was made again, in order: no version is left out.
    let mut versions = Vec::new();
    while versions.len() < 101 {
        if let EventKind::Updated { group: Some("default"), version, .. } =
            soon("a version", watch.next()).await.unwrap().kind
        {
            versions.push(version.number());
        }
    }
    assert_eq!(versions, (2..=102).collect::<Vec<_>>());
    // All goes on as ever.
    add(&on_a, 1).await;
    add(&new, 1).await;
    assert_eq!((visits(&on_b).await, visits(&new_on_b).await), (102, 6));
    assert_eq!((net.a.stats().journalled, net.a.stats().journal_bytes), (0, 0));
}

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
    assert_eq!(added.fields()[0].values(), (&LocalValue::Scalar(0), &LocalValue::Added(1), None));
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_journal_is_an_error_and_loses_nothing() {
    let mut net = Net::with_journal(REPLAY, 4096).await;
    let root = sessions(&net.a).await;
    let (on_a, on_b) = net.both("s").await;
    net.leave(&on_a).await;
    let mut made = 0;
    let full = loop {
        match on_a.update(|session| *session.visits += 1).await {
            Ok(()) => made += 1,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(full, UpdateError::Commit(CommitError::JournalFull { needed_bytes, limit: 4096 }) if needed_bytes > 4096),
        "{full:?}"
    );
    assert!(made > 5, "{made}");
    let created = root.get_or_create("new", Session::default).await;
    assert!(matches!(created, Err(AccessError::JournalFull { .. })), "{created:?}");
    assert!(matches!(on_a.clicks().add(1), Err(CommitError::JournalFull { .. })));
    assert!(matches!(root.remove("s").await, Err(AccessError::JournalFull { .. })));
    assert_eq!((on_a.view().visits(), on_a.view().clicks()), (made, 0));
    assert_eq!(net.come_back().await, replayed(made));
    assert_eq!(visits(&on_b).await, made);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guards_are_good_in_the_time_they_were_taken_in() {
    let mut net = Net::start(REPLAY).await;
    let (on_a, on_b) = net.both("s").await;
    let (other_a, other_b) = net.both("other").await;
    // Taken in the cluster: what it is based on is known, so it may be made alone.
    let mut before = on_a.write().await.unwrap();
    *before.visits = 1;
    net.leave(&other_a).await;
    assert!(on_a.try_write().is_none(), "it is held");
    assert!(before.commit().await.unwrap().is_local);
    // Taken alone: in the cluster it is worth nothing.
    let mut alone = other_a.write().await.unwrap();
    *alone.visits = 1;
    let local = {
        let transaction = net.a.begin_transaction();
        let mut guard = transaction.write(&on_a).await.unwrap();
        *guard.visits += 1;
        drop(guard);
        transaction.commit().await.unwrap()
    };
    assert!(local.is_local);
    assert_eq!(net.come_back().await, replayed(2));
    assert_eq!(net.a.fate(local).await.unwrap(), Fate::Unknown);
    soon("it is nobody's in the cluster", other_b.update(|session| *session.visits += 10)).await.unwrap();
    let late = alone.commit().await;
    assert!(matches!(late, Err(CommitError::Fenced)), "{late:?}");
    assert_eq!((visits(&on_b).await, visits(&other_a).await), (2, 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_when_the_lease_lapses_goes_on_alone() {
    let mut net = Net::start(REPLAY).await;
    let root = sessions(&net.a).await;
    let (on_a, on_b) = net.both("s").await;
    // The other node has the lock, and keeps it.
    let held = on_b.write().await.unwrap();
    net.proxy.set(Weather::cut());
    let (changed, created) =
        tokio::join!(on_a.update(|session| *session.visits += 1), root.get_or_create("new", Session::default));
    changed.unwrap();
    add(&created.unwrap(), 1).await;
    assert_eq!(on_a.state(), State::Local);
    held.rollback();
    assert_eq!(net.come_back().await, replayed(3));
    assert_eq!((visits(&on_b).await, visits(&session(&net.b, "new").await).await), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_is_left_behind_is_told() {
    let net = Net::start(REPLAY).await;
    let on_a = session(&net.a, "s").await;
    net.leave(&on_a).await;
    add(&on_a, 1).await;
    let a = net.a.clone();
    let left = a.clone().detach(Duration::from_secs(5)).await;
    assert!(matches!(left, Err(DetachError::Journalled { changes: 1 })), "{left:?}");
    let told = conflict(&a);
    assert_eq!((told.cause.clone(), a.closed().await), (ConflictCause::Ended, Ended::Detached));
    assert_eq!(told.kind, ConflictKind::Commit(told.fields().to_vec()));
    assert!(matches!(on_a.write().await, Err(LockError::Disconnected)));
    assert!(matches!(on_a.clicks().add(1), Err(CommitError::Disconnected)));
}

/// The journal is memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_crashes_loses_its_journal() {
    let coordinator = Coordinator::with(|options| options.tuning.lease = LEASE).await;
    let directory = TempDir::new().unwrap();
    let proxy = Proxy::before(coordinator.profile(), 1);
    let profile = proxy.write_profile(coordinator.profile(), directory.path());
    let arguments = [profile.as_os_str(), "a".as_ref(), "alone".as_ref()];
    let mut a = Process::start("a", TEST_NODE, &arguments);
    assert_eq!(a.hear(), "attached");
    let ask = |mut a: Process, command: &'static str| {
        tokio::task::spawn_blocking(move || {
            let answer = a.ask(command);
            (a, answer)
        })
    };
    let (a, answer) = ask(a, "update s").await.unwrap();
    assert_eq!(answer, "updated");
    proxy.set(Weather::cut());
    let (mut a, mut answer) = ask(a, "read s").await.unwrap();
    while !answer.ends_with(" stale") {
        (a, answer) = ask(a, "read s").await.unwrap();
    }
    let (a, _) = ask(a, "update s").await.unwrap();
    let (mut a, answer) = ask(a, "read s").await.unwrap();
    assert_eq!(answer, "visits 2 theme \"\" stale");
    a.kill();
    proxy.heal();
    let b = coordinator.node("b").await;
    assert_eq!(visits(&session(&b, "s").await).await, 1);
}
