//! A coordinator and its nodes as real processes, some of which are killed.

use crate::{TEST_COORDINATOR, TEST_NODE};
use kiln_tests::Process;
use tempfile::TempDir;

struct Cluster {
    coordinator: Process,
    profile: String,
    _directory: TempDir,
}

impl Cluster {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let files = directory.path().join("kiln");
        let mut coordinator = Process::start("the coordinator", TEST_COORDINATOR, &[files.as_os_str()]);
        let profile = coordinator.hear();
        let profile = profile.strip_prefix("profile ").expect("where the profile is").to_owned();
        Self { coordinator, profile, _directory: directory }
    }

    fn node(&self, name: &str) -> Process {
        let mut node = Process::start(name, TEST_NODE, &[self.profile.as_ref(), name.as_ref()]);
        assert_eq!(node.hear(), "attached");
        node
    }

    fn two_nodes(&self) -> (Process, Process) {
        (self.node("a"), self.node("b"))
    }
}

#[test]
fn no_increment_of_64_tasks_in_two_processes_is_lost() {
    let cluster = Cluster::start();
    let (mut a, mut b) = cluster.two_nodes();
    a.say("increment s 32 200");
    b.say("increment s 32 200");
    assert_eq!(a.hear(), "incremented 6400");
    assert_eq!(b.hear(), "incremented 6400");
    assert_eq!(a.ask("read s"), "visits 12800 theme \"\"");
    assert_eq!(b.ask("read s"), "visits 12800 theme \"\"");
}

#[test]
fn one_process_of_two_creates() {
    let cluster = Cluster::start();
    let (mut a, mut b) = cluster.two_nodes();
    for key in 0..50 {
        a.say(&format!("create k{key} 1"));
        b.say(&format!("create k{key} 2"));
        assert_eq!(a.hear(), b.hear());
    }
}

#[test]
fn a_killed_node_loses_its_lock_and_only_what_it_had_not_committed() {
    let cluster = Cluster::start();
    let (mut a, mut b) = cluster.two_nodes();
    assert_eq!(a.ask("update s"), "updated");
    assert_eq!(a.ask("hold s"), "held");
    b.say("update s");
    a.kill();
    // Granted once the silence of the dead node is noticed.
    assert_eq!(b.hear(), "updated");
    assert_eq!(b.ask("read s"), "visits 2 theme \"\"");
    let mut c = cluster.node("c");
    assert_eq!(c.ask("read s"), "visits 2 theme \"\"");
}

#[test]
fn a_node_killed_at_full_speed_leaves_a_whole_object() {
    let cluster = Cluster::start();
    let (mut a, mut b) = cluster.two_nodes();
    a.say("increment s 8 100000");
    assert_eq!(b.ask("increment s 2 50"), "incremented 100");
    a.kill();
    assert_eq!(b.ask("increment s 2 50"), "incremented 100");
    let seen = b.ask("read s");
    let mut c = cluster.node("c");
    assert_eq!(c.ask("read s"), seen);
    assert_eq!(c.ask("update s"), "updated");
}

#[test]
fn nodes_are_told_when_the_coordinator_stops() {
    let mut cluster = Cluster::start();
    let (mut a, mut b) = cluster.two_nodes();
    assert_eq!(a.ask("update s"), "updated");
    assert_eq!(b.ask("hold s"), "held");
    a.say("update s");
    cluster.coordinator.terminate();
    // It waits for a lock that will never come.
    assert_eq!(a.hear(), "error there is no connection to the coordinator");
    let (status, said) = cluster.coordinator.wait();
    assert!(status.success(), "{status}");
    assert_eq!(said, ["stopped cut=0"]);
    let stopped = "the coordinator has stopped: attach a new runtime once it runs again";
    for node in [&mut a, &mut b] {
        assert_eq!(node.ask("closed"), "closed CoordinatorStopped");
        assert_eq!(node.ask("update other"), format!("error {stopped}"));
        assert_eq!(node.ask("add s 1"), format!("error {stopped}"));
    }
    let late = b.ask("release commit");
    assert_eq!(late, "error there is no connection to the coordinator");
}

#[test]
fn nodes_notice_a_coordinator_that_is_killed() {
    let mut cluster = Cluster::start();
    let (mut a, mut b) = cluster.two_nodes();
    assert!(b.ask("update s").starts_with("updated"));
    assert_eq!(a.ask("hold s"), "held");
    b.say("update s");
    cluster.coordinator.kill();
    // They hope for it to come back: who has nothing to lose until its deadline, who has a lock until the lease lapses.
    assert_eq!(b.hear(), "error there is no connection to the coordinator");
    let late = a.ask("release commit");
    assert!(late.starts_with("error the node's lease has lapsed since the locks were taken"), "{late}");
}

#[test]
fn a_node_that_detaches_frees_its_locks_at_once() {
    let cluster = Cluster::start();
    let (mut a, mut b) = cluster.two_nodes();
    assert_eq!(a.ask("update s"), "updated");
    assert_eq!(a.ask("detach"), "detached");
    assert_eq!(b.ask("update s"), "updated");
    assert_eq!(b.ask("read s"), "visits 2 theme \"\"");
    assert_eq!(a.ask("update s"), "error the node has left the cluster: attach a new runtime to go on");
    assert_eq!(a.ask("closed"), "closed Detached");
}
