//! Listener groups: one node of the cluster is told, and another when that one is gone.

use crate::kept::OnDisk;
use crate::{TEST_NODE, session, sessions};
use kiln::{EventKind, Level, Listener, Told};
use kiln_tests::{Coordinator, Process, soon, until};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// How often the listener that is told is killed.
const KILLS: usize = 4;
const WRITES_PER_KILL: usize = 60;

async fn next(listener: &mut Listener<String>) -> kiln::Notice<String> {
    soon("an event", listener.next()).await.unwrap()
}

fn said(notice: &kiln::Notice<String>) -> String {
    let again = if notice.redelivered() { " again" } else { "" };
    let what = match notice.told() {
        Told::Event(event) => {
            let key = event.key.as_deref().unwrap_or("?");
            match &event.kind {
                EventKind::Created => format!("{key} created"),
                EventKind::Updated { fields, .. } => format!("{key} {}", fields.join("+")),
                EventKind::Removed => format!("{key} removed"),
                other => format!("{key} {other:?}"),
            }
        }
        Told::Missed { events } => format!("missed {events}"),
    };
    format!("{}{again}: {what}", notice.id())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_listener_of_two_nodes_is_told_and_then_the_other() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let (root_a, root_b) = (sessions(&a).await, sessions(&b).await);
    let mut on_a = root_a.listen("mail").await.unwrap();
    let mut on_b = root_b.listen("mail").await.unwrap();
    let s = session(&b, "s").await;
    s.update(|session| *session.visits = 1).await.unwrap();
    let created = next(&mut on_a).await;
    assert_eq!(said(&created), "1: s created");
    let updated = next(&mut on_a).await;
    assert_eq!(said(&updated), "2: s visits");
    updated.acknowledge();
    // Behind the acknowledgement in the stream.
    assert!(root_a.contains("s").await.unwrap());
    drop(on_a);
    assert_eq!(said(&next(&mut on_b).await), "1 again: s created");
    // Too late to matter, and no harm.
    created.acknowledge();
    assert!(root_b.remove("s").await.unwrap());
    let removed = next(&mut on_b).await;
    assert_eq!(said(&removed), "3: s removed");
    assert!(root_a.end_listeners("mail").await.unwrap());
    assert!(soon("the end of the group", on_b.next()).await.is_none());
    assert!(!root_b.end_listeners("mail").await.unwrap());
}

/// How often an event was told.
struct Times {
    first: usize,
    again: usize,
}

/// What a listener that was perhaps killed has written down.
fn read(file: &Path, into: &mut BTreeMap<u64, Times>) {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    // The last line may be cut off: it was not acknowledged then.
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        let mut words = line.split_whitespace();
        let (id, how) = (words.next().unwrap().parse().unwrap(), words.next().unwrap());
        let told = into.entry(id).or_insert(Times { first: 0, again: 0 });
        match how {
            "first" => told.first += 1,
            "again" => told.again += 1,
            other => panic!("{other}"),
        }
    }
}

fn read_all(files: &[PathBuf]) -> BTreeMap<u64, Times> {
    let mut all = BTreeMap::new();
    for file in files {
        read(file, &mut all);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_event_is_missing_when_listeners_and_the_coordinator_are_killed() {
    let mut cluster = OnDisk::new();
    let notes = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    let mut listeners = std::collections::VecDeque::new();
    let begin = |cluster: &OnDisk, files: &mut Vec<PathBuf>| {
        let name = format!("listener-{}", files.len());
        let mut node = Process::start(&name, TEST_NODE, &[OsStr::new(cluster.profile()), OsStr::new(&name)]);
        assert_eq!(node.hear(), "attached");
        let file = notes.path().join(name);
        assert_eq!(node.ask(&format!("listen mail {}", file.display())), "listening");
        files.push(file);
        node
    };
    for _ in 0..2 {
        listeners.push_back(begin(&cluster, &mut files));
    }
    let writer = cluster.node("writer").await;
    let root = writer.root::<String, kiln_tests::Session>(kiln_tests::SESSIONS).await.unwrap();
    let s = root.get_or_create("s", kiln_tests::Session::default).await.unwrap();
    let mut events = 1;
    for kill in 0..KILLS {
        for write in 0..WRITES_PER_KILL {
            s.update_with(Level::Durable, |session| *session.visits += 1).await.unwrap();
            events += 1;
            if write == WRITES_PER_KILL / 2 {
                // In the midst of it.
                let mut told: Process = listeners.pop_front().unwrap();
                told.kill();
                if kill % 2 == 1 {
                    cluster.kill_and_start();
                }
                listeners.push_back(begin(&cluster, &mut files));
            }
        }
    }
    until("every event is told", || async { read_all(&files).len() as u64 >= events }).await;
    let told = read_all(&files);
    assert_eq!(told.keys().copied().collect::<Vec<_>>(), (1..=events).collect::<Vec<_>>());
    let twice: Vec<_> = told.iter().filter(|(_, told)| told.first > 1).map(|(id, _)| *id).collect();
    assert_eq!(twice, [0_u64; 0], "told again without a word of it");
    let again: usize = told.values().map(|told| told.again).sum();
    assert!(again > 0, "who was killed had not acknowledged all it was told");
    println!("{events} events, {KILLS} listeners killed, {} starts of the coordinator: {again} told again", KILLS / 2);
    assert_eq!(s.view().visits() + 1, events);
}
