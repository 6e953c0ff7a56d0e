//! What the tasks of a node do, again and again: the operations of a program, in steps between which others act.

use crate::held::{Held, NotHeld};
use crate::model::{Field, Made};
use crate::node::SimNode;
use crate::watching::Watching;
use crate::world::{World, value};
use bytes::Bytes;
use kiln::{Change, Changes, Clustered as _};
use kiln_engine::{
    Changed, CommitError, CommitFailure, Entry, LockFailure, RequestError, RootCache, State, Ticket, Wait, Waiter,
};
use kiln_heap::Object;
use kiln_protocol::message::{Mode, RootOptions};
use kiln_protocol::{Failure, ObjectId, ToCoordinator};
use kiln_tests::Session;
use std::future::poll_fn;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

/// Every key there is. The pair `x` and `y` is only changed together; `r` and `s` come and go.
pub(crate) const KEYS: [&str; 6] = ["a", "b", "x", "y", "r", "s"];
const KEPT: [&str; 2] = ["a", "b"];
const PASSING: [&str; 2] = ["r", "s"];

/// A few of these fill the heap.
const THEME_BYTES: usize = 24 << 10;

const BOTH: Range<usize> = 0..2;
const MONEY: Range<usize> = 1..2;

struct Actor {
    world: Rc<World>,
    node: Rc<SimNode>,
    root: Arc<RootCache>,
    index: usize,
}

/// An operation was not carried out: the object was removed meanwhile, or the heap is full.
struct Failed;

type Done = Result<(), Failed>;

/// Lets others act.
async fn pause() {
    let mut paused = false;
    poll_fn(|_| if std::mem::replace(&mut paused, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

pub(crate) async fn run(world: Rc<World>, node: Rc<SimNode>, index: usize) {
    let opened = node.node.open_root::<Session>("sessions", "string".to_owned(), RootOptions::default());
    let (id, binding) = Wait::new(opened).await.expect("the root can be opened");
    let root = node.node.add_root::<Session>("sessions", id, &binding).expect("the type fits");
    world.root.set(id);
    *world.binding.borrow_mut() = Some(binding);
    let actor = Actor { world, node, root, index };
    while !actor.world.stopping.get() {
        let _carried_out_or_not = actor.act().await;
        pause().await;
    }
}

impl Actor {
    async fn act(&self) -> Done {
        let random = &self.world.random;
        let kept = random.one_of(&KEPT);
        match random.below(100) {
            0..22 => self.increment(kept, BOTH).await,
            22..32 => self.increment(random.one_of(&PASSING), BOTH).await,
            32..40 => self.increment(kept, MONEY).await,
            40..50 => self.read(random.one_of(&KEYS)).await,
            50..64 => self.transfer().await,
            64..76 => self.add(kept).await,
            76..79 => self.roll_back(kept).await,
            79..80 => self.watch().await,
            80..86 => {
                self.node.node.evict_one();
                Ok(())
            }
            86..88 => self.grow(random.one_of(&KEYS)).await,
            88..90 => self.fill().await,
            90..93 => {
                self.ask(|request, root, key, _| ToCoordinator::Remove { request, root, key, everywhere: true }).await
            }
            93..95 => {
                self.ask(|request, root, key, _| ToCoordinator::Remove { request, root, key, everywhere: false }).await
            }
            95..98 => self.ask(|request, root, from, to| ToCoordinator::Rename { request, root, from, to }).await,
            _ => self.insert(random.one_of(&PASSING)).await,
        }
    }

    fn doing(&self, what: &'static str) {
        self.node.doing.borrow_mut()[self.index] = what;
    }

    fn writes(&self) -> Bytes {
        let mut changes = Changes::new();
        Session::default().store(&mut changes).expect("it can be stored");
        self.root.binding.encode_record(changes.as_slice()).into()
    }

    /// The object under a key, made if there is none.
    async fn object(&self, key: &'static str) -> Result<Arc<Entry>, Failed> {
        if let Some(entry) = self.root.get(key.as_bytes()) {
            match entry.state() {
                State::Current => return Ok(entry),
                State::Stale => {
                    self.doing("refetch");
                    return self.gone(Wait::new(self.node.node.refetch(&entry)).await).map(|()| entry);
                }
                State::Destroyed | State::Local => {}
            }
        }
        let key = Bytes::from_static(key.as_bytes());
        self.doing("fetch");
        let found = self.gone(Wait::new(self.node.node.fetch(self.root.id, key, Some(self.writes()))).await)?;
        Ok(found.expect("it is made when there is none").entry)
    }

    async fn enter(&self, entry: &Arc<Entry>, groups: Range<usize>, mode: Mode) -> Result<Held, Failed> {
        self.doing("lock");
        match Held::enter(&self.world, &self.node, entry, groups, mode).await {
            Ok(held) => Ok(held),
            Err(NotHeld::Lock(LockFailure::Refused(Failure::Destroyed { .. }))) => Err(Failed),
            Err(NotHeld::Lock(LockFailure::Fenced)) if self.node.lapses.get() > 0 => Err(Failed),
            Err(NotHeld::Fetch(error)) => self.gone(Err(error)),
            Err(other @ NotHeld::Lock(_)) => panic!("{other:?}"),
        }
    }

    async fn increment(&self, key: &'static str, groups: Range<usize>) -> Done {
        let entry = self.object(key).await?;
        pause().await;
        let money = groups == MONEY;
        let held = self.enter(&entry, groups, Mode::Write).await?;
        pause().await;
        held.check();
        let field = if money { Field::Balance } else { Field::Visits };
        let mut guard = Session::guard(&entry.object);
        if money {
            *guard.balance += 1;
        } else {
            *guard.visits += 1;
        }
        let mut changes = Changes::new();
        Session::collect(&mut guard, &mut changes).expect("it can be stored");
        drop(guard);
        let everywhere = self.world.random.below(4) == 0;
        let waiting =
            self.commit(Some(held.life), &[(&entry, &changes)], vec![(entry.id(), field, 1)], everywhere).await?;
        let committed = value(&entry, field);
        drop(held);
        if let Some(ticket) = waiting {
            self.settled(Wait::new(ticket).await)?;
            if everywhere {
                self.check_everywhere(entry.id(), field, committed);
            }
        }
        Ok(())
    }

    /// Queues a commit; waits while the outbox is full.
    async fn commit(
        &self,
        life: Option<u64>,
        changes: &[(&Arc<Entry>, &Changes)],
        added: Vec<(ObjectId, Field, i64)>,
        everywhere: bool,
    ) -> Result<Option<Arc<Ticket<kiln_engine::Outcome>>>, Failed> {
        let changed: Vec<_> =
            changes.iter().map(|(entry, changes)| Changed { entry, changes: changes.as_slice() }).collect();
        let ticket = Ticket::new();
        let (waiter, waiting) = match self.world.random.below(3) {
            0 if !everywhere => (Waiter::None, None),
            _ if everywhere => (Waiter::Everywhere(Arc::clone(&ticket)), Some(ticket)),
            _ => (Waiter::Applied(Arc::clone(&ticket)), Some(ticket)),
        };
        self.doing("commit");
        loop {
            match self.node.node.commit(life, &changed, waiter.clone()) {
                Ok(seq) => {
                    let made = Made { seq, added };
                    self.world.model().committed(&made);
                    self.node.made.borrow_mut().push(made);
                    return Ok(waiting);
                }
                Err(CommitError::OutboxFull) => pause().await,
                Err(CommitError::Destroyed { .. } | CommitError::ArenaFull { .. }) => return Err(Failed),
                Err(CommitError::Fenced) if self.node.lapses.get() > 0 => return Err(Failed),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// No other node shows an older value any more.
    fn check_everywhere(&self, object: ObjectId, field: Field, committed: i64) {
        for node in self.world.nodes() {
            if !node.node.link.is_synced() {
                continue;
            }
            if let Some(entry) = node.node.cache.get(object).filter(|entry| entry.state() == State::Current) {
                let shown = value(&entry, field);
                assert!(shown >= committed, "{field:?} of {object}: {shown} is shown after {committed} was everywhere");
            }
        }
    }

    async fn read(&self, key: &'static str) -> Done {
        let entry = self.object(key).await?;
        let held = self.enter(&entry, BOTH, Mode::Read).await?;
        for _ in 0..self.world.random.below(4) {
            pause().await;
            held.check();
        }
        Ok(())
    }

    async fn transfer(&self) -> Done {
        let (x, y) = (self.object("x").await?, self.object("y").await?);
        let from = self.enter(&x, MONEY, Mode::Write).await?;
        pause().await;
        let to = self.enter(&y, MONEY, Mode::Write).await?;
        let amount = i64::try_from(1 + self.world.random.below(9)).unwrap();
        let (mut one, mut two) = (Session::guard(&x.object), Session::guard(&y.object));
        *one.balance -= amount;
        *two.balance += amount;
        let (mut of_x, mut of_y) = (Changes::new(), Changes::new());
        Session::collect(&mut one, &mut of_x).expect("it can be stored");
        Session::collect(&mut two, &mut of_y).expect("it can be stored");
        drop((one, two));
        let added = vec![(x.id(), Field::Balance, -amount), (y.id(), Field::Balance, amount)];
        let waiting = self.commit(Some(from.life.min(to.life)), &[(&x, &of_x), (&y, &of_y)], added, false).await?;
        drop((from, to));
        match waiting {
            Some(ticket) => self.settled(Wait::new(ticket).await),
            None => Ok(()),
        }
    }

    async fn add(&self, key: &'static str) -> Done {
        let entry = self.object(key).await?;
        let mut guard = Session::guard(&entry.object);
        let amount = i64::try_from(self.world.random.below(7)).unwrap() - 3;
        guard.clicks.add(amount);
        let mut changes = Changes::new();
        Session::collect(&mut guard, &mut changes).expect("it can be stored");
        drop(guard);
        if changes.is_empty() {
            return Ok(());
        }
        match self.commit(None, &[(&entry, &changes)], vec![(entry.id(), Field::Clicks, amount)], false).await? {
            Some(ticket) => self.settled(Wait::new(ticket).await),
            None => Ok(()),
        }
    }

    /// Long strings in a small heap: deltas find no room and make copies stale, commits and faults fail.
    async fn grow(&self, key: &'static str) -> Done {
        let entry = self.object(key).await?;
        let held = self.enter(&entry, 0..1, Mode::Write).await?;
        let mut guard = Session::guard(&entry.object);
        guard.theme.set("x".repeat(self.world.random.below(THEME_BYTES)));
        let mut changes = Changes::new();
        Session::collect(&mut guard, &mut changes).expect("it can be stored");
        drop(guard);
        let waiting = self.commit(Some(held.life), &[(&entry, &changes)], Vec::new(), false).await?;
        drop(held);
        match waiting {
            Some(ticket) => self.settled(Wait::new(ticket).await),
            None => Ok(()),
        }
    }

    /// Fills the heap with what nobody can evict, down to the last bytes, for a while.
    async fn fill(&self) -> Done {
        let versions = vec![0; self.root.binding.groups().len() + 1];
        let mut ballast = Vec::new();
        for bytes in [8 << 10, 1 << 10, 64, 1] {
            let mut changes = Changes::new();
            let session = Session { theme: "x".repeat(bytes), ..Session::default() };
            session.store(&mut changes).expect("it can be stored");
            let writes: Vec<_> = changes.iter().map(Change::as_write).collect();
            while let Ok(object) = Object::new(&self.node.node.heap, &self.root.binding.shape, &writes, &versions) {
                ballast.push(object);
            }
        }
        self.doing("fill");
        for _ in 0..self.world.random.below(60) {
            pause().await;
        }
        Ok(())
    }

    async fn roll_back(&self, key: &'static str) -> Done {
        let entry = self.object(key).await?;
        let held = self.enter(&entry, BOTH, Mode::Write).await?;
        let mut guard = Session::guard(&entry.object);
        *guard.visits += 1000;
        pause().await;
        drop(guard);
        drop(held);
        Ok(())
    }

    async fn ask(
        &self,
        question: impl FnOnce(kiln_protocol::RequestId, kiln_protocol::RootId, Bytes, Bytes) -> ToCoordinator,
    ) -> Done {
        let [one, two] = PASSING.map(|key| Bytes::from_static(key.as_bytes()));
        let (key, to) = if self.world.random.below(2) == 0 { (one, two) } else { (two, one) };
        let root = self.root.id;
        self.doing("remove or rename");
        match Wait::new(self.node.node.ask_yes_no(|request| question(request, root, key, to)).1).await {
            Ok(_) | Err(RequestError::Refused(Failure::KeyTaken)) => Ok(()),
            Err(error) => self.gone(Err(error)),
        }
    }

    async fn watch(&self) -> Done {
        let (mut watching, ticket) = Watching::start(&self.node, self.root.id);
        self.doing("watch");
        self.gone(Wait::new(ticket).await)?;
        for _ in 0..20 + self.world.random.below(100) {
            watching.look();
            pause().await;
        }
        Ok(())
    }

    async fn insert(&self, key: &'static str) -> Done {
        let key = Bytes::from_static(key.as_bytes());
        self.doing("insert");
        let (_, inserted) = self.node.node.insert(self.root.id, key, self.writes());
        self.gone(Wait::new(inserted).await).map(drop)
    }

    /// An object may be removed at any time, the heap be full, the connection be lost; nothing else may go wrong.
    fn gone<T>(&self, answer: Result<T, RequestError>) -> Result<T, Failed> {
        match answer {
            Ok(answer) => Ok(answer),
            Err(RequestError::Refused(Failure::Destroyed { .. }) | RequestError::ArenaFull { .. }) => Err(Failed),
            Err(RequestError::Unknown) if self.node.cuts.get() > 0 => Err(Failed),
            Err(error) => panic!("{error}"),
        }
    }

    fn settled(&self, outcome: kiln_engine::Outcome) -> Done {
        match outcome {
            Ok(()) => Ok(()),
            Err(CommitFailure::Refused(Failure::Destroyed { .. })) => Err(Failed),
            Err(CommitFailure::Unknown) if self.node.lapses.get() > 0 => Err(Failed),
            Err(error) => panic!("{error}"),
        }
    }
}
