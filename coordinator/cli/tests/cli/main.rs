//! The `kiln` binary against real coordinators, and a node that gives it something to look at.

#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that is surprised fails")]

#[path = "../../../tests/server/client.rs"]
#[expect(dead_code, reason = "the coordinator's tests use more of it")]
mod client;
mod data;
mod full;
mod hashed;
mod node;
mod settings;

use bytes::Bytes;
use client::{Client, PATIENCE};
use kiln_coordinator::server::{Options, Server};
use kiln_protocol::message::{Commit, Mode, Part};
use kiln_protocol::{CommitSeq, GroupId, Profile, RequestId, ToCoordinator, ToNode, Token, Version, Write};
use node::{CART, CLICKS, Node, THEME, VISITS, create, encode};
use smallvec::smallvec;
use std::io::{BufRead as _, BufReader, Lines};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(10);

/// What a finished command said.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn kiln(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.args(arguments);
    clean(&mut command, directory);
    command
}

/// Lets nothing of the test's own surroundings in.
fn clean(command: &mut Command, directory: &Path) {
    command.current_dir(directory).stdin(Stdio::null());
    for name in [
        "LISTEN",
        "DATA",
        "IN_MEMORY",
        "SYNC",
        "PROFILE",
        "ADVERTISE",
        "METRICS",
        "CONFIG",
        "STOP_TIMEOUT",
        "TIMEOUT",
        "LOG",
    ] {
        command.env_remove(format!("KILN_{name}"));
    }
}

fn run(mut command: Command) -> Said {
    let output = command.output().unwrap();
    Said {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A process that ends with its test.
struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("another line").unwrap()
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A coordinator in this process, and a profile for the binary.
struct Running {
    server: Server,
    directory: TempDir,
}

impl Running {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut options = Options::new(directory.path().join("data"));
        options.listen.set_port(0);
        options.profile = Some(directory.path().join("kiln.toml"));
        let server = Server::start(options).await.unwrap();
        Self { server, directory }
    }

    /// Runs the binary; the node stays alive meanwhile.
    async fn kiln(&self, arguments: &[&str]) -> Said {
        let command = kiln(self.directory.path(), arguments);
        tokio::task::spawn_blocking(|| run(command)).await.unwrap()
    }
}

fn json(line: &str) -> serde_json::Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

#[tokio::test]
async fn status_shows_who_is_attached() {
    let running = Running::start().await;
    let _node = Node::attach(running.server.profile()).await;
    let said = running.kiln(&["status"]).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    for word in ["web-1", "kiln-cli", "observer", "memory", "2 ("] {
        assert!(said.out.contains(word), "{word}: {}", said.out);
    }
    let said = running.kiln(&["status", "--json"]).await;
    let status = json(&said.out);
    assert_eq!(status["objects"], 2);
    let node = &status["nodes"][0];
    assert_eq!((&node["name"], &node["role"], &node["objects"]), (&"web-1".into(), &"node".into(), &2.into()));
}

#[tokio::test]
async fn ls_shows_roots_and_keys() {
    let running = Running::start().await;
    let said = running.kiln(&["ls"]).await;
    assert!(said.out.starts_with("ROOT"), "{}", said.out);
    let _node = Node::attach(running.server.profile()).await;
    let said = running.kiln(&["ls"]).await;
    assert!(said.out.contains("sessions") && said.out.contains("Session"), "{}", said.out);
    let said = running.kiln(&["ls", "--json"]).await;
    let root = json(&said.out);
    assert_eq!((&root["root"], &root["type"], &root["objects"]), (&"sessions".into(), &"Session".into(), &2.into()));
    assert_eq!((&root["fields"][0]["group"], &root["fields"][3]["group"]), (&"default".into(), &"counters".into()));
    let said = running.kiln(&["ls", "sessions"]).await;
    assert_eq!(said.out, "s-1\ns-2\n");
    let said = running.kiln(&["ls", "sessions", "--limit", "1", "--json"]).await;
    assert_eq!(said.out, "{\"root\":\"sessions\",\"key\":\"s-1\"}\n");
    assert!(said.err.contains("more keys"), "{}", said.err);
}

#[tokio::test]
async fn ls_pages_through_many_keys() {
    const KEYS: usize = 10_000;
    let running = Running::start().await;
    let mut node = Node::attach(running.server.profile()).await;
    for key in 0..KEYS {
        create(&mut node.client, node.root, &node.fields, &format!("t-{key:05}")).await;
    }
    let said = running.kiln(&["ls", "sessions"]).await;
    assert_eq!(said.out.lines().count(), KEYS + 2);
    assert!(said.out.lines().is_sorted());
    let said = running.kiln(&["ls", "sessions", "--limit", "5000"]).await;
    assert_eq!(said.out.lines().count(), 5000);
}

#[tokio::test]
async fn get_shows_fields_by_name() {
    let running = Running::start().await;
    let mut node = Node::attach(running.server.profile()).await;
    let said = running.kiln(&["get", "sessions", "s-1"]).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    for line in ["theme   \"dark\"", "visits  (default)", "  \"sku-1\": \"a\\u{1b}[2J\"", "clicks  7"] {
        assert!(said.out.lines().any(|shown| shown == line), "{line}: {}", said.out);
    }
    let visits = node.fields.fields[VISITS];
    node.commit(&[Write::Scalar { field: visits, bits: (-3_i64).cast_unsigned() }]).await;
    let said = running.kiln(&["get", "sessions", "s-1", "--json"]).await;
    let object = json(&said.out);
    let fields = serde_json::json!({"theme": "dark", "visits": -3, "cart": {"sku-1": "a\u{1b}[2J"}, "clicks": 7});
    assert_eq!(object["fields"], fields);
    assert_eq!(object["type"], "Session");
    assert_eq!(object["versions"]["default"], format!("{}:1", running.server.epoch()));
}

#[tokio::test]
async fn a_key_is_read_as_it_is_shown() {
    let running = Running::start().await;
    let mut node = Node::attach(running.server.profile()).await;
    for key in ["\u{1b}[31mred\n", "\\u{a}", "C:\\users"] {
        create(&mut node.client, node.root, &node.fields, key).await;
    }
    let said = running.kiln(&["ls", "sessions"]).await;
    assert_eq!(said.out.lines().count(), 5, "{}", said.out);
    for shown in said.out.lines() {
        let json_of = running.kiln(&["get", "sessions", shown, "--json"]).await;
        let key = json(&json_of.out)["key"].as_str().unwrap().to_owned();
        assert!(shown == key || shown.contains("\\u{"), "{shown} {key}");
        let listed = running.kiln(&["ls", "sessions", "--json"]).await;
        assert!(listed.out.lines().any(|line| json(line)["key"] == key.as_str()), "{key}: {}", listed.out);
        // A program that has the key itself, from --json, gives that.
        let literal = running.kiln(&["get", "sessions", &key, "--json"]).await;
        assert_eq!(literal.out, json_of.out);
    }
    let mut watch = Process::start(kiln(running.directory.path(), &["watch", "sessions", "\\u{1b}[31mred\\u{a}"]));
    let mut err = BufReader::new(watch.child.stderr.take().unwrap()).lines();
    assert!(err.next().unwrap().unwrap().contains("watching sessions \\u{1b}[31mred"));
}

#[tokio::test]
async fn watch_shows_each_change() {
    let running = Running::start().await;
    let mut node = Node::attach(running.server.profile()).await;
    let command = kiln(running.directory.path(), &["watch", "sessions", "--json"]);
    let mut watch = Process::start(command);
    let mut err = BufReader::new(watch.child.stderr.take().unwrap()).lines();
    assert!(err.next().unwrap().unwrap().contains("watching sessions"));
    let (theme, cart, clicks) = (node.fields.fields[THEME], node.fields.fields[CART], node.fields.fields[CLICKS]);
    node.commit(&[Write::Block { field: theme, bytes: b"light" }, Write::MapRemove { field: cart, key: b"sku-1" }])
        .await;
    let part = Part {
        object: node.object,
        group: GroupId::COMMUTATIVE,
        token: Token::default(),
        version: Version::default(),
        writes: encode(&[Write::Add { field: clicks, amount: -2 }]),
    };
    let commit = Commit { everywhere: false, durable: false, parts: smallvec![part] };
    node.client.say(&ToCoordinator::Commit(commit)).await;
    let seq = CommitSeq::from_bits(2);
    assert_eq!(node.client.next().await, ToNode::Ack { applied: seq });
    let (first, second, _watch) =
        tokio::task::spawn_blocking(move || (json(&watch.line()), json(&watch.line()), watch)).await.unwrap();
    assert_eq!((&first["key"], &first["node"], &first["change"]), (&"s-1".into(), &"web-1".into(), &"updated".into()));
    assert_eq!(
        first["writes"],
        serde_json::json!([
            {"field": "theme", "value": "light"},
            {"field": "cart", "key": "sku-1", "removed": true}
        ])
    );
    assert_eq!(second["group"], "counters");
    assert_eq!(second["writes"], serde_json::json!([{"field": "clicks", "add": -2}]));
}

#[tokio::test]
async fn a_watch_of_an_object_ends_with_it() {
    let running = Running::start().await;
    let mut node = Node::attach(running.server.profile()).await;
    let mut watch = Process::start(kiln(running.directory.path(), &["watch", "sessions", "s-1"]));
    let mut err = BufReader::new(watch.child.stderr.take().unwrap()).lines();
    assert!(err.next().unwrap().unwrap().contains("watching sessions s-1"));
    let request = RequestId::from_bits(9);
    let key = Bytes::from_static(b"s-1");
    let root = node.root;
    node.client.say(&ToCoordinator::Remove { request, root, key, everywhere: false }).await;
    // The node gives back its grant of each group, as a runtime would.
    loop {
        match node.client.next().await {
            ToNode::Recall { object, group, token, .. } => {
                node.client.say(&ToCoordinator::Release { object, group, token, keep_read: false }).await;
            }
            ToNode::Done { yes, .. } => break assert!(yes),
            _ => {}
        }
    }
    let (line, status) =
        tokio::task::spawn_blocking(move || (watch.line(), watch.child.wait().unwrap())).await.unwrap();
    assert!(line.contains("s-1  removed") && line.contains("web-1#"), "{line}");
    assert!(status.success());
}

#[tokio::test]
async fn locks_shows_holders_and_waiters() {
    let running = Running::start().await;
    let mut node = Node::attach(running.server.profile()).await;
    let mut other = Client::attach(running.server.profile(), "web-2").await;
    let request = RequestId::from_bits(1);
    let (object, group) = (node.object, GroupId::DEFAULT);
    other.say(&ToCoordinator::Acquire { request, object, group, mode: Mode::Write, want_record: false }).await;
    assert!(matches!(node.client.next().await, ToNode::Recall { .. }));
    let said = running.kiln(&["locks"]).await;
    let row = said.out.lines().find(|line| line.contains("s-1")).unwrap();
    for word in ["sessions", "default", "web-1#", "web-2#", "write"] {
        assert!(row.contains(word), "{word}: {row}");
    }
    let said = running.kiln(&["locks", "--json"]).await;
    let lock = said.out.lines().map(json).find(|lock| lock["key"] == "s-1").unwrap();
    assert_eq!(lock["group"], "default");
    assert_eq!(lock["holders"][0]["node"], "web-1");
    assert_eq!(lock["waiters"][0]["node"], "web-2");
}

#[tokio::test]
async fn mistakes_say_what_to_do() {
    let running = Running::start().await;
    let _node = Node::attach(running.server.profile()).await;
    for (arguments, words) in [
        (&["get", "sesions", "s-1"][..], &["root `sesions` does not exist", "`sessions`"][..]),
        (&["get", "sessions", "s-9"], &["no object `s-9`"]),
        (&["watch", "sessions", "s-9"], &["no object `s-9`"]),
        (&["ls", "nothing"], &["root `nothing`", "`sessions`"]),
        (&["status", "--profile", "gone.toml"], &["gone.toml", "kiln serve", "KILN_PROFILE"]),
    ] {
        let said = running.kiln(arguments).await;
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{arguments:?}");
        for word in words {
            assert!(said.err.contains(word), "{word}: {}", said.err);
        }
    }
}

#[tokio::test]
async fn a_wrong_profile_is_explained() {
    let running = Running::start().await;
    let other = Running::start().await;
    let broken = running.directory.path().join("broken.toml");
    std::fs::write(&broken, "address = \"x\"\n").unwrap();
    let said = running.kiln(&["status", "--profile", "broken.toml"]).await;
    assert!(said.err.contains("broken.toml is wrong: key `server_name` is missing"), "{}", said.err);

    let mut mixed = other.server.profile().clone();
    mixed.address.clone_from(&running.server.profile().address);
    std::fs::write(&broken, mixed.print()).unwrap();
    let said = running.kiln(&["status", "--profile", "broken.toml"]).await;
    assert!(said.err.contains("certificate is not accepted") && said.err.contains("another"), "{}", said.err);

    mixed.ca.clone_from(&running.server.profile().ca);
    std::fs::write(&broken, mixed.print()).unwrap();
    let said = running.kiln(&["status", "--profile", "broken.toml"]).await;
    assert!(said.err.contains("does not accept the profile's certificate"), "{}", said.err);

    // Bound, so that nobody else answers there.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut nobody = running.server.profile().clone();
    nobody.address = silent.local_addr().unwrap().to_string();
    std::fs::write(&broken, nobody.print()).unwrap();
    let said = running.kiln(&["status", "--profile", "broken.toml", "--timeout", "0.5"]).await;
    assert!(said.err.contains(&nobody.address) && said.err.contains("nobody answers"), "{}", said.err);
}

/// `kiln serve` in a directory of its own: the process, its address, its profile.
fn serve(directory: &Path, arguments: &[&str]) -> (Process, String, PathBuf) {
    let mut all = vec!["serve", "--listen", "127.0.0.1:0"];
    all.extend_from_slice(arguments);
    let mut process = Process::start(kiln(directory, &all));
    let first = process.line();
    let address = first.rsplit(' ').next().unwrap().to_owned();
    let second = process.line();
    let profile = second.rsplit(' ').next().unwrap().into();
    (process, address, profile)
}

#[tokio::test]
async fn serve_says_where_it_is_and_stops_on_a_signal() {
    let directory = tempfile::tempdir().unwrap();
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let (mut process, address, path) = serve(directory.path(), &[]);
        assert!(process.line().contains("state is kept"));
        assert_eq!(path, Path::new("kiln.toml"));
        let path = directory.path().join(path);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let profile = Profile::parse(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(profile.address, address);
        let mut client = Client::attach(&profile, "web-1").await;
        process.signal(signal);
        assert_eq!(client.next().await, ToNode::Stopping);
        let status = tokio::task::spawn_blocking(move || process.child.wait().unwrap());
        let status = tokio::time::timeout(PATIENCE, status).await.unwrap().unwrap();
        assert_eq!(status.code(), Some(0));
    }
}

#[tokio::test]
async fn flags_go_before_the_environment_before_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let config = "advertise = \"file.example\"\ndata = \"from-file\"\nprofile = \"from-file.toml\"\n";
    std::fs::write(directory.path().join("config.toml"), config).unwrap();
    let mut command = kiln(directory.path(), &["serve", "--listen", "127.0.0.1:0", "--profile", "from-flag.toml"]);
    command.env("KILN_CONFIG", "config.toml").env("KILN_PROFILE", "from-env.toml").env("KILN_ADVERTISE", "env.example");
    let mut process = Process::start(command);
    process.line();
    assert!(process.line().ends_with("from-flag.toml"));
    let profile = std::fs::read_to_string(directory.path().join("from-flag.toml")).unwrap();
    assert_eq!(Profile::parse(&profile).unwrap().server_name, "env.example");
    assert!(directory.path().join("from-file/ca.pem").exists());
}

#[tokio::test]
async fn serve_explains_why_it_cannot_start() {
    let directory = tempfile::tempdir().unwrap();
    let (_process, address, _) = serve(directory.path(), &[]);
    let said = run(kiln(directory.path(), &["serve", "--listen", "127.0.0.1:0"]));
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("in use by another coordinator (process "), "{}", said.err);
    let said =
        run(kiln(directory.path(), &["serve", "--listen", &address, "--data", "other", "--profile", "other.toml"]));
    assert!(said.err.contains(&format!("cannot listen on {address}")), "{}", said.err);
    std::fs::write(directory.path().join("bad.toml"), "lisen = \"x\"\n").unwrap();
    let said = run(kiln(directory.path(), &["serve", "--config", "bad.toml"]));
    assert!(said.err.contains("bad.toml, line 1") && said.err.contains("`listen`"), "{}", said.err);
}

#[tokio::test]
async fn metrics_are_served_where_asked() {
    use std::io::{Read as _, Write as _};
    let directory = tempfile::tempdir().unwrap();
    // Free a moment ago; whoever takes it meanwhile makes this test fail, loudly.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (mut process, _, path) = serve(directory.path(), &["--metrics", &free]);
    assert!(process.line().contains(&free));
    let profile = std::fs::read_to_string(directory.path().join(path)).unwrap();
    let mut node = Node::attach(&Profile::parse(&profile).unwrap()).await;
    let visits = node.fields.fields[VISITS];
    node.commit(&[Write::Scalar { field: visits, bits: 1 }]).await;
    let page = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(free).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        page
    });
    let page = page.await.unwrap();
    for line in ["kiln_commits_total 1", "kiln_nodes 1", "kiln_objects 2"] {
        assert!(page.lines().any(|shown| shown == line), "{line}: {page}");
    }
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_error() {
    let running = Running::start().await;
    let mut node = Node::attach(running.server.profile()).await;
    for key in 0..10_000 {
        create(&mut node.client, node.root, &node.fields, &format!("a-rather-long-key-{key:05}")).await;
    }
    let mut process = Process::start(kiln(running.directory.path(), &["ls", "sessions"]));
    let status = tokio::task::spawn_blocking(move || {
        process.line();
        drop(std::mem::replace(&mut process.lines, BufReader::new(dummy()).lines()));
        process.child.wait().unwrap()
    });
    assert_eq!(status.await.unwrap().code(), Some(0));
    running.server.stop(DEADLINE).await.unwrap();
}

#[tokio::test]
async fn a_pager_may_take_its_time() {
    const KEYS: usize = 10_000;
    /// Longer than a connection lives without a sign of life: the idle timeout, and a keep-alive before it.
    const PAUSE: Duration = Duration::from_secs(6);
    let running = Running::start().await;
    let mut node = Node::attach(running.server.profile()).await;
    for key in 0..KEYS {
        create(&mut node.client, node.root, &node.fields, &format!("a-rather-long-key-{key:05}")).await;
    }
    let mut process = Process::start(kiln(running.directory.path(), &["ls", "sessions"]));
    tokio::time::sleep(PAUSE).await;
    let (lines, status) = tokio::task::spawn_blocking(move || {
        let lines = process.lines.by_ref().map(Result::unwrap).count();
        (lines, process.child.wait().unwrap())
    })
    .await
    .unwrap();
    assert_eq!((lines, status.code()), (KEYS + 2, Some(0)));
}

/// The output of a process that says nothing.
fn dummy() -> ChildStdout {
    let mut child = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
    let out = child.stdout.take().unwrap();
    child.wait().unwrap();
    out
}
