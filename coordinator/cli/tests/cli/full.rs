//! A coordinator whose disk is full: an error that passes (L6). The disk is a small one in memory, mounted where only the
//! coordinator sees it.
#![expect(clippy::print_stdout, reason = "a test that was skipped says so")]

use crate::client::PATIENCE;
use crate::{Process, clean, kiln, run};
use kiln::{Clustered, CommitError, Level, Root, Runtime, Shared};
use kiln_protocol::Failure;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// Mounts a disk with something in it at the first argument, and becomes the rest of them.
const ON_SMALL_DISK: &str =
    r#"mount -t tmpfs -o size=12m,mode=0700 kiln "$1" && head -c 6M /dev/zero >"$1/filler" && shift && exec "$@""#;
const DATA: &str = "kiln-data";
/// More commits than fit.
const COMMITS_MAX: u64 = 1000;
const TEXT_BYTES: usize = 64 << 10;

#[derive(Clustered, Debug, Default)]
struct Note {
    number: u64,
    text: String,
}

/// `program` as somebody who may mount, with a disk of its own.
fn with_small_disk(directory: &Path, program: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", ON_SMALL_DISK, "sh"]);
    command.arg(directory.join(DATA)).args(program);
    clean(&mut command, directory);
    command
}

/// A coordinator on a small disk.
struct Full {
    process: Process,
    directory: TempDir,
}

impl Full {
    /// `None` where nobody but the administrator may mount anything.
    fn start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join(DATA)).unwrap();
        let can = with_small_disk(directory.path(), &["true"]).output();
        if !can.as_ref().is_ok_and(|output| output.status.success()) {
            println!("SKIPPED: no file system can be mounted in a namespace here: {can:?}");
            return None;
        }
        let serve = [env!("CARGO_BIN_EXE_kiln"), "serve", "--listen", "127.0.0.1:0"];
        let mut process = Process::start(with_small_disk(directory.path(), &serve));
        let (_address, _profile) = (process.line(), process.line());
        Some(Self { process, directory })
    }

    fn profile(&self) -> PathBuf {
        self.directory.path().join("kiln.toml")
    }

    async fn node(&self, name: &str) -> (Runtime, Root<String, Note>) {
        let node = Runtime::builder().profile(self.profile()).node_name(name).level(Level::Durable).timeout(PATIENCE);
        let node = node.attach().await.unwrap();
        let notes = node.root("notes").await.unwrap();
        (node, notes)
    }

    /// The coordinator's directory, as it sees it.
    fn data(&self) -> PathBuf {
        let seen = format!("/proc/{}/root", self.process.child.id());
        Path::new(&seen).join(self.directory.path().join(DATA).strip_prefix("/").unwrap())
    }
}

async fn write(note: &Shared<Note>, number: u64) -> Result<(), CommitError> {
    let mut guard = note.write().await.unwrap();
    *guard.number = number;
    *guard.text = "x".repeat(TEXT_BYTES);
    guard.commit().await.map(drop)
}

/// Writes until the log is full; returns the last number that was acknowledged.
async fn fill(note: &Shared<Note>, from: u64) -> u64 {
    for number in from..from + COMMITS_MAX {
        match write(note, number).await {
            Ok(()) => {}
            Err(CommitError::Refused(Failure::LogFull)) => return number - 1,
            Err(error) => panic!("a full disk is not {error:?}"),
        }
    }
    panic!("the disk does not fill");
}

/// Writes until that succeeds.
async fn write_at_last(note: &Shared<Note>, number: u64) {
    let writing = async {
        loop {
            match write(note, number).await {
                Ok(()) => return,
                Err(CommitError::Refused(Failure::LogFull)) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(error) => panic!("a full disk is not {error:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, writing).await.expect("writing goes on");
}

#[tokio::test]
async fn a_full_disk_refuses_commits_and_nothing_else_until_there_is_room() {
    let Some(full) = Full::start() else { return };
    let ((a, notes), (b, notes_elsewhere)) = (full.node("a").await, full.node("b").await);
    let on_a = notes.get_or_create("n", Note::default).await.unwrap();
    let leader = a.lock("leader").await.unwrap();
    let on_b = notes_elsewhere.get("n").await.unwrap().unwrap();
    let leader_elsewhere = b.lock("leader").await.unwrap();
    let last = fill(&on_a, 1).await;
    assert!(last > 20, "{last}: there was room for more");

    // Reads and locks go on, from node to node.
    assert_eq!(on_b.read().await.unwrap().get(|note| note.number()), last);
    drop(leader.write().await.unwrap());
    drop(leader_elsewhere.write().await.unwrap());
    drop(on_b.write().await.unwrap());
    assert!(matches!(write(&on_b, 0).await, Err(CommitError::Refused(Failure::LogFull))));
    assert_eq!(on_a.read().await.unwrap().get(|note| note.number()), last, "nothing of it was changed");
    let created = notes_elsewhere.get_or_create("another", Note::default).await;
    assert!(format!("{created:?}").contains("LogFull"), "{created:?}");

    let said = run(kiln(full.directory.path(), &["status"]));
    assert_eq!(said.code, Some(0), "whoever looks is let in: {}{}", said.out, said.err);

    std::fs::remove_file(full.data().join("filler")).unwrap();
    write_at_last(&on_b, last + 1).await;
    write(&on_a, last + 2).await.unwrap();

    // All of it is on the disk, and whole.
    let data = full.data();
    let said = run(kiln(full.directory.path(), &["backup", "copy", "--data", data.to_str().unwrap()]));
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    drop(full.process);
    let directory = full.directory;
    let (_process, _, _) = crate::serve(directory.path(), &["--data", "copy"]);
    let said = run(kiln(directory.path(), &["get", "notes", "n"]));
    assert!(said.out.contains(&(last + 2).to_string()), "{}{}", said.out, said.err);
}

#[tokio::test]
async fn a_snapshot_makes_room_on_a_full_disk() {
    let Some(full) = Full::start() else { return };
    let (_a, notes) = full.node("a").await;
    let note = notes.get_or_create("n", Note::default).await.unwrap();
    let last = fill(&note, 1).await;
    let said = run(kiln(full.directory.path(), &["snapshot", "--json"]));
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    write_at_last(&note, last + 1).await;
    // And again: the log goes round on this disk.
    let last = fill(&note, last + 2).await;
    assert_eq!(note.read().await.unwrap().get(|note| note.number()), last);
}
