//! The coordinator of the nodes, and what happens to it when it keeps its state on disk.

use kiln::Profile;
use kiln_protocol::connection::LEASE;
use kiln_protocol::profile::split_address;
use kiln_tests::{PATIENCE, Process, Random};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

const TEST_COORDINATOR: &str = env!("CARGO_BIN_EXE_test-coordinator");
/// Between two faults: long enough for nodes to find it again and to go on.
const CALM: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(8));
const SECOND: Duration = Duration::from_secs(1);

/// Where the coordinator keeps its state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Storage {
    /// Nothing happens to it: another one would know nothing of what this one had acknowledged.
    Memory,
    /// It fails now and then, and another one goes on with what it has kept.
    Disk,
}

/// What can happen to the coordinator.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Failure {
    /// Killed, and started again within the lease.
    Kill,
    /// Killed, and started again when every lease has lapsed.
    LongKill,
    /// Killed, started again, and killed as soon as it answers.
    KillTwice,
    /// Paused for less than a lease.
    Pause,
    /// Paused until every lease has lapsed.
    LongPause,
}

impl Failure {
    pub(crate) const ALL: [Self; 5] = [Self::Kill, Self::LongKill, Self::KillTwice, Self::Pause, Self::LongPause];

    /// At least, and at most.
    const fn lasts(self) -> (Duration, Duration) {
        match self {
            Self::Kill | Self::KillTwice => (Duration::ZERO, SECOND),
            Self::Pause => (SECOND, Duration::from_secs(LEASE.as_secs() - 1)),
            Self::LongKill | Self::LongPause => {
                (Duration::from_secs(LEASE.as_secs() + 1), Duration::from_secs(LEASE.as_secs() + 2))
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Nothing happens to it, or no more.
    Steady,
    Calm {
        until: Instant,
    },
    Away {
        failure: Failure,
        until: Instant,
    },
    /// It is to say that it runs.
    Starting {
        since: Instant,
        again: bool,
    },
}

/// See the module.
pub(crate) struct Coordinator {
    process: Process,
    arguments: Vec<OsString>,
    profile_path: PathBuf,
    pub(crate) profile: Profile,
    random: Random,
    /// What is still to happen, before everything happens again in another order.
    deck: Vec<Failure>,
    phase: Phase,
    pub(crate) failures: BTreeMap<Failure, u64>,
}

fn start(arguments: &[OsString]) -> Process {
    let arguments: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
    Process::start("the coordinator", TEST_COORDINATOR, &arguments)
}

impl Coordinator {
    pub(crate) fn start(files: &Path, storage: Storage, seed: u64) -> Self {
        let mut arguments = vec![files.as_os_str().to_owned(), "0".into()];
        if storage == Storage::Disk {
            arguments.push("disk".into());
        }
        let mut process = start(&arguments);
        let line = process.hear();
        let path = line.strip_prefix("profile ").expect("where the profile is");
        let profile = Profile::parse(&std::fs::read_to_string(path).expect("the profile")).expect("a profile");
        // The next one is where nodes seek it.
        arguments[1] = split_address(&profile.address).expect("an address").1.to_string().into();
        let mut coordinator = Self {
            process,
            arguments,
            profile_path: path.into(),
            profile,
            random: Random::new(seed),
            deck: Vec::new(),
            phase: Phase::Steady,
            failures: BTreeMap::new(),
        };
        if storage == Storage::Disk {
            coordinator.calm();
        }
        coordinator
    }

    pub(crate) fn profile_path(&self) -> &Path {
        &self.profile_path
    }

    /// Whether it runs, and nothing will happen to it any more.
    pub(crate) const fn is_steady(&self) -> bool {
        matches!(self.phase, Phase::Steady)
    }

    /// Looks at the clock.
    pub(crate) fn turn(&mut self, is_over: bool) {
        let now = Instant::now();
        match self.phase {
            Phase::Steady => {}
            Phase::Calm { .. } if is_over => self.phase = Phase::Steady,
            Phase::Calm { until } if until <= now => self.begin(),
            Phase::Away { failure, until } if until <= now => self.finish(failure),
            Phase::Calm { .. } | Phase::Away { .. } => {}
            Phase::Starting { since, again } => match self.process.heard().first() {
                Some(line) => {
                    assert!(line.starts_with("profile "), "the coordinator says `{line}`");
                    if again { self.kill(Failure::Kill) } else { self.calm() }
                }
                None => assert!(now - since < PATIENCE, "the coordinator does not start"),
            },
        }
    }

    fn between(&self, (least, most): (Duration, Duration)) -> Duration {
        least + self.random.up_to(most - least)
    }

    fn calm(&mut self) {
        self.phase = Phase::Calm { until: Instant::now() + self.between(CALM) };
    }

    fn begin(&mut self) {
        if self.deck.is_empty() {
            self.deck = Failure::ALL.to_vec();
        }
        let failure = self.deck.swap_remove(self.random.below(self.deck.len()));
        *self.failures.entry(failure).or_default() += 1;
        match failure {
            Failure::Kill | Failure::LongKill | Failure::KillTwice => self.kill(failure),
            Failure::Pause | Failure::LongPause => {
                self.process.pause();
                self.away(failure);
            }
        }
    }

    fn kill(&mut self, failure: Failure) {
        self.process.kill();
        self.away(failure);
    }

    fn away(&mut self, failure: Failure) {
        self.phase = Phase::Away { failure, until: Instant::now() + self.between(failure.lasts()) };
    }

    fn finish(&mut self, failure: Failure) {
        match failure {
            Failure::Kill | Failure::LongKill | Failure::KillTwice => {
                self.process = start(&self.arguments);
                self.phase = Phase::Starting { since: Instant::now(), again: failure == Failure::KillTwice };
            }
            Failure::Pause | Failure::LongPause => {
                self.process.resume();
                self.calm();
            }
        }
    }
}
