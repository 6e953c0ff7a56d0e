//! The schema registry and the roots.

use super::super::Settings;
use super::cluster::{Cluster, EPOCH, session_type};
use kiln_protocol::limits::{FIELDS_MAX, GROUPS_MAX, NAME_BYTES_MAX};
use kiln_protocol::message::{Role, RootOptions};
use kiln_protocol::schema::{FieldDescription, FieldKind, TypeDescription};
use kiln_protocol::{ToCoordinator, ToNode};

fn field(name: &str, group: &str) -> FieldDescription {
    FieldDescription {
        name: name.to_owned(),
        kind: FieldKind::Scalar,
        structure: "u64".to_owned(),
        group: group.to_owned(),
    }
}

fn described(name: &str, fields: Vec<FieldDescription>) -> TypeDescription {
    TypeDescription { name: name.to_owned(), fields }
}

fn opened(cluster: &mut Cluster, root: &str, description: TypeDescription) -> String {
    cluster.open("ann", root, description, false);
    let heard = cluster.heard("ann").pop().unwrap();
    match heard {
        ToNode::RootOpened { root, binding, .. } => {
            let fields: Vec<_> = binding.fields.iter().map(ToString::to_string).collect();
            let groups: Vec<_> = binding.groups.iter().map(ToString::to_string).collect();
            format!("root {root} type {}: {} in {}", binding.id, fields.join(" "), groups.join(" "))
        }
        ToNode::Failed { failure, .. } => failure.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_get_numbers_once_and_for_all() {
    let mut cluster = Cluster::of(&["ann"]);
    assert_eq!(opened(&mut cluster, "sessions", session_type()), "root 1 type 0: 0 1 2 3 in 0 0 1 255");
    // Another version of the program: other order, a field less, two more.
    let mut other = session_type();
    other.fields.remove(0);
    other.fields.reverse();
    other.fields.push(field("score", "game"));
    other.fields.push(field("level", "cart"));
    assert_eq!(opened(&mut cluster, "sessions", other), "root 1 type 0: 3 2 1 4 5 in 255 1 0 2 1");
    assert_eq!(opened(&mut cluster, "sessions", session_type()), "root 1 type 0: 0 1 2 3 in 0 0 1 255");
    assert_eq!(opened(&mut cluster, "more", described("B", vec![field("x", "")])), "root 3 type 1: 0 in 0");
}

#[test]
fn a_changed_field_is_refused_with_both_declarations() {
    let mut cluster = Cluster::of(&["ann"]);
    let change = |change: fn(&mut FieldDescription)| {
        let mut description = session_type();
        change(&mut description.fields[1]);
        description
    };
    let structure = change(|field| field.structure = "option<string>".to_owned());
    let group = change(|field| field.group = "cart".to_owned());
    let kind = change(|field| field.kind = FieldKind::Scalar);
    let advice = "if `Session` is one type that changed, give the changed field a new name, or keep its structure; if these \
                  are two types of one name, give one of them another with `#[clustered(rename = \"..\")]`";
    for (description, wanted, registered) in [
        (structure, "option<string>", "string"),
        (group, "string in lock group cart", "string in the default lock group"),
        (kind, "scalar string", "block string"),
    ] {
        assert_eq!(
            opened(&mut cluster, "sessions", description),
            format!(
                "field `theme` of type `Session` is `{wanted}` in this program but `{registered}` in the cluster: {advice}"
            )
        );
    }
}

#[test]
fn a_changed_root_is_refused() {
    let advice = "a root is for good what it was when it was opened first, so let all programs say the same, or take a root of \
                  another name";
    let mut cluster = Cluster::of(&["ann"]);
    assert_eq!(
        opened(&mut cluster, "sessions", described("Other", vec![])),
        format!("root `sessions` has type `Session` in the cluster but `Other` in this program: {advice}")
    );
    assert_eq!(
        opened(&mut cluster, "locks", session_type()),
        format!("root `locks` has options `ephemeral` in the cluster but `lasting` in this program: {advice}")
    );
    let request = cluster.request();
    let message = ToCoordinator::OpenRoot {
        request,
        name: "sessions".to_owned(),
        key: "u64".to_owned(),
        type_description: session_type(),
        options: RootOptions::default(),
    };
    cluster.send("ann", message);
    assert_eq!(
        cluster.sent_to("ann"),
        [format!("failed: root `sessions` has key `string` in the cluster but `u64` in this program: {advice}")]
    );
    // A type that came with a refused root is not registered.
    assert_eq!(opened(&mut cluster, "c", described("C", vec![])), "root 3 type 1:  in ");
}

#[test]
fn a_bad_description_is_refused() {
    let mut cluster = Cluster::of(&["ann"]);
    let mut counter = field("n", "g");
    counter.kind = FieldKind::Counter;
    counter.structure = "counter".to_owned();
    let mut nonsense = field("n", "");
    nonsense.structure = "u65".to_owned();
    let mut deep = field("n", "");
    deep.structure = "option<".repeat(1000) + "u8" + &">".repeat(1000);
    let long = "n".repeat(NAME_BYTES_MAX + 1);
    let many = (0..=FIELDS_MAX).map(|n| field(&n.to_string(), "")).collect();
    let groups = (0..GROUPS_MAX).map(|n| field(&n.to_string(), &format!("g{n}"))).collect();
    for (description, what) in [
        (described("", vec![]), "a type needs a name"),
        (described("T", vec![field("", "")]), "a field needs a name"),
        (described("T", vec![field("n", ""), field("n", "")]), "field `n` is there twice"),
        (described("T", vec![counter]), "counter `n` needs no lock group"),
        (described("T", vec![nonsense]), "the structure of field `n` is not one: "),
        (described("T", vec![deep]), "the structure of field `n` is not one: "),
        (described(&long, vec![]), "the length of a type's name in bytes is 256, the limit is 255"),
        (described("T", vec![field(&long, "")]), "the length of a field's name in bytes is 256"),
        (described("T", vec![field("n", &long)]), "the length of a lock group's name in bytes is 256"),
        (described("T", many), "the number of fields of a type is 1025, the limit is 1024"),
        (described("T", groups), "the number of lock groups of a type is 65, the limit is 64"),
    ] {
        let said = opened(&mut cluster, "new", description);
        assert!(said.contains(what), "{said} instead of {what}");
    }
    let said = opened(&mut cluster, "", described("T", vec![]));
    assert_eq!(said, "a root needs a name: the one asked for is empty");
    assert_eq!(opened(&mut cluster, "new", described("T", vec![])), "root 3 type 1:  in ");
}

#[test]
fn the_text_of_all_types_has_a_limit() {
    let mut settings = Settings::new(EPOCH, "memory", "test");
    settings.schema_bytes_max = 100;
    let mut cluster = Cluster::with(settings);
    cluster.attach("ann", Role::Node);
    cluster.open_roots("ann");
    cluster.sent_to("ann");
    let more = described("T", (0..20).map(|n| field(&n.to_string(), "")).collect());
    assert!(opened(&mut cluster, "new", more).starts_with("the text of all types, in bytes, is 1"));
    assert_eq!(opened(&mut cluster, "sessions", session_type()), "root 1 type 0: 0 1 2 3 in 0 0 1 255");
}
