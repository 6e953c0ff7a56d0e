//! A load that says what it does, so that a history can be checked: each increment before it is committed, and what
//! became of it; each time that a named lock was held. One line each, also for nodes that are killed meanwhile.

use crate::random::Random;
use crate::session::{Session, SessionCounters as _};
use kiln::{AccessError, ClusterEvent, Commit, CommitError, CommitSeq, Incarnation, Root, Runtime, Shared};
use rustix::time::{ClockId, clock_gettime};
use std::fmt;
use std::io::Write as _;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

/// The sessions that the load of every node increments. Each node has another one for itself, whose locks it keeps.
const KEYS: [&str; 3] = ["s0", "s1", "s2"];
/// The named locks that it takes.
const LOCKS: [&str; 2] = ["l0", "l1"];
/// What each line of it begins with; answers to commands do not.
pub const MARK: &str = "- ";
const HOLD_MAX: Duration = Duration::from_millis(40);
/// So that a lock that a node took along does not keep everybody from everything else.
const TIMEOUT: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_millis(8);

/// Something that the load did, or that happened to its node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Record {
    /// It is about to set the number to this, one more than it found under the lock.
    Tried(String, u64),
    /// The commit of that was acknowledged.
    Acked(String, u64),
    /// Nothing of it happened, because the lease had lapsed.
    Fenced(String, u64),
    /// Nothing of it happened, for another reason.
    Failed(String, u64),
    /// It may have happened.
    Unknown(String, u64, Commit),
    /// Is about to add 1.
    Adding(String),
    /// That add was made, and a later commit of the same incarnation was acknowledged.
    Added(String),
    /// A named lock was held from then until then, in nanoseconds of the machine's clock.
    Held(String, u64, u64),
    /// A lock was not taken, for this reason.
    Missed(String),
    /// Connected again as the same incarnation.
    Resumed,
    /// Another incarnation.
    Rejoined,
    /// The connection is lost.
    Lost,
    /// The node has ended.
    Ended,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tried(key, value) => write!(f, "tried {key} {value}"),
            Self::Acked(key, value) => write!(f, "acked {key} {value}"),
            Self::Fenced(key, value) => write!(f, "fenced {key} {value}"),
            Self::Failed(key, value) => write!(f, "failed {key} {value}"),
            Self::Unknown(key, value, commit) => {
                let seq = commit.seq.unwrap_or_default().to_bits();
                write!(f, "unknown {key} {value} {} {seq}", commit.incarnation.to_bits())
            }
            Self::Adding(key) => write!(f, "adding {key}"),
            Self::Added(key) => write!(f, "added {key}"),
            Self::Held(name, from, to) => write!(f, "held {name} {from} {to}"),
            Self::Missed(reason) => write!(f, "missed {reason}"),
            Self::Resumed => f.write_str("resumed"),
            Self::Rejoined => f.write_str("rejoined"),
            Self::Lost => f.write_str("lost"),
            Self::Ended => f.write_str("ended"),
        }
    }
}

/// A line that is no record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NoRecord;

impl FromStr for Record {
    type Err = NoRecord;

    fn from_str(line: &str) -> Result<Self, NoRecord> {
        let number = |word: &str| word.parse().map_err(|_none| NoRecord);
        let words: Vec<&str> = line.split_whitespace().collect();
        Ok(match *words {
            ["tried", key, value] => Self::Tried(key.to_owned(), number(value)?),
            ["acked", key, value] => Self::Acked(key.to_owned(), number(value)?),
            ["fenced", key, value] => Self::Fenced(key.to_owned(), number(value)?),
            ["failed", key, value] => Self::Failed(key.to_owned(), number(value)?),
            ["unknown", key, value, incarnation, seq] => {
                let incarnation = Incarnation::from_bits(number(incarnation)?);
                let seq = Some(CommitSeq::from_bits(number(seq)?));
                Self::Unknown(key.to_owned(), number(value)?, Commit { incarnation, seq, is_local: false })
            }
            ["adding", key] => Self::Adding(key.to_owned()),
            ["added", key] => Self::Added(key.to_owned()),
            ["held", name, from, to] => Self::Held(name.to_owned(), number(from)?, number(to)?),
            ["missed", reason] => Self::Missed(reason.to_owned()),
            ["resumed"] => Self::Resumed,
            ["rejoined"] => Self::Rejoined,
            ["lost"] => Self::Lost,
            ["ended"] => Self::Ended,
            _ => return Err(NoRecord),
        })
    }
}

/// Errors say that nobody listens: then the process is about to end as well.
fn tell(record: &Record) {
    let mut output = std::io::stdout().lock();
    drop(writeln!(output, "{MARK}{record}").and_then(|()| output.flush()));
}

/// The machine's clock, the same for all its processes.
fn nanos() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// A running load.
#[derive(Debug)]
pub struct Load {
    stopped: Arc<AtomicBool>,
    tasks: JoinSet<()>,
    _events: JoinSet<()>,
}

impl Load {
    /// Starts it.
    ///
    /// # Errors
    /// When the objects cannot be had.
    pub async fn start(kiln: &Runtime, sessions: &Root<String, Session>, seed: u64) -> Result<Self, AccessError> {
        let stopped = Arc::new(AtomicBool::new(false));
        let mut all = Vec::new();
        let own = format!("own-{}", kiln.node().name);
        for key in KEYS.into_iter().chain([&*own]) {
            let session = sessions.get_or_create(key, Session::default).await?;
            all.push((key.to_owned(), session.with_timeout(TIMEOUT)));
        }
        let mut events = JoinSet::new();
        events.spawn(tell_events(kiln.clone()));
        events.spawn(tell_end(kiln.clone()));
        let mut tasks = JoinSet::new();
        for (number, kind) in (0..).zip([Kind::Quick, Kind::Held, Kind::Named, Kind::Added]) {
            let random = Random::new(seed ^ (number << 48));
            let (kiln, all) = (kiln.clone(), all.clone());
            tasks.spawn(Worker { kiln, all, stopped: Arc::clone(&stopped) }.work(random, kind));
        }
        Ok(Self { stopped, tasks, _events: events })
    }

    /// Lets everything under way come to an end.
    pub async fn stop(self) {
        // Relaxed: nothing else depends on it.
        self.stopped.store(true, Ordering::Relaxed);
        self.tasks.join_all().await;
    }
}

async fn tell_events(kiln: Runtime) {
    let mut events = kiln.events();
    let mut rejoined = false;
    while let Some(event) = events.next().await {
        match event {
            ClusterEvent::OperationsDisabled => tell(&Record::Lost),
            ClusterEvent::Rejoined { .. } => {
                rejoined = true;
                tell(&Record::Rejoined);
            }
            ClusterEvent::OperationsEnabled if !std::mem::take(&mut rejoined) => tell(&Record::Resumed),
            _ => {}
        }
    }
}

async fn tell_end(kiln: Runtime) {
    kiln.closed().await;
    tell(&Record::Ended);
}

#[derive(Clone, Copy)]
enum Kind {
    Quick,
    /// The lock is held for a while.
    Held,
    /// Under a named lock.
    Named,
    /// After an add.
    Added,
}

struct Worker {
    kiln: Runtime,
    all: Vec<(String, Shared<Session>)>,
    stopped: Arc<AtomicBool>,
}

impl Worker {
    async fn work(self, random: Random, kind: Kind) {
        // Relaxed: see `stop`.
        while !self.stopped.load(Ordering::Relaxed) {
            let (key, session) = &self.all[random.below(self.all.len())];
            let name = random.one_of(&LOCKS);
            let (hold, pause) = (random.up_to(HOLD_MAX), random.up_to(PAUSE_MAX));
            match kind {
                Kind::Quick => drop(increment(key, session, Duration::ZERO).await),
                Kind::Held => drop(increment(key, session, hold).await),
                Kind::Named => self.named(name, key, session, hold).await,
                Kind::Added => self.added(key, session).await,
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn named(&self, name: &str, key: &str, session: &Shared<Session>, hold: Duration) {
        let incarnation = self.kiln.node().incarnation;
        // Had anew each time: it is removed when every node that had it has lost its lease.
        let lock = match self.kiln.lock(name).await {
            Ok(lock) => lock.with_timeout(TIMEOUT),
            Err(error) => return tell(&missed(&error)),
        };
        let held = match lock.write().await {
            Ok(held) => held,
            Err(error) => return tell(&missed(&error)),
        };
        let from = nanos();
        // A commit of the same incarnation shows that the lease, and so the lock, was good until then.
        let done = increment(key, session, hold).await;
        if let Some((_, to)) = done.filter(|(commit, _)| commit.incarnation == incarnation) {
            tell(&Record::Held(name.to_owned(), from, to));
        }
        drop(held);
    }

    async fn added(&self, key: &str, session: &Shared<Session>) {
        let before = self.kiln.node().incarnation;
        tell(&Record::Adding(key.to_owned()));
        if session.clicks().add(1).is_err() {
            return;
        }
        let after = self.kiln.node().incarnation;
        let done = increment(key, session, Duration::ZERO).await;
        if done.is_some_and(|(commit, _)| commit.incarnation == before && before == after) {
            tell(&Record::Added(key.to_owned()));
        }
    }
}

/// The name of the error's variant.
fn missed(error: &impl fmt::Debug) -> Record {
    let error = format!("{error:?}");
    Record::Missed(error.chars().take_while(char::is_ascii_alphanumeric).collect())
}

/// Returns the commit and a time before it was made, when it was acknowledged.
async fn increment(key: &str, session: &Shared<Session>, hold: Duration) -> Option<(Commit, u64)> {
    let mut guard = match session.write().await {
        Ok(guard) => guard,
        Err(error) => {
            tell(&missed(&error));
            return None;
        }
    };
    let (key, value) = (key.to_owned(), *guard.visits + 1);
    *guard.visits = value;
    tokio::time::sleep(hold).await;
    tell(&Record::Tried(key.clone(), value));
    let before = nanos();
    let (record, done) = match guard.commit().await {
        Ok(commit) => (Record::Acked(key, value), Some((commit, before))),
        Err(CommitError::Unknown { commit } | CommitError::Timeout { commit, .. }) => {
            (Record::Unknown(key, value, commit), None)
        }
        Err(CommitError::Fenced) => (Record::Fenced(key, value), None),
        Err(_) => (Record::Failed(key, value), None),
    };
    tell(&record);
    done
}
