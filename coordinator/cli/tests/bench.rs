//! `kiln bench` as a process: every row gives figures, and no process outlives the one that measures.

use kiln_coordinator::server::{Options, Server};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn kiln(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn bench(arguments: &[&str]) -> Command {
    let mut command = kiln(&["bench"]);
    command.args(arguments);
    command
}

#[test]
fn every_row_has_figures_and_nothing_is_lost() {
    let output = bench(&["--json", "--secs", "0.02", "--scale", "0.001"]).output().unwrap();
    let remarks = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{remarks}");
    let rows: BTreeMap<String, serde_json::Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .map(|row: serde_json::Value| (row["name"].as_str().unwrap().to_owned(), row))
        .collect();
    for name in ["quic_echo", "view_handle", "commit_applied", "hand_off_turns", "commit_seen", "commits_pipelined"] {
        let row = rows.get(name).unwrap_or_else(|| panic!("no row {name}: {remarks}"));
        assert!(row["value"].as_f64().unwrap() > 0.0, "{row}");
        for key in ["unit", "p50", "p99", "floor", "budget", "within"] {
            assert!(row.get(key).is_some(), "{key} in {row}");
        }
    }
    // Its budget has an exact part: a lost increment makes the exit code 1.
    assert!(rows["increments"]["value"].as_f64().unwrap() > 0.0);
    let echo = &rows["quic_echo"]["value"];
    assert_eq!(&rows["commit_applied"]["floor"], echo);
}

#[test]
fn a_wrong_name_lists_the_rows() {
    let output = bench(&["--only", "nonsense"]).output().unwrap();
    assert!(!output.status.success());
    let remarks = String::from_utf8_lossy(&output.stderr);
    assert!(remarks.contains("`nonsense`") && remarks.contains("view_handle"), "{remarks}");
}

#[test]
fn a_coordinator_that_runs_already_is_left_empty() {
    let directory = tempfile::tempdir().unwrap();
    let threads = tokio::runtime::Runtime::new().unwrap();
    let mut options = Options::new(directory.path().join("coordinator"));
    options.listen.set_port(0);
    let server = threads.block_on(Server::start(options)).unwrap();
    let profile = server.profile_path().to_str().unwrap().to_owned();
    // The second time the roots are there already.
    for _ in 0..2 {
        for rows in ["commit", "hand_off_flat", "view_key_1m", "object_memory"] {
            let arguments = ["--json", "--secs", "0.02", "--scale", "0.001", "--only", rows, "--against", &profile];
            let output = bench(&arguments).output().unwrap();
            let remarks = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{remarks}");
            assert_eq!(remarks.contains("object_memory: left out"), rows == "object_memory", "{remarks}");
            assert_eq!(output.stdout.is_empty(), rows == "object_memory", "{rows}");
        }
        let listed = kiln(&["ls", "--json", "--profile", &profile]).output().unwrap();
        let roots: Vec<serde_json::Value> =
            serde_json::Deserializer::from_slice(&listed.stdout).into_iter().map(|root| root.unwrap()).collect();
        assert!(roots.len() >= 3, "{roots:?}");
        assert!(roots.iter().all(|root| root["objects"] == 0), "{roots:?}");
        let status = kiln(&["status", "--profile", &profile]).output().unwrap();
        let status = String::from_utf8_lossy(&status.stdout);
        assert!(
            status.contains("kiln-cli") && !status.contains("bench-a") && !status.contains("bench-extra"),
            "{status}"
        );
    }
    threads.block_on(server.stop(Duration::from_secs(5))).unwrap();
}

#[test]
fn a_coordinator_that_is_not_there_is_said_once() {
    let output = bench(&["--against", "nowhere.toml"]).output().unwrap();
    assert!(!output.status.success() && output.stdout.is_empty());
    let remarks = String::from_utf8_lossy(&output.stderr);
    assert_eq!(remarks.matches("cannot read the profile `nowhere.toml`").count(), 1, "{remarks}");
}

#[test]
fn its_processes_end_when_it_is_killed() {
    let mut parent = Killed(bench(&["--secs", "60", "--only", "hand_off_flat"]).stderr(Stdio::null()).spawn().unwrap());
    let id = parent.0.id();
    let children = soon("it starts processes", || Some(children_of(id)).filter(|children| !children.is_empty()));
    parent.0.kill().unwrap();
    parent.0.wait().unwrap();
    for child in children {
        soon("its processes end", || (!child.exists()).then_some(()));
    }
}

/// Ended with the test, however that ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Fails when it has ended, which is fine.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn children_of(id: u32) -> Vec<PathBuf> {
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    children.split_whitespace().map(|child| PathBuf::from("/proc").join(child)).collect()
}

#[expect(clippy::disallowed_methods, reason = "other processes are waited for")]
fn soon<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
