//! What holds after every step, whatever was sent.

use super::super::lock::{Lock, Party};
use super::super::nodes::NodeSlot;
use super::cluster::Cluster;
use super::copy::{Copy, Slots};
use kiln_protocol::message::Mode;
use kiln_protocol::{GroupId, ObjectId};
use std::collections::{BTreeMap, BTreeSet};

/// Checks a cluster at rest.
pub(super) fn check(cluster: &Cluster) {
    let engine = &cluster.engine;
    let mut contended = BTreeSet::new();
    let mut tokens = BTreeSet::new();
    let (mut interest, mut grants, mut waiting) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let (mut objects, mut bytes) = (0, 0);
    for object in (0..engine.state.objects.chunks()).flat_map(|chunk| engine.state.objects.chunk(chunk)) {
        objects += 1;
        bytes += object.bytes() as u64;
        assert!(std::ptr::eq(engine.state.objects.get(object.id).unwrap(), object), "index");
        let root = engine.state.roots.get(object.root).unwrap();
        let found = engine.state.find(root, object.key());
        assert_eq!(found, engine.state.objects.find(object.id), "key index");
        for node in live(cluster, object.interest.as_slice()) {
            *interest.entry(node).or_insert(0) += 1;
        }
        let mut unused = live(cluster, object.interest.as_slice()).next().is_none();
        for (group, lock) in object.locks.used() {
            check_lock(cluster, object.id, group, &lock);
            for holder in lock.holders() {
                assert!(tokens.insert(holder.token), "one token twice");
                if let Party::Node(node) = holder.party
                    && engine.nodes.is_attached(node)
                {
                    *grants.entry(node).or_insert(0) += 1;
                    unused = false;
                }
            }
            for waiter in lock.queue() {
                unused = false;
                if let Party::Node(node) = waiter.party {
                    *waiting.entry(node).or_insert(0) += 1;
                }
            }
            if !lock.queue().is_empty() {
                contended.insert((object.id, group));
            }
        }
        let later = engine.unused.contains(&object.id);
        assert!(later || !(unused && root.options.ephemeral), "an unused object of an ephemeral root");
    }
    assert_eq!(u32::try_from(objects), Ok(engine.state.objects.len()));
    assert_eq!(bytes, engine.state.object_bytes);
    assert_eq!(contended, engine.contended);
    for (slot, node) in engine.nodes.iter() {
        assert_eq!(node.interest, interest.get(&slot).copied().unwrap_or(0), "interest of {}", node.name);
        assert_eq!(node.grants, grants.get(&slot).copied().unwrap_or(0), "grants of {}", node.name);
        let waits = engine.waits.of(node.incarnation);
        let requests = waiting.get(&slot).copied().unwrap_or(0) + node.operations.len() + waits;
        assert_eq!(node.requests, requests, "requests of {}", node.name);
        assert!(node.requests <= engine.settings.requests_max, "S20");
    }
    let (timed, turns) = engine.state.expiry.turns();
    assert_eq!(timed, turns + engine.operations.expiring(), "an object that expires some time has one turn");
    check_copies(cluster);
}

fn live<'a>(cluster: &'a Cluster, slots: &'a [NodeSlot]) -> impl Iterator<Item = NodeSlot> + 'a {
    slots.iter().copied().filter(|slot| cluster.engine.nodes.is_attached(*slot))
}

/// S1, and that nobody waits who need not.
fn check_lock(cluster: &Cluster, object: ObjectId, group: GroupId, lock: &Lock) {
    let writers = lock.holders().iter().filter(|holder| holder.mode == Mode::Write).count();
    assert!(writers == 0 || lock.holders().len() == 1, "S1: {lock:?}");
    let engine = &cluster.engine;
    if engine.may_be_named(object) || engine.unsynced.holds(object, group) {
        return;
    }
    if let Some(head) = lock.queue().front() {
        let others = lock.holders().iter().filter(|holder| {
            let own = holder.party == head.party;
            let stands = !own && (holder.mode == Mode::Write || head.mode == Mode::Write);
            stands || (own && holder.mode == Mode::Write)
        });
        let mut blocking = others.peekable();
        assert!(blocking.peek().is_some(), "{object}/{group}: the first waiter waits for nothing: {lock:?}");
        for holder in blocking {
            if let Party::Node(node) = holder.party {
                assert!(holder.recalled.is_some(), "{object}/{group}: a holder was not recalled: {lock:?}");
                assert!(cluster.engine.nodes.is_attached(node), "somebody waits for a node that left");
            }
        }
    }
}

/// S4, S6, L4: at rest, every copy is what the coordinator has.
fn check_copies(cluster: &Cluster) {
    for (name, peer) in &cluster.peers {
        let node = cluster.engine.nodes.iter().find(|(_, node)| node.incarnation == peer.incarnation);
        if node.is_some_and(|(_, node)| !node.held.is_empty()) {
            continue;
        }
        for (object, copy) in &peer.copies {
            let groups = (0..=u8::MAX).map(GroupId::from_bits);
            if cluster.engine.window.is_some() || groups.clone().any(|of| cluster.engine.unsynced.holds(*object, of)) {
                continue;
            }
            let Some(at) = cluster.engine.state.objects.get(*object) else {
                panic!("{name} was not told that {object} was destroyed");
            };
            let ours = Copy { slots: Slots::of(&at.writes()), versions: at.versions().into_iter().collect() };
            assert_eq!(*copy, ours, "{name}'s copy of {object}");
        }
        for ((object, group), (mode, token)) in &peer.grants {
            let at = cluster.engine.state.objects.get(*object);
            let slot = cluster.engine.nodes.iter().find(|(_, node)| node.incarnation == peer.incarnation);
            if let (Some(at), Some((slot, _)), Mode::Write) = (at, slot, mode) {
                assert!(at.locks.guards(*group, slot, *token), "{name}'s grant of {object}/{group} is gone");
            }
        }
    }
}
