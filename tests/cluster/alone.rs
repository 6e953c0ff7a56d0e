//! Going on alone while the cluster is away, and coming back.

use crate::{session, sessions, visits};
use kiln::{
    AccessError, Away, ClusterEvent, ClusterEvents, CommitError, Conflict, EventKind, Level, LockError, OnReturn, Returned,
    Runtime, Shared, State, UpdateError,
};
use kiln_tests::{Coordinator, Line, Proxy, Session, SessionCounters as _, Weather, soon, until};
use std::time::Duration;
use tokio::task::JoinSet;

const LEASE: Duration = Duration::from_secs(1);
const REPLAY: Away = Away::LocalReadWrite { on_return: OnReturn::Replay };
const DISCARD: Away = Away::LocalReadWrite { on_return: OnReturn::Discard };

/// A coordinator, a node `a` that goes on alone when it is cut off, and a node `b` that nothing ever happens to.
struct Net {
    coordinator: Coordinator,
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
        Self { coordinator, proxy, a, b, events }
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

    // 100 increments, the balance, the cart, two adds, the new object and what was done to it.
    assert_eq!(net.come_back().await, replayed(106));
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
