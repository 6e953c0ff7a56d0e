//! Changes that cannot be archived: the commit fails, or goes on without them.

use kiln::{Clustered, CommitError, Level, Map, Root, Shared, rkyv};
use kiln_tests::Coordinator;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

#[derive(Clustered, Default)]
#[clustered(rename = "TestDraft", on_archive_failure = "leave_out")]
struct Draft {
    title: String,
    notes: Map<String, u32>,
    #[clustered(archive = "picture-1")]
    picture: Picture,
    #[clustered(nested)]
    author: Author,
    #[clustered(on_archive_failure = "fail")]
    tags: Map<String, u32>,
}

#[derive(Clustered, Default)]
#[clustered(rename = "TestAuthor")]
struct Author {
    name: String,
    #[clustered(on_archive_failure = "leave_out")]
    links: Map<String, u32>,
    aliases: Map<String, u32>,
}

/// Its serialiser fails where the path is no text.
#[derive(Default, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = kiln::rkyv)]
pub(crate) struct Picture {
    #[rkyv(with = rkyv::with::AsString)]
    pub(crate) path: PathBuf,
}

pub(crate) fn no_text() -> Picture {
    Picture { path: OsString::from_vec(vec![0xff]).into() }
}

/// Over the limit of a key.
fn too_long() -> String {
    "x".repeat(2000)
}

fn left_out(draft: &Shared<Draft>) -> Vec<String> {
    draft.left_out().iter().map(|error| error.field().to_owned()).collect()
}

async fn drafts() -> (Coordinator, Shared<Draft>, Shared<Draft>) {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let on_a: Root<String, Draft> = a.root("drafts").await.unwrap();
    let on_b: Root<String, Draft> = b.root("drafts").await.unwrap();
    let draft = on_a.get_or_create("d", Draft::default).await.unwrap();
    let other = on_b.get_or_create("d", Draft::default).await.unwrap();
    (coordinator, draft, other)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_field_that_may_be_left_out_is_and_the_rest_is_committed() {
    let (_coordinator, draft, other) = drafts().await;
    let mut guard = draft.write().await.unwrap();
    guard.title.set("pots".to_owned());
    // One entry of a map that cannot be archived leaves all of its changes out.
    guard.notes.insert("good".to_owned(), 1);
    guard.notes.insert(too_long(), 1);
    guard.picture.set(no_text());
    guard.author.name.set("Ada".to_owned());
    guard.author.links.insert(too_long(), 1);
    guard.tags.insert("new".to_owned(), 1);
    guard.commit_with(Level::Everywhere).await.unwrap();

    for shown in [&draft, &other] {
        let view = shown.view();
        assert_eq!((view.title(), view.author().name(), view.tags().len()), ("pots", "Ada", 1));
        assert_eq!((view.notes().len(), view.author().links().len(), view.picture().path.len()), (0, 0, 0));
    }
    assert_eq!(left_out(&draft), ["notes", "picture", "author.links"]);
    let why: Vec<_> = draft.left_out().iter().map(ToString::to_string).collect();
    assert!(why[0].contains("a key of an entry takes 2000 bytes"), "{why:?}");
    assert!(why[1].contains("it cannot be archived"), "{why:?}");
    assert!(left_out(&other).is_empty(), "another node tried nothing");

    // Whoever writes such a field next, the list is shorter by it.
    draft.update(|draft| draft.picture.set(Picture { path: "mug.png".into() })).await.unwrap();
    assert_eq!(left_out(&draft), ["notes", "author.links"]);
    let noted = other.update_with(Level::Everywhere, |draft| draft.notes.insert("other".to_owned(), 1)).await;
    noted.unwrap();
    assert_eq!(left_out(&draft), ["author.links"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_field_that_may_not_fails_the_commit_and_nothing_is_committed() {
    let (_coordinator, draft, other) = drafts().await;
    let own = draft.update(|draft| {
        draft.title.set("pots".to_owned());
        draft.tags.insert(too_long(), 1);
    });
    let refused = own.await.unwrap_err();
    assert!(matches!(&refused, kiln::UpdateError::Commit(CommitError::Value(error)) if error.field() == "tags"));
    // A nested struct does not have the policy of the struct around it.
    let nested = draft.update(|draft| {
        draft.title.set("pots".to_owned());
        draft.author.aliases.insert(too_long(), 1);
    });
    let refused = nested.await.unwrap_err();
    assert!(
        matches!(&refused, kiln::UpdateError::Commit(CommitError::Value(error)) if error.field() == "author.aliases")
    );
    assert_eq!(other.read().await.unwrap().view().title(), "");
    assert!(left_out(&draft).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_and_locks_leave_out_as_well() {
    let (coordinator, draft, _other) = drafts().await;
    let kiln = coordinator.node("c").await;
    let drafts: Root<String, Draft> = kiln.root("drafts").await.unwrap();
    let on_c = drafts.get("d").await.unwrap().unwrap();
    let done = kiln.transaction(async |tx| {
        let mut guard = tx.write(&on_c).await?;
        guard.title.set("bowls".to_owned());
        guard.notes.insert(too_long(), 1);
        drop(guard);
        Ok::<_, kiln::LockError>(())
    });
    done.await.unwrap();
    assert_eq!(left_out(&on_c), ["notes"]);
    let lock = on_c.lock().await.unwrap();
    let mut guard = lock.write().await.unwrap();
    guard.picture.set(no_text());
    guard.author.name.set("Ada".to_owned());
    guard.commit_with(Level::Everywhere).await.unwrap();
    assert_eq!(left_out(&on_c), ["notes", "picture"]);
    assert_eq!((draft.view().title(), draft.view().author().name()), ("bowls", "Ada"));
}
