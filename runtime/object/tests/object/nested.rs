//! Nested structs, local fields, foreign archives and counters outside a guard.

use crate::stage::{self, Stage};
use expect_test::expect;
use kiln::rkyv;
use kiln::{Clustered, CounterSource, Map};
use std::cell::RefCell;

#[derive(Clustered, Clone, Debug, Default, PartialEq)]
pub(crate) struct Place {
    #[clustered(default = 48.5)]
    latitude: f64,
    #[clustered(lock = "names")]
    names: Map<String, String>,
    #[clustered(counter)]
    hits: i64,
    #[clustered(local)]
    draft: Option<String>,
}

#[derive(Clustered, Clone, Debug, Default, PartialEq)]
pub(crate) struct Address {
    city: String,
    #[clustered(nested, rename = "at", lock = "place")]
    place: Place,
}

/// A type of another crate, which knows rkyv and nothing of Kiln.
#[derive(Clone, Debug, Default, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = kiln::rkyv)]
pub(crate) struct Foreign(u32, String);

#[derive(Clustered, Clone, Debug, Default, PartialEq)]
#[clustered(rename = "Customer")]
pub(crate) struct Client {
    #[clustered(nested)]
    home: Address,
    #[clustered(archive = "foreign-1")]
    foreign: Foreign,
    #[clustered(nested)]
    work: Address,
    #[clustered(local, default = 5)]
    scratch: u32,
}

fn client() -> Client {
    let address = |city: &str, latitude| Address {
        city: city.to_owned(),
        place: Place { latitude, names: Map::from([("en".to_owned(), city.to_owned())]), hits: 1, draft: None },
    };
    Client { home: address("Graz", 47.0), foreign: Foreign(1, "x".into()), work: address("Wien", 48.25), scratch: 5 }
}

#[test]
fn nested_fields_are_flattened() {
    let text: String = Client::FIELDS
        .iter()
        .map(|field| format!("{} [{}] {}: {}\n", field.name, field.group, field.kind, field.structure))
        .collect();
    expect![[r#"
        home.city [] block: string
        home.at.latitude [place] scalar: f64
        home.at.names [names] map: map<string, string>
        home.at.hits [] counter: counter
        foreign [] block: opaque "foreign-1"
        work.city [] block: string
        work.at.latitude [place] scalar: f64
        work.at.names [names] map: map<string, string>
        work.at.hits [] counter: counter
    "#]]
    .assert_eq(&text);
    assert_eq!(kiln::groups(Client::FIELDS), ["", "place", "names"]);
    assert_eq!(Client::NAME, "Customer");
}

#[test]
fn nested_fields_are_read_and_written_in_their_place() {
    let stage = Stage::new();
    let object = stage.object(&client());
    assert_eq!(Client::load(&Client::view(object.pin())), client());

    let mut guard = Client::guard(&object);
    guard.work.city.push('!');
    *guard.home.place.latitude += 1.0;
    guard.work.place.names.insert("de".into(), "Wien".into());
    guard.work.place.hits.add(4);
    guard.foreign.0 = 2;
    let changes = stage::collect::<Client>(&mut guard);
    drop(guard);
    expect!["home.at.latitude: scalar 4631952216750555136, foreign: block, work.city: block, work.at.names: put de, work.at.hits: add 4"]
        .assert_eq(&stage::describe::<Client>(&changes));
    stage.apply(&object, &changes);

    let view = Client::view(object.pin());
    assert_eq!((view.home().place().latitude(), view.work().place().latitude()), (48.0, 48.25));
    assert_eq!((view.work().city(), view.home().city()), ("Wien!", "Graz"));
    assert_eq!(view.work().place().names().get("de"), Some("Wien"));
    assert_eq!((view.home().place().hits(), view.work().place().hits()), (1, 5));
    assert_eq!(view.foreign().0, 2);
}

#[test]
fn nested_fields_have_their_own_defaults() {
    let stage = Stage::new();
    let mut changes = kiln::Changes::new();
    for slot in 0..u16::try_from(Client::FIELDS.len()).unwrap() {
        Client::default_slot(slot, &mut changes).unwrap();
    }
    let object = stage.object_from::<Client>(&changes);
    let mut expected = Client { scratch: 5, ..Client::default() };
    expected.home.place.latitude = 48.5;
    expected.work.place.latitude = 48.5;
    assert_eq!(Client::load(&Client::view(object.pin())), expected);
}

#[test]
fn local_fields_stay() {
    let mut client = client();
    client.scratch = 9;
    client.work.place.draft = Some("note".into());
    let local = client.into_local();
    assert_eq!((local.scratch, local.work.place.draft), (9, Some("note".to_owned())));
    assert_eq!(ClientLocal::default().scratch, 5);
}

#[test]
fn an_error_names_the_whole_way_to_the_field() {
    let mut client = client();
    client.home.place.names.insert("k".repeat(2_000), String::new());
    let error = client.store(&mut kiln::Changes::new()).unwrap_err();
    assert_eq!(error.field(), "home.at.names");
}

/// Stands for `kiln::Shared`.
#[derive(Default)]
struct Shared {
    asked: RefCell<Vec<u16>>,
}

impl CounterSource<Client> for Shared {
    type Counter<'a> = u16;

    fn counter(&self, slot: u16) -> u16 {
        self.asked.borrow_mut().push(slot);
        slot
    }
}

#[test]
fn counters_are_reached_outside_a_guard() {
    let shared = Shared::default();
    let slots = [shared.home().place().hits(), shared.work().place().hits()];
    assert_eq!(slots, [3, 8]);
    assert_eq!(shared.asked.take(), slots);
    assert!(slots.iter().all(|slot| Client::FIELDS[usize::from(*slot)].name.ends_with(".hits")));
}
