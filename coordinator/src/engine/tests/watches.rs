//! Watches.

use super::cluster::{CART, CART_GROUP, Cluster, MAIN, SESSIONS, THEME, put, theme, visits, writes};
use kiln_protocol::message::{Change, ChangedSlot, Commit, Role, WatchTarget};
use kiln_protocol::{ListenerId, ToCoordinator, ToNode, WatchId, Write};

fn watch(cluster: &mut Cluster, name: &str, watch: u32, target: WatchTarget, with_writes: bool) {
    let message =
        ToCoordinator::Watch { request: cluster.request(), watch: WatchId::from_bits(watch), target, with_writes };
    cluster.send(name, message);
}

#[test]
fn a_watch_of_a_root_sees_a_whole_life() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    cluster.attach("tool", Role::Observer);
    watch(&mut cluster, "tool", 1, WatchTarget::Root(SESSIONS), false);
    let object = cluster.get_or_create("ann", "s");
    cluster.commit("ann", object, MAIN, [visits(1), theme("dark"), visits(2)].concat().into());
    cluster.forget("ann", object);
    cluster.rename("bob", "s", "t");
    cluster.remove("bob", "t", false);
    assert_eq!(
        cluster.sent_to("tool"),
        [
            "welcome 3",
            "yes",
            "event 1: s created by ann",
            "event 1: s updated 0v1 visits theme by ann",
            "event 1: s renamed to t by bob",
            "event 1: t removed by bob",
        ]
    );
}

#[test]
fn a_watch_of_an_object_ends_with_it() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    cluster.fetch("bob", SESSIONS, "s", None);
    cluster.sent_to("bob");
    watch(&mut cluster, "bob", 1, WatchTarget::Object(object), true);
    watch(&mut cluster, "ann", 7, WatchTarget::Object(object), false);
    cluster.commit("ann", object, MAIN, visits(1));
    // Behind the delta, and to the writer as well.
    assert_eq!(
        cluster.sent_to("bob"),
        ["yes", "delta s/0v1 visits", "event 1: s updated 0v1 visits with writes by ann"]
    );
    assert_eq!(cluster.sent_to("ann"), ["yes", "event 7: s updated 0v1 visits by ann", "ack 1"]);
    cluster.forget("ann", object);
    cluster.remove("ann", "s", false);
    assert_eq!(cluster.sent_to("bob"), ["destroyed s", "event 1: s removed by ann"]);
    watch(&mut cluster, "bob", 1, WatchTarget::Root(SESSIONS), false);
    assert_eq!(cluster.sent_to("bob"), ["yes"]);
}

#[test]
fn a_watch_that_ended_is_silent() {
    let mut cluster = Cluster::of(&["ann"]);
    cluster.attach("tool", Role::Observer);
    let object = cluster.get_or_create("ann", "s");
    watch(&mut cluster, "tool", 1, WatchTarget::Object(object), false);
    watch(&mut cluster, "tool", 2, WatchTarget::Root(SESSIONS), false);
    for watch in [1, 2, 3] {
        let watch = WatchId::from_bits(watch);
        cluster.send("tool", ToCoordinator::Unwatch { watch });
    }
    cluster.commit("ann", object, MAIN, visits(1));
    assert_eq!(cluster.sent_to("tool"), ["welcome 2", "yes", "yes"]);
    assert!(!cluster.engine.state.objects.get(object).unwrap().watched);
    watch(&mut cluster, "tool", 1, WatchTarget::Object(object), false);
    cluster.detach("tool");
    cluster.commit("ann", object, MAIN, visits(2));
    assert!(!cluster.engine.state.objects.get(object).unwrap().watched);
}

#[test]
fn a_watch_of_nothing_is_refused() {
    let mut cluster = Cluster::of(&["ann"]);
    watch(&mut cluster, "ann", 1, WatchTarget::Root(kiln_protocol::RootId::from_bits(0)), false);
    watch(&mut cluster, "ann", 1, WatchTarget::Object(kiln_protocol::ObjectId::from_bits(5)), false);
    watch(&mut cluster, "ann", 1, WatchTarget::Root(SESSIONS), false);
    watch(&mut cluster, "ann", 1, WatchTarget::Root(SESSIONS), false);
    assert_eq!(
        cluster.sent_to("ann"),
        [
            "failed: root 0 does not exist",
            "failed: object 0.5 does not exist (it may have been removed)",
            "yes",
            "failed: protocol violation: watch 1 is there already: end it first, or choose another number",
        ]
    );
}

/// What became of the slots of the events that a node has heard.
fn slots(cluster: &mut Cluster, name: &str) -> Vec<String> {
    let of = |change: Change| match change {
        Change::Updated { slots, .. } => Some(slots),
        _ => None,
    };
    let heard = cluster.heard(name).into_iter().filter_map(|message| match message {
        ToNode::Event { change, .. } | ToNode::Notice { change, .. } => of(change),
        _ => None,
    });
    let say = |slot: ChangedSlot| {
        let entry = slot.entry.map_or_else(String::new, |key| format!(".{}", String::from_utf8_lossy(&key)));
        format!("{}{entry} {:?}", slot.field, slot.change)
    };
    heard.map(|slots| slots.into_iter().map(say).collect::<Vec<_>>().join(", ")).collect()
}

#[test]
fn a_change_says_what_became_of_each_slot() {
    for durable in [false, true] {
        let mut cluster = if durable { Cluster::logged(&["ann", "bob"]) } else { Cluster::of(&["ann", "bob"]) };
        let object = cluster.get_or_create("ann", "s");
        watch(&mut cluster, "bob", 1, WatchTarget::Root(SESSIONS), false);
        let (request, listener, group) = (cluster.request(), ListenerId::from_bits(1), "g".to_owned());
        cluster.send("ann", ToCoordinator::Listen { request, listener, root: SESSIONS, group });
        cluster.sync_all();
        let unset = writes(&[Write::Unset { field: THEME }]);
        let clear = writes(&[Write::MapClear { field: CART }]);
        let remove = |key: &str| writes(&[Write::MapRemove { field: CART, key: key.as_bytes() }]);
        for (group, writes) in [
            (MAIN, [visits(1), theme("dark")].concat()),
            (MAIN, [visits(2), unset.to_vec().into()].concat()),
            (MAIN, [theme("a"), unset.to_vec().into()].concat()),
            (CART_GROUP, [put("mug", "1"), put("tea", "1"), remove("pot")].concat()),
            (CART_GROUP, [put("mug", "2"), remove("tea")].concat()),
            (CART_GROUP, [put("pot", "1"), clear, put("cup", "1"), put("mug", "1")].concat()),
        ] {
            let part = cluster.part("ann", object, group, writes.into());
            cluster.send("ann", ToCoordinator::Commit(Commit { everywhere: false, durable, parts: [part].into() }));
            cluster.sync_all();
        }
        let said = [
            "0 Changed, 1 Added",
            "0 Changed, 1 Removed",
            "",
            "2.mug Added, 2.tea Added",
            "2.mug Changed, 2.tea Removed",
            "2.cup Added, 2.mug Changed",
        ];
        assert_eq!(slots(&mut cluster, "bob"), said);
        assert_eq!(slots(&mut cluster, "ann"), said);
    }
}
