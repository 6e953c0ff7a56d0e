//! A node under load, and what happens to it.

use crate::Chaos;
use crate::coordinator::Storage;
use crate::history::Life;
use kiln::Profile;
use kiln_protocol::connection::LEASE;
use kiln_tests::load::MARK;
use kiln_tests::{PATIENCE, Process, Proxy, Random, Way, Weather};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

const TEST_NODE: &str = env!("CARGO_BIN_EXE_test-node");
/// Between two faults of a node.
const CALM: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(3000));
const SECOND: Duration = Duration::from_secs(1);

/// What can happen to a node.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Fault {
    /// Killed while it holds a lock, and started again under the same name.
    Kill,
    /// Paused while it holds a lock, for longer than its lease.
    LongPause,
    /// Paused for long enough to lose the connection at most.
    ShortPause,
    /// Cut off both ways while it holds a lock, for longer than its lease.
    LongCut,
    /// Cut off both ways, and back within the lease, or nearly.
    ShortCut,
    /// What it sends is lost.
    CutUp,
    /// What it should hear is lost.
    CutDown,
    /// Packets are lost and reordered.
    BadWeather,
}

impl Fault {
    pub(crate) const ALL: [Self; 8] = [
        Self::Kill,
        Self::LongPause,
        Self::ShortPause,
        Self::LongCut,
        Self::ShortCut,
        Self::CutUp,
        Self::CutDown,
        Self::BadWeather,
    ];

    /// At least, and at most.
    fn lasts(self) -> (Duration, Duration) {
        let after = |seconds| LEASE + SECOND * seconds;
        match self {
            Self::Kill => (Duration::ZERO, SECOND),
            Self::LongPause | Self::LongCut => (after(1), after(2)),
            Self::ShortPause => (SECOND, LEASE - SECOND),
            Self::ShortCut => (SECOND, LEASE),
            Self::CutUp | Self::CutDown => (SECOND, after(3)),
            Self::BadWeather => (SECOND, SECOND * 3),
        }
    }

    /// Whether the node has a lock then that it must lose.
    const fn holds(self) -> bool {
        matches!(self, Self::Kill | Self::LongPause | Self::LongCut)
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// It is to say that it is attached.
    Attaching,
    /// It is to say that its load runs.
    Loading,
    Calm {
        until: Instant,
    },
    /// It is to say that it holds a lock; then this happens to it.
    Taking {
        fault: Fault,
    },
    Away {
        fault: Fault,
        held: bool,
        until: Instant,
    },
    /// It is to say that it could not commit under a lock that it had lost.
    Releasing,
    /// It is to say that its load has come to an end.
    Unloading,
    Stopped,
}

/// See the module.
pub(crate) struct Node {
    name: String,
    process: Process,
    proxy: Proxy,
    arguments: Vec<OsString>,
    random: Random,
    /// What is still to happen, before everything happens again in another order.
    deck: Vec<Fault>,
    life: Life,
    phase: Phase,
    since: Instant,
}

fn process(name: &str, arguments: &[OsString]) -> Process {
    let arguments: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
    Process::start(name, TEST_NODE, &arguments)
}

impl Node {
    pub(crate) fn start(name: &str, profile: &Profile, directory: &Path, storage: Storage, seed: u64) -> Self {
        let proxy = Proxy::before(profile, seed);
        let profile = proxy.write_profile(profile, directory);
        let mut arguments = vec![profile.into_os_string(), name.into()];
        if storage == Storage::Disk {
            arguments.push("durable".into());
        }
        let process = process(name, &arguments);
        Self {
            name: name.to_owned(),
            process,
            proxy,
            arguments,
            random: Random::new(seed),
            deck: Vec::new(),
            life: Life::default(),
            phase: Phase::Attaching,
            since: Instant::now(),
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.phase == Phase::Stopped
    }

    /// Looks at what it has said, and at the clock.
    pub(crate) fn turn(&mut self, chaos: &mut Chaos, is_over: bool) {
        self.hear(chaos);
        let now = Instant::now();
        match self.phase {
            Phase::Calm { until } if until <= now => {
                if is_over {
                    self.process.say("unload");
                    return self.enter(Phase::Unloading);
                }
                let fault = self.draw();
                if fault.holds() {
                    self.process.say(&format!("hold {}", self.key()));
                    self.enter(Phase::Taking { fault });
                } else {
                    self.begin(chaos, fault, false);
                }
            }
            Phase::Away { fault, held, until } if until <= now => self.finish(fault, held),
            Phase::Calm { .. } | Phase::Away { .. } | Phase::Stopped => {}
            phase
            @ (Phase::Attaching | Phase::Loading | Phase::Taking { .. } | Phase::Releasing | Phase::Unloading) => {
                assert!(now - self.since < 2 * PATIENCE, "{} hangs in {phase:?}", self.name);
            }
        }
    }

    /// The session that only this node holds on purpose.
    fn key(&self) -> String {
        format!("held-by-{}", self.name)
    }

    fn between(&self, (least, most): (Duration, Duration)) -> Duration {
        least + self.random.up_to(most - least)
    }

    fn draw(&mut self) -> Fault {
        if self.deck.is_empty() {
            self.deck = Fault::ALL.to_vec();
        }
        self.deck.swap_remove(self.random.below(self.deck.len()))
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.since = Instant::now();
    }

    fn calm(&mut self) {
        let until = Instant::now() + self.between(CALM);
        self.enter(Phase::Calm { until });
    }

    fn begin(&mut self, chaos: &mut Chaos, fault: Fault, held: bool) {
        *chaos.faults.entry(fault).or_default() += 1;
        let bad = Way { lost_percent: 15, delay_max: Duration::from_millis(20), ..Way::default() };
        match fault {
            Fault::Kill => {
                self.process.kill();
                let last = self.process.last_words();
                self.note(chaos, &last);
                chaos.history.end(std::mem::take(&mut self.life));
            }
            Fault::LongPause | Fault::ShortPause => self.process.pause(),
            Fault::LongCut | Fault::ShortCut => self.proxy.set(Weather::cut()),
            Fault::CutUp => self.proxy.set(Weather::cut_up()),
            Fault::CutDown => self.proxy.set(Weather::cut_down()),
            Fault::BadWeather => self.proxy.set(Weather::both(bad)),
        }
        if held {
            chaos.want(&self.key());
        }
        let until = Instant::now() + self.between(fault.lasts());
        self.enter(Phase::Away { fault, held, until });
    }

    fn finish(&mut self, fault: Fault, held: bool) {
        match fault {
            Fault::Kill => {
                self.process = process(&self.name, &self.arguments);
                return self.enter(Phase::Attaching);
            }
            Fault::LongPause | Fault::ShortPause => self.process.resume(),
            Fault::LongCut | Fault::ShortCut | Fault::CutUp | Fault::CutDown | Fault::BadWeather => self.proxy.heal(),
        }
        if held {
            self.process.say("release commit");
            self.enter(Phase::Releasing);
        } else {
            self.calm();
        }
    }

    fn hear(&mut self, chaos: &mut Chaos) {
        let heard = self.process.heard();
        self.note(chaos, &heard);
    }

    fn note(&mut self, chaos: &mut Chaos, lines: &[String]) {
        // An answer may lead to the end of this process: what it said before that is its history.
        let (records, answers): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.starts_with(MARK));
        for line in records {
            let Ok(record) = line[MARK.len()..].parse() else { panic!("{} says `{line}`", self.name) };
            chaos.history.note(&self.name, &mut self.life, record);
        }
        for line in answers {
            self.answered(chaos, line);
        }
    }

    fn answered(&mut self, chaos: &mut Chaos, line: &str) {
        match (self.phase, line) {
            (Phase::Attaching, "attached") => {
                self.load();
                self.enter(Phase::Loading);
            }
            // The coordinator took the answer along.
            (Phase::Loading, error) if error.starts_with("error") => self.load(),
            (Phase::Loading, "loaded") => self.calm(),
            (Phase::Taking { fault }, "held") => self.begin(chaos, fault, true),
            // It was about to join again, from an earlier fault.
            (Phase::Taking { fault }, error) if error.starts_with("error") => self.begin(chaos, fault, false),
            (Phase::Releasing, error) if error.contains("lease has lapsed") => {
                chaos.guards_fenced += 1;
                self.calm();
            }
            (Phase::Unloading, "unloaded") => self.enter(Phase::Stopped),
            (phase, line) => panic!("{} says `{line}` in {phase:?}", self.name),
        }
    }

    fn load(&mut self) {
        self.process.say(&format!("load {}", self.random.next()));
    }

    /// Has it commit once more, behind everything that it ever sent.
    pub(crate) fn settle(&mut self) {
        assert_eq!(self.process.ask(&format!("update settled-by-{}", self.name)), "updated");
    }

    /// Whether the node, now that it is quiet, reads something else than it should.
    pub(crate) fn sees_otherwise(&mut self, key: &str, sum: u64) -> Option<String> {
        let seen = self.process.ask(&format!("read {key}"));
        (seen != format!("visits {sum} theme \"\"")).then(|| format!("{} has {key} with {seen}, not {sum}", self.name))
    }
}
