//! Listener groups: every event of a root is handed to one listener, and to another when that one leaves.

use super::super::{Entry, Event, LogSeq, LogTime, Settings};
use super::cluster::{Cluster, EPOCH, MAIN, SESSIONS, visits};
use super::kept::{everything, next_settings, replayed};
use kiln_protocol::connection::LEASE;
use kiln_protocol::message::Change;
use kiln_protocol::{Epoch, EventId, ListenerId, ToCoordinator, ToNode};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const NOTHING: [&str; 0] = [];
const LISTENER: ListenerId = ListenerId::from_bits(1);

fn listen_in(cluster: &mut Cluster, name: &str, group: &str) {
    let (request, group) = (cluster.request(), group.to_owned());
    cluster.send(name, ToCoordinator::Listen { request, listener: LISTENER, root: SESSIONS, group });
}

fn listen(cluster: &mut Cluster, name: &str) {
    listen_in(cluster, name, "mail");
}

fn acknowledge(cluster: &mut Cluster, name: &str, event: u64) {
    cluster.send(name, ToCoordinator::Heard { listener: LISTENER, event: EventId::from_bits(event) });
}

/// A node that does something, and two that listen.
fn two_listeners(mut cluster: Cluster) -> Cluster {
    for name in ["ann", "bob"] {
        listen(&mut cluster, name);
        cluster.sync_all();
        assert_eq!(cluster.sent_to(name), ["yes"]);
    }
    cluster
}

#[test]
fn one_of_all_listeners_is_told_everything_in_order() {
    let mut cluster = two_listeners(Cluster::of(&["ann", "bob", "cy"]));
    let s = cluster.get_or_create("cy", "s");
    cluster.commit("cy", s, MAIN, visits(1));
    cluster.forget("cy", s);
    cluster.rename("cy", "s", "t");
    cluster.remove("cy", "t", false);
    assert_eq!(
        cluster.sent_to("ann"),
        [
            "notice 1: 1: s created",
            "notice 1: 2: s updated 0v1 visits",
            "notice 1: 3: s renamed to t",
            "notice 1: 4: t removed",
        ]
    );
    assert_eq!(cluster.sent_to("bob"), NOTHING);
    for event in [2, 1, 4, 4] {
        acknowledge(&mut cluster, "ann", event);
    }
    cluster.detach("ann");
    assert_eq!(cluster.sent_to("bob"), ["notice 1: 3 again: s renamed to t"]);
    acknowledge(&mut cluster, "bob", 3);
    cluster.get_or_create("cy", "u");
    assert_eq!(cluster.sent_to("bob"), ["notice 1: 5: u created"]);
}

#[test]
fn nobody_has_to_be_there_for_an_event_to_be_kept() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    listen(&mut cluster, "ann");
    cluster.send("ann", ToCoordinator::Unlisten { listener: LISTENER });
    cluster.get_or_create("bob", "s");
    cluster.sent_to("ann");
    listen(&mut cluster, "ann");
    assert_eq!(cluster.sent_to("ann"), ["yes", "notice 1: 1: s created"], "nobody was handed it before");
}

#[test]
fn a_listener_has_so_many_unacknowledged_events_at_most() {
    let mut cluster = two_listeners(Cluster::of(&["ann", "bob", "cy"]));
    for key in 0..100 {
        cluster.get_or_create("cy", &key.to_string());
    }
    assert_eq!(cluster.sent_to("ann").len(), 64);
    acknowledge(&mut cluster, "ann", 64);
    acknowledge(&mut cluster, "ann", 1);
    assert_eq!(cluster.sent_to("ann"), ["notice 1: 65: 64 created", "notice 1: 66: 65 created"]);
    cluster.lose("ann");
    let heard = cluster.sent_to("bob");
    assert_eq!((heard.len(), &heard[0][..]), (64, "notice 1: 2 again: 1 created"));
    assert!(heard.iter().all(|message| message.contains("again")), "{heard:?}");
}

#[test]
fn what_a_listener_of_before_acknowledges_late_is_heard() {
    let mut cluster = two_listeners(Cluster::of(&["ann", "bob", "cy"]));
    cluster.get_or_create("cy", "s");
    cluster.send("ann", ToCoordinator::Unlisten { listener: LISTENER });
    listen(&mut cluster, "ann");
    acknowledge(&mut cluster, "ann", 1);
    cluster.detach("bob");
    cluster.sent_to("ann");
    cluster.get_or_create("cy", "t");
    assert_eq!(cluster.sent_to("ann"), ["notice 1: 2: t created"]);
}

#[test]
fn what_does_not_fit_is_counted() {
    let max = super::super::queues::QUEUED_MAX;
    let mut cluster = Cluster::of(&["ann", "bob"]);
    listen(&mut cluster, "ann");
    let s = cluster.get_or_create("bob", "s");
    for value in 1..max as u64 + 10 {
        cluster.commit("bob", s, MAIN, visits(value));
    }
    let mut ids = Vec::new();
    let mut missed = 0;
    while let Some(message) = cluster.peer("ann").inbox.pop_front() {
        if let ToNode::Notice { event, change, .. } = message {
            ids.push(event.to_bits());
            if let Change::Missed { events } = change {
                missed += events;
            }
            acknowledge(&mut cluster, "ann", event.to_bits());
        }
    }
    assert_eq!(missed, 10);
    assert_eq!(ids, (1..=max as u64 + 1).collect::<Vec<_>>());
    cluster.commit("bob", s, MAIN, visits(0));
    assert_eq!(cluster.sent_to("ann"), [format!("notice 1: {}: s updated 0v{} visits", max + 2, max + 10)]);
}

#[test]
fn groups_hear_apart_and_end_with_all_they_have_not_heard() {
    let mut cluster = Cluster::of(&["ann", "bob", "cy"]);
    listen_in(&mut cluster, "ann", "mail");
    listen_in(&mut cluster, "bob", "audit");
    cluster.get_or_create("cy", "s");
    assert_eq!(cluster.sent_to("bob"), ["yes", "notice 1: 1: s created"]);
    let request = cluster.request();
    cluster.send("bob", ToCoordinator::EndListeners { request, root: SESSIONS, group: "mail".to_owned() });
    assert_eq!(cluster.sent_to("bob"), ["yes"]);
    assert_eq!(cluster.sent_to("ann"), ["yes", "notice 1: 1: s created", "listener 1 ended"]);
    let request = cluster.request();
    cluster.send("bob", ToCoordinator::EndListeners { request, root: SESSIONS, group: "mail".to_owned() });
    assert_eq!(cluster.sent_to("bob"), ["no"]);
    cluster.get_or_create("cy", "t");
    listen(&mut cluster, "ann");
    assert_eq!(cluster.sent_to("ann"), ["yes"], "a new group hears what comes");
    listen(&mut cluster, "ann");
    assert_eq!(
        cluster.sent_to("ann"),
        ["failed: protocol violation: listener 1 is there already: end it first, or choose another number"]
    );
}

#[test]
fn nothing_is_handed_out_before_it_is_safe() {
    let mut cluster = two_listeners(Cluster::logged(&["ann", "bob", "cy"]));
    let s = cluster.get_or_create("cy", "s");
    assert_eq!(cluster.sent_to("ann"), ["notice 1: 1: s created"]);
    cluster.commit("cy", s, MAIN, visits(1));
    assert_eq!(cluster.sent_to("ann"), NOTHING);
    cluster.sync_all();
    assert_eq!(cluster.sent_to("ann"), ["notice 1: 2: s updated 0v1 visits"]);
}

#[test]
fn a_start_with_a_log_has_every_event_that_was_not_acknowledged() {
    let mut cluster = two_listeners(Cluster::logged(&["ann", "bob", "cy"]));
    for key in ["a", "b", "c"] {
        cluster.get_or_create("cy", key);
    }
    acknowledge(&mut cluster, "ann", 2);
    cluster.sync_all();
    let before = everything(&mut cluster.engine);
    let settings = Settings { durable: true, ..next_settings() };
    let mut again = Cluster::restored(replayed(&cluster.log, cluster.last_entry()), settings);
    let queues = |pieces: &[super::super::Piece]| {
        let of_queues = |piece: &&super::super::Piece| {
            matches!(piece, super::super::Piece::Queue { .. } | super::super::Piece::Event { .. })
        };
        pieces.iter().filter(of_queues).cloned().collect::<Vec<_>>()
    };
    assert_eq!(queues(&before).len(), 3);
    assert_eq!(queues(&before), queues(&everything(&mut again.engine)));
    again.join(&["dan"]);
    again.sync_all();
    listen(&mut again, "dan");
    assert_eq!(again.sent_to("dan"), ["yes", "notice 1: 1 again: a created", "notice 1: 3 again: c created"]);
}

#[test]
fn a_full_log_hears_later() {
    let mut cluster = two_listeners(Cluster::logged(&["ann", "bob", "cy"]));
    cluster.get_or_create("cy", "s");
    cluster.event(Event::LogFull);
    acknowledge(&mut cluster, "ann", 1);
    let heard = |cluster: &Cluster| cluster.log.iter().any(|(_, entry)| matches!(entry, Entry::Heard { .. }));
    assert!(!heard(&cluster));
    cluster.event(Event::LogHasRoom);
    assert!(heard(&cluster));
}

#[derive(Clone, Debug)]
enum Step {
    Create,
    Commit,
    Listen {
        who: usize,
    },
    Unlisten {
        who: usize,
    },
    /// The node is gone, or its connection; another one comes in its stead.
    Leave {
        who: usize,
        polite: bool,
    },
    Acknowledge {
        who: usize,
        which: usize,
    },
    Sync,
    /// The coordinator dies, and is started again with what was safe.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let who = || 0..NAMES.len();
    prop_oneof![
        6 => Just(Step::Create),
        4 => Just(Step::Commit),
        4 => who().prop_map(|who| Step::Listen { who }),
        1 => who().prop_map(|who| Step::Unlisten { who }),
        2 => (who(), any::<bool>()).prop_map(|(who, polite)| Step::Leave { who, polite }),
        8 => (who(), 0..70_usize).prop_map(|(who, which)| Step::Acknowledge { who, which }),
        4 => Just(Step::Sync),
        1 => Just(Step::Crash),
    ]
}

const NAMES: [&str; 3] = ["ann", "bob", "cy"];
const WRITER: &str = "dan";

/// What the listeners were handed, over all lives of the coordinator.
struct Run {
    cluster: Cluster,
    epoch: Epoch,
    /// What the log of the lives before has.
    log: Vec<(LogTime, Entry)>,
    /// What each event is, and whether it was acknowledged.
    events: BTreeMap<EventId, String>,
    acknowledged: BTreeSet<EventId>,
    /// What each node has and has not acknowledged.
    has: BTreeMap<&'static str, Vec<EventId>>,
    made: u64,
}

impl Run {
    fn new() -> Self {
        let mut cluster = Cluster::logged(&NAMES);
        cluster.join(&[WRITER]);
        listen(&mut cluster, NAMES[0]);
        Self {
            cluster,
            epoch: EPOCH,
            log: Vec::new(),
            events: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            has: BTreeMap::new(),
            made: 0,
        }
    }

    /// Takes down who was handed what.
    fn note(&mut self) {
        for name in NAMES {
            for message in self.cluster.heard(name) {
                let ToNode::Notice { event, redelivered, ref key, ref change, .. } = message else { continue };
                let told = format!("{key:?} {change:?}");
                let before = self.events.insert(event, told.clone());
                assert!(before.is_none() || redelivered, "event {event} was handed out twice and not said to be");
                assert!(before.is_none_or(|before| before == told), "event {event} has become another");
                self.has.entry(name).or_default().push(event);
            }
        }
    }

    fn take(&mut self, step: &Step) {
        let cluster = &mut self.cluster;
        match *step {
            Step::Create => {
                self.made += 1;
                let key = bytes::Bytes::from(self.made.to_string());
                let request = cluster.request();
                let create = Some(visits(0));
                cluster.send(WRITER, ToCoordinator::Fetch { request, root: SESSIONS, key, create });
            }
            Step::Commit => {
                let grant = cluster.peer(WRITER).grants.keys().next_back().copied();
                if let Some((object, _)) = grant.filter(|(_, group)| *group == MAIN || self.made > 0) {
                    cluster.commit(WRITER, object, MAIN, visits(self.made));
                }
            }
            Step::Listen { who } => listen(cluster, NAMES[who]),
            Step::Unlisten { who } => cluster.send(NAMES[who], ToCoordinator::Unlisten { listener: LISTENER }),
            Step::Leave { who, polite } => {
                if polite {
                    cluster.detach(NAMES[who]);
                } else {
                    cluster.lose(NAMES[who]);
                }
                self.has.remove(NAMES[who]);
                cluster.join(&[NAMES[who]]);
            }
            Step::Acknowledge { who, which } => {
                let has = self.has.entry(NAMES[who]).or_default();
                if !has.is_empty() {
                    let event = has.remove(which % has.len());
                    acknowledge(cluster, NAMES[who], event.to_bits());
                    self.acknowledged.insert(event);
                }
            }
            Step::Sync => cluster.sync_all(),
            Step::Crash => self.crash(),
        }
        self.note();
    }

    fn crash(&mut self) {
        let kept = self.cluster.engine.logged.to_bits() + 1 - self.cluster.first_entry.to_bits();
        self.log.extend(self.cluster.log.drain(..usize::try_from(kept).unwrap()));
        self.epoch = self.epoch.next();
        let settings = Settings { durable: true, ..Settings::new(self.epoch, "log", "test") };
        let state = replayed(&self.log, LogSeq::from_bits(self.log.len() as u64));
        self.cluster = Cluster::restored(state, settings);
        self.has.clear();
        self.cluster.event(Event::Tick);
        self.cluster.now += LEASE * 2;
        self.cluster.event(Event::Tick);
        self.cluster.sync_all();
        self.cluster.join(&NAMES);
        self.cluster.join(&[WRITER]);
        // Numbers of objects and keys go on behind what was lost.
        self.cluster.sync_all();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_event_is_missing_and_who_may_have_had_it_says_so(steps in prop::collection::vec(step(), 1..120)) {
        let mut run = Run::new();
        for step in &steps {
            run.take(step);
        }
        // Then somebody listens until nothing is left.
        run.cluster.sync_all();
        for name in NAMES {
            run.cluster.send(name, ToCoordinator::Unlisten { listener: LISTENER });
        }
        run.note();
        run.has.clear();
        listen(&mut run.cluster, NAMES[1]);
        run.cluster.sync_all();
        run.note();
        while let Some(event) = run.has.entry(NAMES[1]).or_default().pop() {
            acknowledge(&mut run.cluster, NAMES[1], event.to_bits());
            run.note();
        }
        let all = run.cluster.engine.state.queues.iter().map(|(_, queue)| {
            prop_assert!(queue.get(0).is_none(), "an event was never handed out");
            Ok(queue.last.to_bits())
        });
        let last: u64 = all.collect::<Result<Vec<_>, _>>()?.into_iter().sum();
        prop_assert_eq!(run.events.keys().map(|id| id.to_bits()).collect::<Vec<_>>(), (1..=last).collect::<Vec<_>>());
    }
}
