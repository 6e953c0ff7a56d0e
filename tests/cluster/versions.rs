//! Two versions of one program, side by side in one cluster.

use kiln::{AccessError, Failure, Level, Map, Root, RootError};
use kiln_tests::Coordinator;

mod old {
    #[derive(kiln::Clustered, Debug, Default)]
    #[clustered(rename = "Profile")]
    pub(super) struct Profile {
        pub(super) name: String,
        pub(super) visits: u64,
    }
}

mod new {
    #[derive(kiln::Clustered, Debug)]
    #[clustered(rename = "Profile")]
    pub(super) struct Profile {
        /// Another order than in the old version: names count, not places.
        pub(super) visits: u64,
        #[clustered(default = 7)]
        pub(super) level: u32,
        #[clustered(rename = "name")]
        pub(super) full_name: String,
        #[clustered(counter)]
        pub(super) likes: i64,
        pub(super) tags: kiln::Map<String, u64>,
        #[clustered(lock = "address")]
        pub(super) city: String,
    }
}

mod newer {
    #[derive(kiln::Clustered, Debug, Default)]
    #[clustered(rename = "Profile")]
    pub(super) struct Profile {
        pub(super) name: String,
        #[clustered(default = 8)]
        pub(super) level: u32,
    }
}

mod changed {
    #[derive(kiln::Clustered, Debug, Default)]
    #[clustered(rename = "Profile")]
    pub(super) struct Profile {
        pub(super) name: String,
        pub(super) visits: String,
    }
}

use new::ProfileCounters as _;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_and_a_new_version_share_objects() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let on_old: Root<String, old::Profile> = a.root("profiles").await.unwrap();
    let on_new: Root<String, new::Profile> = b.root("profiles").await.unwrap();

    let first = on_old.insert("p".into(), old::Profile { name: "Ada".into(), visits: 1 }).await.unwrap();
    let second = on_new.get("p").await.unwrap().unwrap();
    let view = second.view();
    assert_eq!((view.full_name(), view.visits(), view.level()), ("Ada", 1, 7));
    assert_eq!((view.likes(), view.tags().len(), view.city()), (0, 0, ""));
    drop(view);
    let mut guard = second.write().await.unwrap();
    *guard.level = 9;
    guard.likes.add(5);
    guard.tags.insert("x".into(), 1);
    guard.city.set("Turin".into());
    *guard.visits += 1;
    guard.commit_with(Level::Everywhere).await.unwrap();
    // What the old version does not know is left alone by it.
    assert_eq!(first.view().visits(), 2);
    let mut guard = first.write().await.unwrap();
    guard.name.push_str(" Lovelace");
    *guard.visits += 1;
    guard.commit_with(Level::Everywhere).await.unwrap();
    second.likes().add(1).unwrap();
    let view = second.view();
    assert_eq!((view.full_name(), view.visits(), view.level()), ("Ada Lovelace", 3, 9));
    assert_eq!((view.likes(), view.tags().get("x"), view.city()), (6, Some(1), "Turin"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_of_the_new_version_passes_through_the_old_one() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let on_old: Root<String, old::Profile> = a.root("profiles").await.unwrap();
    let on_new: Root<String, new::Profile> = b.root("profiles").await.unwrap();
    let made = new::Profile {
        visits: 1,
        level: 3,
        full_name: "Ada".into(),
        likes: 4,
        tags: Map::from_iter([("y".to_owned(), 2)]),
        city: "Turin".into(),
    };
    drop(on_new.insert("p".into(), made).await.unwrap());
    // The version that knows the fields leaves, and comes back after the old one has written.
    b.detach(std::time::Duration::from_secs(5)).await.unwrap();
    let object = on_old.get("p").await.unwrap().unwrap();
    object.update(|profile| *profile.visits += 1).await.unwrap();
    a.detach(std::time::Duration::from_secs(5)).await.unwrap();
    let c = coordinator.node("c").await;
    let on_new: Root<String, new::Profile> = c.root("profiles").await.unwrap();
    let object = on_new.get("p").await.unwrap().unwrap();
    let view = object.view();
    assert_eq!((view.full_name(), view.visits(), view.level(), view.likes()), ("Ada", 2, 3, 4));
    assert_eq!((view.tags().get("y"), view.city()), (Some(2), "Turin"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_version_has_its_own_default() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let c = coordinator.node("c").await;
    let on_old: Root<String, old::Profile> = a.root("profiles").await.unwrap();
    let on_new: Root<String, new::Profile> = b.root("profiles").await.unwrap();
    let on_newer: Root<String, newer::Profile> = c.root("profiles").await.unwrap();
    drop(on_old.insert("p".into(), old::Profile::default()).await.unwrap());
    let (seven, eight) = (on_new.get("p").await.unwrap().unwrap(), on_newer.get("p").await.unwrap().unwrap());
    assert_eq!((seven.view().level(), eight.view().level()), (7, 8));
    // Once somebody has written it, there is one value.
    eight.update_with(Level::Everywhere, |profile| *profile.level = 1).await.unwrap();
    assert_eq!((seven.view().level(), eight.view().level()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_field_with_another_structure_is_refused() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let _on_old: Root<String, old::Profile> = a.root("profiles").await.unwrap();
    let refused = b.root::<String, changed::Profile>("profiles").await;
    assert!(
        matches!(&refused, Err(RootError::Access(AccessError::Refused(Failure::FieldChanged { .. })))),
        "{refused:?}"
    );
    let message = refused.unwrap_err().to_string();
    for part in ["`visits`", "`Profile`", "string`", "u64`"] {
        assert!(message.contains(part), "no {part} in: {message}");
    }
    // Under another name of the root it is the same type still.
    assert!(b.root::<String, changed::Profile>("others").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_keeps_its_type_and_its_keys() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let _first: Root<String, old::Profile> = a.root("profiles").await.unwrap();
    let other_key = b.root::<u64, old::Profile>("profiles").await.unwrap_err().to_string();
    assert!(other_key.contains("`profiles`") && other_key.contains("u64"), "{other_key}");
    let other_type = b.root::<String, kiln_tests::Session>("profiles").await.unwrap_err().to_string();
    assert!(other_type.contains("Profile") && other_type.contains("Session"), "{other_type}");
    let in_one_process = a.root::<String, new::Profile>("profiles").await;
    assert!(matches!(&in_one_process, Err(RootError::OtherType { .. })), "{in_one_process:?}");
}
