//! What the derives write, over a real heap: store, guard, collect, apply, view, load.

use crate::stage::{self, Stage};
use expect_test::expect;
use kiln::rkyv;
use kiln::{Clustered, Map, Value};
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Clone, Debug, Default, PartialEq, Value, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = kiln::rkyv)]
enum Theme {
    #[default]
    Light,
    Dark,
    Custom {
        accent: (u8, u8, u8),
        name: Option<String>,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Value, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = kiln::rkyv)]
struct CartLine {
    sku: String,
    count: u32,
    options: Vec<Theme>,
}

#[derive(Clone, Debug, Default, PartialEq, Value, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = kiln::rkyv)]
struct Pair(u32, Box<CartLine>);

/// A session.
#[derive(Clustered, Clone, Debug, Default, PartialEq)]
pub(crate) struct Session {
    /// Who is logged in.
    pub(crate) user: Option<String>,
    theme: Theme,
    pub(crate) nick: String,
    picture: Vec<u8>,
    pub(crate) visits: u64,
    balance: i16,
    ratio: f32,
    initial: char,
    admin: bool,
    big: u128,
    tags: Vec<String>,
    by_day: BTreeMap<u16, Pair>,
    idle: Duration,
    #[clustered(lock = "cart")]
    cart: Map<String, CartLine>,
    #[clustered(lock = "cart", rename = "quantities")]
    counts: Map<(u16, String), u32>,
    names: Map<i64, String>,
    #[clustered(counter)]
    clicks: i64,
    #[clustered(default = 7)]
    level: u32,
    r#type: [u16; 3],
}

fn session() -> Session {
    Session {
        user: Some("ann".into()),
        theme: Theme::Custom { accent: (1, 2, 3), name: Some("sea".into()) },
        nick: "änn".into(),
        picture: vec![1, 2, 3],
        visits: u64::MAX,
        balance: -5,
        ratio: 0.5,
        initial: 'ä',
        admin: true,
        big: 1 << 100,
        tags: vec!["a".into(), "b".into()],
        by_day: BTreeMap::from([(1, Pair(2, Box::default()))]),
        idle: Duration::from_millis(1_500),
        cart: Map::from([("sku-1".to_owned(), CartLine::default())]),
        counts: Map::from([((2, "b".to_owned()), 3), ((1, "z".to_owned()), 4)]),
        names: Map::from([(-1, "minus".to_owned()), (1, "plus".to_owned())]),
        clicks: -3,
        level: 9,
        r#type: [1, 2, 3],
    }
}

#[test]
fn a_stored_object_loads_as_it_was() {
    let stage = Stage::new();
    let object = stage.object(&session());
    assert_eq!(Session::load(&Session::view(object.pin())), session());
}

#[test]
fn a_view_reads_in_place() {
    let stage = Stage::new();
    let object = stage.object(&session());
    let view = Session::view(object.pin());
    assert_eq!(view.user().as_deref(), Some("ann"));
    assert_eq!(view.nick(), "änn");
    assert_eq!(view.picture(), [1, 2, 3]);
    assert_eq!((view.visits(), view.balance(), view.ratio()), (u64::MAX, -5, 0.5));
    assert_eq!((view.initial(), view.admin(), view.clicks()), ('ä', true, -3));
    assert_eq!(view.big().to_native(), 1 << 100);
    assert_eq!(view.tags().len(), 2);
    assert_eq!(view.by_day().get(&1.into()).unwrap().0, 2);
    assert_eq!(view.cart().get("sku-1").unwrap().count, 0);
    assert_eq!(view.cart().get(&"sku-2".to_owned()).map(|line| line.count.to_native()), None);
    assert_eq!(view.counts().get(&(1, "z".to_owned())), Some(4));
    let counts: Vec<_> = view.counts().iter().collect();
    assert_eq!(counts, [((1, "z".to_owned()), 4), ((2, "b".to_owned()), 3)]);
    assert_eq!(view.names().iter().collect::<Vec<_>>(), [(-1, "minus"), (1, "plus")]);
    assert_eq!(view.r#type()[2], 3);
}

#[test]
fn only_changed_fields_are_collected() {
    let stage = Stage::new();
    let object = stage.object(&session());
    let mut guard = Session::guard(&object);
    assert_eq!(*guard.visits, u64::MAX);
    assert_eq!(guard.nick.len(), 4);
    assert!(stage::collect::<Session>(&mut guard).is_empty());

    *guard.visits = 1;
    guard.tags.push("c".into());
    guard.user.set(None);
    guard.clicks.add(2);
    guard.clicks.add(-1);
    assert_eq!(guard.clicks.get(), -2);
    let changes = stage::collect::<Session>(&mut guard);
    expect![["user: block, visits: scalar 1, tags: block, clicks: add 1"]]
        .assert_eq(&stage::describe::<Session>(&changes));
    assert!(stage::collect::<Session>(&mut guard).is_empty(), "collected once");
    drop(guard);

    stage.apply(&object, &changes);
    let view = Session::view(object.pin());
    assert_eq!((view.visits(), view.tags().len(), view.user().is_none(), view.clicks()), (1, 3, true, -2));
}

#[test]
fn a_dropped_guard_changes_nothing() {
    let stage = Stage::new();
    let object = stage.object(&session());
    let mut guard = Session::guard(&object);
    *guard.visits = 1;
    guard.cart.clear();
    guard.clicks.add(100);
    drop(guard);
    assert_eq!(Session::load(&Session::view(object.pin())), session());
}

#[test]
fn fields_keep_their_names_kinds_structures_and_groups() {
    let text: String = Session::FIELDS
        .iter()
        .map(|field| format!("{} [{}] {}: {}\n", field.name, field.group, field.kind, field.structure))
        .collect();
    expect![[r#"
        user [] block: option<string>
        theme [] block: enum Theme { Light, Dark, Custom { accent: (u8, u8, u8), name: option<string> } }
        nick [] block: string
        picture [] block: bytes
        visits [] scalar: u64
        balance [] scalar: i16
        ratio [] scalar: f32
        initial [] scalar: char
        admin [] scalar: bool
        big [] block: u128
        tags [] block: vec<string>
        by_day [] block: btreemap<u16, struct Pair { 0: u32, 1: box<struct CartLine { sku: string, count: u32, options: vec<enum Theme { Light, Dark, Custom { accent: (u8, u8, u8), name: option<string> } }> }> }>
        idle [] block: duration
        cart [cart] map: map<string, struct CartLine { sku: string, count: u32, options: vec<enum Theme { Light, Dark, Custom { accent: (u8, u8, u8), name: option<string> } }> }>
        quantities [cart] map: map<(u16, string), u32>
        names [] map: map<i64, string>
        clicks [] counter: counter
        level [] scalar: u32
        type [] block: [u16; 3]
    "#]]
    .assert_eq(&text);
    assert_eq!(kiln::groups(Session::FIELDS), ["", "cart"]);
    assert_eq!(Session::NAME, "Session");
}

#[test]
fn each_slot_has_a_default() {
    let stage = Stage::new();
    let mut changes = kiln::Changes::new();
    for slot in 0..u16::try_from(Session::FIELDS.len()).unwrap() {
        Session::default_slot(slot, &mut changes).unwrap();
    }
    let object = stage.object_from::<Session>(&changes);
    let expected = Session { level: 7, ..Session::default() };
    assert_eq!(Session::load(&Session::view(object.pin())), expected);
}

#[test]
#[should_panic(expected = "Session has no slot 99")]
fn a_slot_that_is_not_there_has_no_default() {
    drop(Session::default_slot(99, &mut kiln::Changes::new()));
}

#[test]
fn a_bad_value_names_its_field() {
    let mut session = session();
    session.cart.insert("k".repeat(1_025), CartLine::default());
    let error = session.store(&mut kiln::Changes::new()).unwrap_err();
    expect!["field `cart` cannot be stored: a key of an entry takes 1025 bytes, the limit is 1024"]
        .assert_eq(&error.to_string());
    assert_eq!(error.field(), "cart");
}
