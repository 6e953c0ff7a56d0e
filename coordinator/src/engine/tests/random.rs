//! Random operations of three nodes, honest and not, with every invariant checked after each; then the nodes behave, and
//! everything must come to an end.

use super::super::{Event, LogSeq};
use super::cluster::{CART_GROUP, Cluster, MAIN, NAMED_LOCKS, SESSIONS, clicks, put, theme, visits};
use super::kept::{self, Snapshots};
use bytes::Bytes;
use kiln_protocol::message::{Mode, Role, WatchTarget};
use kiln_protocol::{BarrierId, GroupId, ObjectId, RequestId, ToCoordinator, ToNode, Token, WatchId};
use proptest::prelude::*;
use std::time::Duration;

const NAMES: [&str; 3] = ["ann", "bob", "cy"];
const KEYS: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Clone, Debug)]
enum Step {
    Get { key: usize, create: bool, ephemeral: bool },
    Acquire { object: usize, group: GroupId, mode: Mode, want_record: bool },
    Release { grant: usize, keep_read: bool },
    ReleaseStale { object: usize, token: u64 },
    Withdraw { request: u64, object: usize },
    Forget { object: usize },
    Commit { objects: Vec<usize>, everywhere: bool, value: u64 },
    Add { object: usize, everywhere: bool },
    BadCommit { object: usize, group: u8, token: u64, version: u64, writes: Vec<u8> },
    Insert { key: usize },
    Remove { key: usize, everywhere: bool },
    Rename { from: usize, to: usize },
    Watch { watch: u32, object: usize },
    Unwatch { watch: u32 },
    Barrier { barrier: u64 },
    Refetch { object: usize },
    Rejoin { polite: bool },
    Snapshot,
    Sync,
    Full { full: bool },
    Durable { object: usize, value: u64 },
    Later,
}

fn group() -> impl Strategy<Value = GroupId> {
    prop_oneof![Just(MAIN), Just(CART_GROUP)]
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Read), Just(Mode::Write)]
}

fn step() -> impl Strategy<Value = Step> {
    let object = || 0_usize..8;
    let key = || 0..KEYS.len();
    let flag = any::<bool>;
    let lock = (object(), group(), mode(), flag()).prop_map(|(object, group, mode, want_record)| Step::Acquire {
        object,
        group,
        mode,
        want_record,
    });
    let commit = (prop::collection::vec(object(), 1..3), flag(), any::<u64>())
        .prop_map(|(objects, everywhere, value)| Step::Commit { objects, everywhere, value });
    let bytes = prop::collection::vec(any::<u8>(), 0..12);
    let bad = (object(), any::<u8>(), 0..50_u64, 0..9_u64, bytes)
        .prop_map(|(object, group, token, version, writes)| Step::BadCommit { object, group, token, version, writes });
    prop_oneof![
        8 => (key(), flag(), prop::bool::weighted(0.2))
            .prop_map(|(key, create, ephemeral)| Step::Get { key, create, ephemeral }),
        12 => lock,
        10 => (0_usize..8, flag()).prop_map(|(grant, keep_read)| Step::Release { grant, keep_read }),
        2 => (object(), 0..50_u64).prop_map(|(object, token)| Step::ReleaseStale { object, token }),
        3 => (0..80_u64, object()).prop_map(|(request, object)| Step::Withdraw { request, object }),
        3 => object().prop_map(|object| Step::Forget { object }),
        10 => commit,
        3 => (object(), flag()).prop_map(|(object, everywhere)| Step::Add { object, everywhere }),
        2 => bad,
        2 => key().prop_map(|key| Step::Insert { key }),
        2 => (key(), flag()).prop_map(|(key, everywhere)| Step::Remove { key, everywhere }),
        2 => (key(), key()).prop_map(|(from, to)| Step::Rename { from, to }),
        1 => (0..4_u32, object()).prop_map(|(watch, object)| Step::Watch { watch, object }),
        1 => (0..4_u32).prop_map(|watch| Step::Unwatch { watch }),
        3 => (0..20_u64).prop_map(|barrier| Step::Barrier { barrier }),
        2 => object().prop_map(|object| Step::Refetch { object }),
        1 => flag().prop_map(|polite| Step::Rejoin { polite }),
        1 => Just(Step::Snapshot),
        6 => Just(Step::Sync),
        1 => prop::bool::weighted(0.3).prop_map(|full| Step::Full { full }),
        4 => (object(), any::<u64>()).prop_map(|(object, value)| Step::Durable { object, value }),
        1 => Just(Step::Later),
    ]
}

/// The cluster, and every object there ever was.
struct Run {
    cluster: Cluster,
    objects: Vec<ObjectId>,
    snapshots: Snapshots,
}

impl Run {
    fn object(&self, object: usize) -> ObjectId {
        let picked = self.objects.len().checked_sub(1 + object % self.objects.len().max(1));
        picked.map_or(ObjectId::from_bits(9), |at| self.objects[at])
    }

    fn collect(&mut self) {
        for name in NAMES {
            for message in self.cluster.heard(name) {
                if let ToNode::Fetched { record, .. } = message
                    && !self.objects.contains(&record.object)
                {
                    self.objects.push(record.object);
                }
            }
        }
    }

    fn step(&mut self, name: &str, step: Step) {
        let cluster = &self.cluster;
        match step {
            Step::Get { key, create, ephemeral } => {
                let root = if ephemeral { NAMED_LOCKS } else { SESSIONS };
                self.cluster.fetch(name, root, KEYS[key], create.then(|| visits(1)));
            }
            Step::Acquire { object, group, mode, want_record } => {
                let object = self.object(object);
                let request = self.cluster.request();
                let message = ToCoordinator::Acquire { request, object, group, mode, want_record };
                self.cluster.send(name, message);
            }
            Step::Release { grant, keep_read } => {
                let grants = &cluster.peers[name].grants;
                if let Some((object, group)) = grants.keys().nth(grant % grants.len().max(1)).copied() {
                    self.cluster.release(name, object, group, keep_read);
                }
            }
            Step::ReleaseStale { object, token } => {
                let object = self.object(object);
                let token = Token::from_bits(token);
                self.cluster.release_token(name, object, MAIN, token, false);
            }
            Step::Withdraw { request, object } => {
                let object = self.object(object);
                self.cluster.withdraw(name, RequestId::from_bits(request), object);
            }
            Step::Forget { object } => {
                // No node forgets what it waits for.
                self.cluster.sync_all();
                let object = self.object(object);
                self.cluster.forget(name, object);
            }
            Step::Commit { objects, everywhere, value } => self.commit(name, &objects, everywhere, value),
            Step::Add { object, everywhere } => {
                let part = cluster.part(name, self.object(object), GroupId::COMMUTATIVE, clicks(3));
                self.cluster.commit_parts(name, everywhere, vec![part]);
            }
            Step::BadCommit { object, group, token, version, writes } => {
                let mut part = cluster.part(name, self.object(object), GroupId::from_bits(group), writes.into());
                part.token = Token::new(super::cluster::EPOCH, token).unwrap();
                part.version = super::cluster::version(version);
                self.cluster.commit_parts(name, false, vec![part]);
            }
            other => self.rare(name, other),
        }
    }

    fn rare(&mut self, name: &str, step: Step) {
        let cluster = &mut self.cluster;
        match step {
            Step::Insert { key } => cluster.insert(name, KEYS[key], put("k", "v")),
            Step::Remove { key, everywhere } => cluster.remove(name, KEYS[key], everywhere),
            Step::Rename { from, to } => cluster.rename(name, KEYS[from], KEYS[to]),
            Step::Watch { watch, object } => {
                let target =
                    if watch == 0 { WatchTarget::Root(SESSIONS) } else { WatchTarget::Object(self.object(object)) };
                let request = self.cluster.request();
                let message =
                    ToCoordinator::Watch { request, watch: WatchId::from_bits(watch), target, with_writes: true };
                self.cluster.send(name, message);
            }
            Step::Unwatch { watch } => {
                let watch = WatchId::from_bits(watch);
                cluster.send(name, ToCoordinator::Unwatch { watch });
            }
            Step::Barrier { barrier } => {
                let barrier = BarrierId::from_bits(barrier);
                cluster.send(name, ToCoordinator::Barrier { barrier });
            }
            Step::Refetch { object } => {
                let object = self.object(object);
                let request = self.cluster.request();
                self.cluster.send(name, ToCoordinator::Refetch { request, object });
            }
            Step::Sync => self.cluster.sync(),
            Step::Full { full } => self.cluster.event(if full { Event::LogFull } else { Event::LogHasRoom }),
            Step::Durable { object, value } => {
                let object = self.object(object);
                self.cluster.commit_durable(name, &[object], MAIN, &visits(value));
            }
            Step::Snapshot => self.snapshots.begin(&mut self.cluster.engine),
            Step::Rejoin { polite } => {
                if polite {
                    cluster.send(name, ToCoordinator::Bye);
                }
                cluster.detach(name);
                cluster.attach(name, Role::Node);
                cluster.open_roots(name);
            }
            _ => {
                cluster.now += Duration::from_millis(60);
                cluster.event(Event::Logged { seq: LogSeq::default() });
            }
        }
    }

    fn commit(&mut self, name: &str, objects: &[usize], everywhere: bool, value: u64) {
        let mut parts = Vec::new();
        for object in objects {
            let object = self.object(*object);
            let bodies: [(GroupId, Bytes); 2] = [
                (MAIN, if value.is_multiple_of(2) { visits(value) } else { theme(&value.to_string()) }),
                (CART_GROUP, put(&(value % 5).to_string(), &value.to_string())),
            ];
            for (group, writes) in bodies {
                if self.cluster.peers[name].grants.contains_key(&(object, group)) {
                    parts.push(self.cluster.part(name, object, group, writes));
                }
            }
        }
        self.cluster.commit_parts(name, everywhere, parts);
    }

    /// Every node gives back what it holds and answers what it was asked: nothing may wait any more (L3).
    fn settle(&mut self) {
        self.cluster.event(Event::LogHasRoom);
        for _ in 0..200 {
            self.cluster.sync_all();
            let mut quiet = true;
            for name in NAMES {
                let barrier = BarrierId::from_bits(u64::MAX);
                self.cluster.send(name, ToCoordinator::Barrier { barrier });
                let held = self.cluster.peers[name].grants.keys().next().copied();
                if let Some((object, group)) = held {
                    quiet = false;
                    self.cluster.release(name, object, group, false);
                }
            }
            if quiet {
                break;
            }
        }
        let engine = &self.cluster.engine;
        for (_, node) in engine.nodes.iter() {
            assert_eq!((node.requests, node.grants), (0, 0), "{} still waits: {:?}", node.name, engine.contended);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn invariants_hold(logged in any::<bool>(), steps in prop::collection::vec((0_usize..3, step()), 1..120)) {
        let cluster = if logged { Cluster::logged(&NAMES) } else { Cluster::of(&NAMES) };
        let mut run = Run { cluster, objects: Vec::new(), snapshots: Snapshots::default() };
        for (node, step) in steps {
            run.step(NAMES[node], step);
            run.snapshots.step(&mut run.cluster.engine);
            run.collect();
        }
        run.settle();
        kept::check(&mut run.cluster, &run.snapshots);
    }
}
