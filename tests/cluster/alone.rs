//! Going on alone while the cluster is away, and coming back.

use crate::{TEST_NODE, session, sessions, visits};
use kiln::{
    AccessError, Away, ClusterEvent, ClusterEvents, CommitError, Conflict, ConflictCause, ConflictKind, DetachError,
    Ended, EventKind, Fate, Level, LockError, OnReturn, Returned, Runtime, Shared, State, UpdateError,
};
use kiln_tests::{Coordinator, Line, Process, Proxy, Random, Session, SessionCounters as _, Weather, soon, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinSet;

const LEASE: Duration = Duration::from_secs(1);
pub(crate) const REPLAY: Away = Away::LocalReadWrite { on_return: OnReturn::Replay };
pub(crate) const DISCARD: Away = Away::LocalReadWrite { on_return: OnReturn::Discard };

/// A coordinator, a node `a` that goes on alone when it is cut off, and a node `b` that nothing ever happens to.
pub(crate) struct Net {
    _coordinator: Coordinator,
    pub(crate) proxy: Proxy,
    pub(crate) a: Runtime,
    pub(crate) b: Runtime,
    /// Those of `a`.
    pub(crate) events: ClusterEvents,
}

impl Net {
    pub(crate) async fn start(away: Away) -> Self {
        Self::with_journal(away, 1 << 20).await
    }

    pub(crate) async fn with_journal(away: Away, bytes: usize) -> Self {
        let coordinator = Coordinator::with(|options| options.tuning.lease = LEASE).await;
        let proxy = Proxy::before(coordinator.profile(), 1);
        let builder = coordinator.builder_through(&proxy, "a").timeout(kiln_tests::PATIENCE);
        let a = builder.away(away).journal_bytes(bytes).attach().await.unwrap();
        let b = coordinator.builder("b").timeout(kiln_tests::PATIENCE).attach().await.unwrap();
        let events = a.events();
        Self { _coordinator: coordinator, proxy, a, b, events }
    }

    pub(crate) async fn both(&self, key: &str) -> (Shared<Session>, Shared<Session>) {
        (session(&self.a, key).await, session(&self.b, key).await)
    }

    /// Cuts `a` off once all that it has sent is safe, and waits until its lease has lapsed.
    pub(crate) async fn leave(&self, shown: &Shared<Session>) {
        until("what was sent is safe", async || self.a.stats().unacknowledged == 0).await;
        self.proxy.set(Weather::cut());
        let shown = shown.with_away(Away::Fail);
        until("the lease lapses", async || shown.state() == State::Stale && shown.try_write().is_none()).await;
        let alone = shown.with_away(REPLAY);
        until("tasks go on alone", async || alone.try_write().is_some()).await;
    }

    /// Lets `a` come back, and waits until its journal is empty.
    pub(crate) async fn come_back(&mut self) -> Returned {
        self.proxy.heal();
        loop {
            if let ClusterEvent::Returned(returned) = soon("the return", self.events.next()).await.unwrap() {
                return returned;
            }
        }
    }
}

pub(crate) async fn add(session: &Shared<Session>, amount: u64) {
    session.update(|session| *session.visits += amount).await.unwrap();
}

pub(crate) fn replayed(replayed: u64) -> Returned {
    Returned { replayed, ..Returned::default() }
}

/// The one conflict there is.
pub(crate) fn conflict(kiln: &Runtime) -> Conflict {
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

/// One writer over a network that comes and goes: whatever it was told of a change is true, each change is in the cluster
/// once, and where nobody else writes there is no conflict.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_is_made_once_over_a_network_that_comes_and_goes() {
    let net = Net::with_journal(REPLAY, 64 << 20).await;
    let (on_a, on_b) = net.both("s").await;
    let writing = Arc::new(AtomicBool::new(true));
    let mut writer = JoinSet::new();
    writer.spawn({
        let (on_a, writing) = (on_a.clone(), Arc::clone(&writing));
        async move {
            let (mut made, mut local, mut added) = (0, 0, 0);
            while writing.load(Ordering::Relaxed) {
                let mut guard = on_a.write().await.unwrap();
                *guard.visits += 1;
                match guard.commit().await {
                    Ok(commit) if commit.is_local => local += 1,
                    Ok(_) => made += 1,
                    // The cluster was back between the lock and the commit.
                    Err(CommitError::Fenced) => {}
                    Err(other) => panic!("{other}"),
                }
                on_a.clicks().add(1).unwrap();
                added += 1;
                // Some changes at each of the network's moods, not all the machine can do.
                tokio::time::sleep(Duration::from_micros(500)).await;
            }
            (made, local, added)
        }
    });
    let random = Random::new(7);
    for _ in 0..6 {
        net.proxy.set(random.one_of(&[Weather::cut(), Weather::cut_up(), Weather::cut_down()]));
        tokio::time::sleep(random.up_to(LEASE * 3)).await;
        net.proxy.heal();
        // Sometimes too short to come back, or to be done with the journal.
        tokio::time::sleep(random.up_to(LEASE / 2)).await;
    }
    until("the journal is empty", async || net.a.stats().journalled == 0 && on_a.state() == State::Current).await;
    writing.store(false, Ordering::Relaxed);
    let (made, local, added) = soon("the writer", writer.join_next()).await.unwrap().unwrap();
    until("the rest is made again", async || net.a.stats().journalled == 0 && on_a.state() == State::Current).await;
    println!("{made} commits made in the cluster, {local} local, {added} adds");
    assert!(local > 0 && made > 0);
    assert_eq!((net.a.take_conflicts(), net.a.take_unknown(), net.a.take_refusals()), (vec![], vec![], vec![]));
    assert_eq!(visits(&on_b).await, made + local);
    until("the sum", async || on_b.get(|view| view.clicks()) == added).await;
}
