//! What the command does with a coordinator's directory.

use crate::node::{Node, THEME};
use crate::{Process, json, kiln, run, serve};
use kiln_protocol::{Profile, ToNode, Write};
use std::path::Path;

fn profile(directory: &Path) -> Profile {
    Profile::parse(&std::fs::read_to_string(directory.join("kiln.toml")).unwrap()).unwrap()
}

/// A coordinator whose log has what a node did.
async fn written(directory: &Path) -> (Process, Node) {
    let (process, _, _) = serve(directory, &[]);
    let mut node = Node::attach(&profile(directory)).await;
    node.commit(&[Write::Block { field: node.fields.fields[THEME], bytes: b"light" }]).await;
    while !matches!(node.client.next().await, ToNode::Durable { .. }) {}
    (process, node)
}

#[tokio::test]
async fn the_log_says_what_changed_and_who_did_it() {
    let directory = tempfile::tempdir().unwrap();
    let (mut process, _node) = written(directory.path()).await;
    // While it runs, and when it was killed.
    for _ in 0..2 {
        let said = run(kiln(directory.path(), &["log"]));
        assert_eq!(said.code, Some(0), "{}", said.err);
        let created = said.out.lines().find(|line| line.contains("sessions s-1  created")).unwrap();
        assert!(created.contains("web-1#") && created.contains('T') && created.contains('Z'), "{created}");
        let updated = said.out.lines().find(|line| line.contains("sessions s-1  updated")).unwrap();
        assert!(updated.contains("theme=\"light\""), "{updated}");
        let said = run(kiln(directory.path(), &["log", "sessions", "s-2", "--json"]));
        assert!(
            said.out.lines().count() > 0 && said.out.lines().all(|line| json(line)["key"] == "s-2"),
            "{}",
            said.out
        );
        process.child.kill().unwrap();
        process.child.wait().unwrap();
    }
    let said = run(kiln(directory.path(), &["log", "nonsense"]));
    assert!(said.code == Some(1) && said.err.contains("`sessions`"), "{}", said.err);
    let said = run(kiln(directory.path(), &["log", "--data", "nowhere"]));
    assert!(said.code == Some(1) && said.err.contains("kiln serve --data"), "{}", said.err);
}

#[tokio::test]
async fn a_snapshot_is_taken_when_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let (mut process, mut node) = written(directory.path()).await;
    let taken = |said: crate::Said| {
        assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
        json(said.out.trim_end())
    };
    let first = taken(run(kiln(directory.path(), &["snapshot", "--json"])));
    assert_eq!((first["objects"].as_u64(), first["removed"].as_u64()), (Some(2), Some(0)), "{first}");
    node.commit(&[Write::Block { field: node.fields.fields[THEME], bytes: b"blue" }]).await;
    let second = taken(run(kiln(directory.path(), &["snapshot", "--json"])));
    assert!(second["entry"].as_u64() > first["entry"].as_u64(), "{second}");
    assert_eq!(second["removed"], 1, "the first one: {second}");
    let file = format!("kiln-data/log/{:020}.snapshot", second["entry"].as_u64().unwrap());
    assert_eq!(std::fs::metadata(directory.path().join(file)).unwrap().len(), second["bytes"].as_u64().unwrap());
    let said = run(kiln(directory.path(), &["snapshot"]));
    assert!(said.out.starts_with("2 objects after entry ") && said.out.contains(" bytes in "), "{}", said.out);
    // What is in it was written before.
    let said = run(kiln(directory.path(), &["log"]));
    assert!(said.code == Some(0) && !said.out.contains("updated"), "{}{}", said.out, said.err);
    process.child.kill().unwrap();
    process.child.wait().unwrap();
    let (_process, _, _) = serve(directory.path(), &[]);
    let said = run(kiln(directory.path(), &["get", "sessions", "s-1"]));
    assert!(said.out.contains("blue"), "{}{}", said.out, said.err);
}

#[tokio::test]
async fn a_coordinator_in_memory_takes_no_snapshot() {
    let running = crate::Running::start().await;
    let said = running.kiln(&["snapshot"]).await;
    assert!(said.code == Some(1) && said.err.contains("keeps its state in memory"), "{}{}", said.out, said.err);
}

#[tokio::test]
async fn a_backup_of_a_running_coordinator_is_put_in_place() {
    let directory = tempfile::tempdir().unwrap();
    let (mut process, _node) = written(directory.path()).await;
    let said = run(kiln(directory.path(), &["backup", "copy"]));
    assert!(said.code == Some(0) && said.out.contains("2 objects backed up to copy"), "{}{}", said.out, said.err);
    let said = run(kiln(directory.path(), &["backup", "copy"]));
    assert!(said.code == Some(1) && said.err.contains("has a log already"), "{}", said.err);
    let said = run(kiln(directory.path(), &["verify"]));
    assert!(said.code == Some(1) && said.err.contains("in use by another coordinator"), "{}", said.err);
    let said = run(kiln(directory.path(), &["verify", "copy"]));
    assert!(said.code == Some(0) && said.out.contains("nothing wrong: 2 objects"), "{}{}", said.out, said.err);
    process.child.kill().unwrap();
    process.child.wait().unwrap();
    let said = run(kiln(directory.path(), &["restore", "copy"]));
    assert!(said.code == Some(1) && said.err.contains("has a log already"), "{}", said.err);
    let ca = std::fs::read(directory.path().join("kiln-data/ca.pem")).unwrap();
    std::fs::rename(directory.path().join("kiln-data"), directory.path().join("old")).unwrap();
    let said = run(kiln(directory.path(), &["restore", "copy"]));
    assert!(said.code == Some(0) && said.out.contains("2 objects restored"), "{}{}", said.out, said.err);
    assert_eq!(std::fs::read(directory.path().join("kiln-data/ca.pem")).unwrap(), ca);
    let mut epochs = Vec::new();
    for _ in 0..2 {
        let (mut process, _, _) = serve(directory.path(), &[]);
        let said = run(kiln(directory.path(), &["get", "sessions", "s-1"]));
        assert!(said.out.contains("light"), "{}{}", said.out, said.err);
        let said = run(kiln(directory.path(), &["status", "--json"]));
        epochs.push(json(said.out.lines().next().unwrap())["epoch"].as_u64().unwrap());
        process.child.kill().unwrap();
        process.child.wait().unwrap();
    }
    assert!(epochs[0] > 1000 && epochs[1] == epochs[0] + 1, "{epochs:?}");
}

#[tokio::test]
async fn a_damaged_log_is_not_served_and_verify_says_where() {
    let directory = tempfile::tempdir().unwrap();
    let (mut process, _node) = written(directory.path()).await;
    process.child.kill().unwrap();
    process.child.wait().unwrap();
    let segment = directory.path().join("kiln-data/log/000000000001.log");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[70] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    let said = run(kiln(directory.path(), &["serve", "--listen", "127.0.0.1:0"]));
    assert_eq!(said.code, Some(1));
    assert!(
        said.err.contains("000000000001.log is damaged at byte 64") && said.err.contains("kiln restore"),
        "{}",
        said.err
    );
    let said = run(kiln(directory.path(), &["verify"]));
    assert!(said.code == Some(1) && said.out.contains("000000000001.log  bytes 64 to "), "{}{}", said.out, said.err);
    assert!(said.err.contains("damaged in 1 places"), "{}", said.err);
    assert_eq!(std::fs::read(&segment).unwrap(), bytes, "nothing was changed");
}
