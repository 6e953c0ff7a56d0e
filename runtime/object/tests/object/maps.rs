//! Map guards against a model, and what they send.

use crate::stage::{self, Stage};
use expect_test::expect;
use kiln::{Clustered, Map};
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clustered, Default)]
pub(crate) struct Shelf {
    items: Map<u8, String>,
}

fn shelf(entries: &[(u8, &str)]) -> Shelf {
    Shelf { items: entries.iter().map(|(key, value)| (*key, (*value).to_owned())).collect() }
}

#[test]
fn only_touched_entries_are_sent() {
    let stage = Stage::new();
    let object = stage.object(&shelf(&[(b'a', "1"), (b'b', "2"), (b'c', "3")]));
    let mut guard = Shelf::guard(&object);
    assert_eq!(guard.items.get(&b'a').as_deref(), Some("1"));
    guard.items.update(&b'b', |value| value.push('!'));
    assert!(guard.items.remove(&b'c'));
    assert!(!guard.items.remove(&b'c'));
    assert!(!guard.items.remove(&b'x'));
    guard.items.insert(b'd', "4".into());
    guard.items.insert(b'e', "5".into());
    assert_eq!(guard.items.take(&b'e').as_deref(), Some("5"));
    assert_eq!(guard.items.get_mut(&b'x'), None);
    let changes = stage::collect::<Shelf>(&mut guard);
    expect!["items: put b, items: remove c, items: put d"].assert_eq(&stage::describe::<Shelf>(&changes));
}

#[test]
fn a_clear_goes_before_the_puts() {
    let stage = Stage::new();
    let object = stage.object(&shelf(&[(b'a', "1"), (b'b', "2")]));
    let mut guard = Shelf::guard(&object);
    guard.items.insert(b'c', "3".into());
    guard.items.clear();
    assert!(guard.items.is_empty());
    assert_eq!(guard.items.get(&b'a'), None);
    guard.items.insert(b'b', "4".into());
    assert!(!guard.items.remove(&b'a'));
    assert_eq!(guard.items.iter().collect::<Vec<_>>(), [(b'b', "4".to_owned())]);
    let changes = stage::collect::<Shelf>(&mut guard);
    expect!["items: clear, items: put b"].assert_eq(&stage::describe::<Shelf>(&changes));
}

#[test]
fn clearing_an_empty_map_sends_nothing() {
    let stage = Stage::new();
    let object = stage.object(&Shelf::default());
    let mut guard = Shelf::guard(&object);
    guard.items.insert(1, "x".into());
    guard.items.clear();
    assert!(stage::collect::<Shelf>(&mut guard).is_empty());
}

#[test]
fn an_iteration_reads_on_over_many_batches() {
    let stage = Stage::new();
    let all: Vec<(u8, String)> = (0..=255).map(|key| (key, key.to_string())).collect();
    let object = stage.object(&Shelf { items: all.iter().cloned().collect() });
    let mut guard = Shelf::guard(&object);
    assert_eq!(guard.items.iter().collect::<Vec<_>>(), all);
    assert_eq!(guard.items.len(), 256);
    for key in 0..=200 {
        guard.items.remove(&key);
    }
    assert_eq!(guard.items.iter().collect::<Vec<_>>(), all[201..]);
    assert_eq!(guard.items.len(), 55);
}

#[test]
fn a_key_that_is_none_is_left_out() {
    let stage = Stage::new();
    let object = stage.object(&shelf(&[(b'a', "1")]));
    let put = kiln_heap::SlotWrite::MapPut { slot: 0, key: b"two bytes", value: b"x" };
    object.apply(&[put], &[(0, 1)]).unwrap();
    let entries = [(b'a', "1".to_owned())];
    assert_eq!(Shelf::guard(&object).items.iter().collect::<Vec<_>>(), entries);
    assert_eq!(Shelf::load(&Shelf::view(object.pin())).items, Map::from(entries));
}

#[derive(Clustered, Default)]
struct Members {
    names: Map<String, ()>,
}

#[test]
fn a_map_without_values_is_a_set() {
    let stage = Stage::new();
    let object = stage.object(&Members { names: Map::from([("ann".to_owned(), ()), ("bob".to_owned(), ())]) });
    let mut guard = Members::guard(&object);
    guard.names.insert("cid".into(), ());
    assert!(guard.names.remove("ann"));
    let changes = stage::collect::<Members>(&mut guard);
    drop(guard);
    stage.apply(&object, &changes);
    let view = Members::view(object.pin());
    assert_eq!(view.names().keys().collect::<Vec<_>>(), ["bob", "cid"]);
    assert!(view.names().contains_key("bob") && !view.names().contains_key("ann"));
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u8, String),
    Remove(u8),
    Take(u8),
    Change(u8),
    Fill(u8),
    Clear,
    Commit,
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0..12_u8;
    prop_oneof![
        6 => (key.clone(), "[a-z]{0,3}").prop_map(|(key, value)| Op::Insert(key, value)),
        3 => key.clone().prop_map(Op::Remove),
        2 => key.clone().prop_map(Op::Take),
        2 => key.clone().prop_map(Op::Change),
        2 => key.prop_map(Op::Fill),
        1 => Just(Op::Clear),
        2 => Just(Op::Commit),
    ]
}

proptest! {
    #[test]
    fn a_guard_behaves_as_a_btree_map(ops in prop::collection::vec(op(), 0..60)) {
        let stage = Stage::new();
        let object = stage.object(&Shelf::default());
        let mut model = BTreeMap::new();
        let mut guard = Shelf::guard(&object);
        for op in ops {
            match op {
                Op::Insert(key, value) => {
                    guard.items.insert(key, value.clone());
                    model.insert(key, value);
                }
                Op::Remove(key) => prop_assert_eq!(guard.items.remove(&key), model.remove(&key).is_some()),
                Op::Take(key) => prop_assert_eq!(guard.items.take(&key), model.remove(&key)),
                Op::Change(key) => {
                    let changed = guard.items.update(&key, |value| value.push('+'));
                    prop_assert_eq!(changed, model.get_mut(&key).map(|value| value.push('+')));
                }
                Op::Fill(key) => {
                    let value = guard.items.get_or_insert_with(key, || "new".into());
                    prop_assert_eq!(value, model.entry(key).or_insert_with(|| "new".into()));
                }
                Op::Clear => {
                    guard.items.clear();
                    model.clear();
                }
                Op::Commit => {
                    let changes = stage::collect::<Shelf>(&mut guard);
                    stage.apply(&object, &changes);
                    guard = Shelf::guard(&object);
                }
            }
            prop_assert_eq!(guard.items.len(), model.len());
            prop_assert_eq!(guard.items.iter().collect::<BTreeMap<_, _>>(), model.clone());
            for key in 0..12 {
                prop_assert_eq!(guard.items.get(&key), model.get(&key).cloned());
                prop_assert_eq!(guard.items.contains_key(&key), model.contains_key(&key));
            }
        }
        stage.apply(&object, &stage::collect::<Shelf>(&mut guard));
        drop(guard);
        let view = Shelf::view(object.pin());
        let items: BTreeMap<_, _> = view.items().iter().map(|(key, value)| (key, value.to_owned())).collect();
        prop_assert_eq!(&items, &model);
        prop_assert_eq!(view.items().len(), model.len());
    }
}
