//! What the tasks of a process do, again and again: the operations of a program, in steps between which others act.

mod commits;
mod operations;
mod transactions;

use crate::clock::{MILLI, Nanos, SECOND};
use crate::executor::{Task, span};
use crate::held::{Held, NotHeld};
use crate::process::Process;
use crate::program::{Named, Program};
use crate::sometimes::Sometimes;
use crate::world::World;
use bytes::Bytes;
use kiln::{Changes, Clustered};
use kiln_engine::{Entry, LockFailure, RequestError, RootCache, State, Wait};
use kiln_protocol::Failure;
use kiln_protocol::message::{Mode, RootOptions};
use kiln_tests::Session;
use std::marker::PhantomData;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

/// An object by its root and its key. The pair is only changed together; the passing ones come and go.
pub(crate) type Address = (usize, &'static str);
const KEPT: [Address; 3] = [(0, "a"), (0, "b"), (1, "a")];
pub(crate) const PAIR: [Address; 2] = [(0, "x"), (1, "y")];
const PASSING: [&str; 2] = ["r", "s"];
const ALL: [Address; 7] = [(0, "a"), (0, "b"), (1, "a"), (0, "x"), (1, "y"), (0, "r"), (0, "s")];
/// The names of the roots of sessions, and of that of named locks.
const ROOTS: [&str; 2] = ["sessions", "orders"];
const LOCKS: &str = "locks";
const NAMES: [&str; 2] = ["m", "n"];
const SHARED: [&str; 3] = ["p", "q", "t"];

/// The local index of the group of money, in both versions.
const MONEY: Range<usize> = 1..2;
/// Most operations wait for so long at most, some for less than the network takes.
const DEADLINES_MS: [u64; 4] = [10_000, 10_000, 10_000, 40];

const RUSH_EVERY: Nanos = 9 * SECOND;
const RUSH: Nanos = 600 * MILLI;

struct Actor<P> {
    world: Rc<World>,
    process: Rc<Process>,
    roots: [Arc<RootCache>; 2],
    named: Arc<RootCache>,
    index: usize,
    program: PhantomData<P>,
}

/// An operation was not carried out: the object was removed meanwhile, the heap is full, the lease has lapsed.
struct Failed;

type Done = Result<(), Failed>;

/// A task of a process, in the version that the process runs.
pub(crate) fn start(world: Rc<World>, process: Rc<Process>, index: usize) -> Task {
    if process.is_later {
        Box::pin(run::<crate::program::Later>(world, process, index))
    } else {
        Box::pin(run::<Session>(world, process, index))
    }
}

async fn run<P: Program>(world: Rc<World>, process: Rc<Process>, index: usize) {
    let Some(actor) = Actor::<P>::begin(world, process, index).await else { return };
    while !actor.world.stopping.get() && actor.process.node().ended().is_none() {
        let most = span(actor.world.random.one_of(&DEADLINES_MS));
        if actor.world.within(&actor.process, most, actor.act()).await.is_none() {
            actor.world.reached(Sometimes::TimedOut);
            actor.world.invariants.gave_up(&actor.world, &actor.process, actor.index, most);
        }
        actor.doing("rests");
        let rest = match actor.world.random.below(2) {
            // All of them at once, now and then.
            _ if actor.is_rush() => 2 * MILLI,
            0 => 3 * SECOND,
            _ => 30 * MILLI,
        };
        actor.world.pause(&actor.process, rest).await;
    }
    if actor.world.faults_over.get() && index == 0 && actor.process.node().ended().is_none() {
        actor.probe().await;
    }
}

impl<P: Program> Actor<P> {
    async fn begin(world: Rc<World>, process: Rc<Process>, index: usize) -> Option<Self> {
        let plain = RootOptions::default();
        let sessions = open::<P>(&process, ROOTS[0], plain.clone()).await?;
        let orders = open::<P>(&process, ROOTS[1], plain).await?;
        *process.roots.borrow_mut() = [&sessions, &orders].map(|root| Some(Arc::clone(root)));
        let named = open::<Named>(&process, LOCKS, RootOptions { ephemeral: true, ..RootOptions::default() }).await?;
        Some(Self { world, process, roots: [sessions, orders], named, index, program: PhantomData })
    }

    async fn act(&self) -> Done {
        let random = &self.world.random;
        let kept = random.one_of(&KEPT);
        let passing = (0, random.one_of(&PASSING));
        let deed = random.below(100);
        match deed {
            // Together they get in each other's way.
            _ if self.is_rush() && deed < 50 => self.transact().await,
            0..20 => self.increment(kept, false).await,
            20..28 => self.increment(passing, false).await,
            28..35 => self.increment(kept, true).await,
            35..43 => self.read(random.one_of(&ALL)).await,
            43..53 => self.transfer().await,
            53..57 => self.add(kept).await,
            57..63 => self.spend(kept, passing).await,
            63..76 => self.transact().await,
            76..80 => self.hold_named().await,
            80..81 => self.roll_back(kept).await,
            81..84 => self.watch().await,
            84..86 => {
                self.process.node().evict_one();
                Ok(())
            }
            86..88 => self.grow(random.one_of(&ALL)).await,
            88..89 => self.fill().await,
            89..92 => self.remove().await,
            92..94 => self.rename().await,
            94..96 => self.insert().await,
            _ => self.ask_fate().await,
        }
    }

    fn is_rush(&self) -> bool {
        self.world.now() % RUSH_EVERY < RUSH
    }

    fn doing(&self, what: &'static str) {
        self.process.doing.borrow_mut()[self.index] = what;
    }

    /// A new value of a session, as a record.
    fn writes(&self) -> Bytes {
        record(&self.roots[0], &P::default())
    }

    /// The object under a key, made if there is none.
    async fn object(&self, (root, key): Address) -> Result<Arc<Entry>, Failed> {
        self.found(&self.roots[root], key, self.writes()).await
    }

    async fn found(&self, root: &Arc<RootCache>, key: &'static str, writes: Bytes) -> Result<Arc<Entry>, Failed> {
        let node = self.process.node();
        if let Some(entry) = root.get(key.as_bytes()) {
            match entry.state() {
                State::Current => return Ok(entry),
                State::Stale => {
                    self.doing("refetch");
                    return self.gone(Wait::new(node.refetch(&entry)).await).map(|()| entry);
                }
                State::Destroyed | State::Local => {}
            }
        }
        self.doing("fetch");
        let key = Bytes::from_static(key.as_bytes());
        let found = self.gone(Wait::new(node.fetch(root.id, key, Some(writes))).await)?;
        Ok(found.expect("it is made when there is none").entry)
    }

    fn groups(entry: &Entry) -> Range<usize> {
        0..entry.locks().len()
    }

    async fn enter(&self, entry: &Arc<Entry>, groups: Range<usize>, mode: Mode) -> Result<Held, Failed> {
        self.doing("lock");
        let held = Held::enter(&self.world, &self.process, entry, (groups, mode), None).await;
        held.or_else(|error| self.not_held(error))
    }

    #[expect(clippy::panic, reason = "nothing else may go wrong")]
    fn not_held<T>(&self, error: NotHeld) -> Result<T, Failed> {
        match error {
            NotHeld::Lock(LockFailure::Refused(Failure::Destroyed { .. })) => {
                self.world.reached(Sometimes::DestroyedWhileWaiting);
                Err(Failed)
            }
            // Also before the driver has noticed.
            NotHeld::Lock(LockFailure::Fenced) if self.may_have_lapsed() => Err(Failed),
            NotHeld::Lock(LockFailure::Disconnected) if self.has_ended() => Err(Failed),
            NotHeld::Fetch(error) => self.gone(Err(error)),
            other @ NotHeld::Lock(_) => panic!("{other:?}"),
        }
    }

    fn may_have_lapsed(&self) -> bool {
        self.process.figures.lapses.get() > 0 || !self.process.is_leased(self.world.now())
    }

    fn has_ended(&self) -> bool {
        self.process.node().ended().is_some()
    }

    /// An object may be removed at any time, the heap be full, the connection be lost; nothing else may go wrong.
    #[expect(clippy::panic, reason = "nothing else may go wrong")]
    fn gone<T>(&self, answer: Result<T, RequestError>) -> Result<T, Failed> {
        match answer {
            Ok(answer) => Ok(answer),
            Err(RequestError::Refused(Failure::Destroyed { .. })) => Err(Failed),
            Err(RequestError::ArenaFull { .. }) => {
                self.heap_full();
                Err(Failed)
            }
            Err(RequestError::Unknown) if self.process.figures.cuts.get() > 0 || self.may_have_lapsed() => Err(Failed),
            Err(RequestError::Disconnected) if self.has_ended() => Err(Failed),
            Err(error) => panic!("{error}"),
        }
    }

    fn heap_full(&self) {
        self.world.reached(Sometimes::HeapFull);
        self.world.faults.note(crate::faults::Fault::HeapFull);
    }
}

/// A new value, as a record of a root.
fn record<T: Clustered>(root: &RootCache, value: &T) -> Bytes {
    let mut changes = Changes::new();
    value.store(&mut changes).expect("it can be stored");
    root.binding.encode_record(changes.as_slice()).into()
}

async fn open<T: Clustered>(process: &Process, name: &str, options: RootOptions) -> Option<Arc<RootCache>> {
    let opened = Wait::new(process.node().open_root::<T>(name, "string".to_owned(), options.clone())).await;
    let (id, binding) = match opened {
        Ok(opened) => opened,
        Err(RequestError::Disconnected) => return None,
        Err(error) => unreachable!("root {name} cannot be opened: {error}"),
    };
    Some(process.node().add_root::<T>(name, id, &binding, &options).expect("the type fits"))
}
