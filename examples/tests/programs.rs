//! Every example is run as people run it: it says what it shows, and ends well, also when it is made to end.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use kiln_tests::Browser;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::timeout;

const TIMEOUT: Duration = Duration::from_secs(120);

async fn run(program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    timeout(TIMEOUT, command.output()).await.expect("it hangs").expect("it does not start")
}

/// Runs a program that must end well; returns what it printed.
async fn run_well(program: &str, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = run(program, arguments).await;
    let (said, complained) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{program} ended with {status}\n{said}\n{complained}");
    said.into_owned()
}

#[tokio::test]
async fn counter_counts_every_increment() {
    let said = run_well(env!("CARGO_BIN_EXE_counter"), &[]).await;
    assert_eq!(said.matches(" reads 12800 hits").count(), 2, "{said}");
}

#[tokio::test]
async fn lobby_tells_who_comes_and_goes() {
    let said = run_well(env!("CARGO_BIN_EXE_lobby"), &[]).await;
    let told = [
        "ada came in through guest",
        "grace came in through guest",
        "ada changed ready, level through guest",
        "grace is called admiral now",
        "ada left",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), told);
}

#[tokio::test]
async fn leader_has_one_leader_at_a_time() {
    let said = run_well(env!("CARGO_BIN_EXE_leader"), &[]).await;
    assert!(said.ends_with("3 terms, never two leaders at once\n"), "{said}");
}

#[tokio::test]
async fn transfer_loses_no_money() {
    let said = run_well(env!("CARGO_BIN_EXE_transfer"), &[]).await;
    assert!(said.contains("ada has 9500, grace has 10500, together 20000"), "{said}");
}

#[tokio::test]
async fn the_stores_of_the_frameworks_lose_half_and_those_of_kiln_nothing() {
    let said = run_well(env!("CARGO_BIN_EXE_tower_sessions_swap"), &[]).await;
    assert_eq!(said, "MemoryStore: 200 of 400 writes were lost\nKiln: 0 of 400 writes were lost\n");
    let said = run_well(env!("CARGO_BIN_EXE_actix_swap"), &[]).await;
    assert_eq!(said, "CookieSessionStore: 200 of 400 writes were lost\nKiln: 0 of 400 writes were lost\n");
}

#[tokio::test]
async fn two_processes_see_one_object() {
    let said = run_well(env!("CARGO_BIN_EXE_two_processes"), &[]).await;
    assert_eq!(said.lines().count(), 2, "{said}");
}

const SHOP: &str = env!("CARGO_BIN_EXE_shop");

#[tokio::test]
async fn shop_check_is_good() {
    let said = run_well(SHOP, &["--check", "--clients", "24", "--rounds", "6"]).await;
    assert!(said.contains("Good: no update was lost, and every logout held everywhere."), "{said}");
}

#[tokio::test]
async fn shop_help_and_mistakes() {
    assert!(run_well(SHOP, &["--help"]).await.contains("--check"));
    let mut unread = Command::new(SHOP).arg("--help").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(unread.stdout.take());
    let unread = unread.wait_with_output().await.unwrap();
    assert!(unread.status.success() && unread.stderr.is_empty(), "a reader that has gone is no error: {unread:?}");
    let Output { status, stderr, .. } = run(SHOP, &["--chekc"]).await;
    assert_eq!(status.code(), Some(2));
    assert!(String::from_utf8_lossy(&stderr).contains("there is no option `--chekc`"));
}

/// A shop that runs, in a process group of its own.
struct Shop {
    process: Child,
    stdout: BufReader<ChildStdout>,
    /// The nodes' too: it ends when all three processes have ended.
    stderr: ChildStderr,
    addresses: [String; 2],
}

impl Shop {
    /// Tests run at once: each has ports of its own to look for free ones in.
    async fn start(port: &str) -> Self {
        let mut command = Command::new(SHOP);
        command.args(["--port", port]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.process_group(0).kill_on_drop(true).spawn().unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let stderr = process.stderr.take().unwrap();
        let mut addresses = Vec::new();
        while addresses.len() < 2 {
            let mut line = String::new();
            let read = timeout(TIMEOUT, stdout.read_line(&mut line)).await.expect("it hangs").unwrap();
            assert_ne!(read, 0, "it ended");
            addresses.extend(
                line.trim().strip_prefix("web-").and_then(|line| line.split("http://").nth(1)).map(str::to_owned),
            );
        }
        let addresses = addresses.try_into().unwrap();
        Self { process, stdout, stderr, addresses }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id().unwrap().cast_signed()).unwrap()
    }

    /// The next line that begins so; the rest of it.
    async fn line_after(&mut self, beginning: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            let read = timeout(TIMEOUT, self.stdout.read_line(&mut line)).await.expect("it hangs").unwrap();
            assert_ne!(read, 0, "it ended");
            if let Some(rest) = line.trim().strip_prefix(beginning) {
                return rest.to_owned();
            }
        }
    }

    /// The front page of each node.
    async fn fetch(&self) {
        for address in &self.addresses {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut page = String::new();
            timeout(TIMEOUT, stream.read_to_string(&mut page)).await.expect("it hangs").unwrap();
            assert!(page.starts_with("HTTP/1.1 200") && page.contains("Breakfast mug"), "{page}");
            assert!(page.contains("http://shop:"), "the other node's address under the same host name: {page}");
        }
    }

    /// Waits for the end of all three processes. Returns how the first one ended, and what they said.
    async fn end(mut self) -> (Option<i32>, String, String) {
        let (mut said, mut complained) = (String::new(), String::new());
        let all = async {
            self.stdout.read_to_string(&mut said).await.unwrap();
            self.stderr.read_to_string(&mut complained).await.unwrap();
            self.process.wait().await.unwrap()
        };
        let status = timeout(TIMEOUT, all).await.expect("a process of it goes on");
        for address in &self.addresses {
            assert!(TcpStream::connect(address).await.is_err(), "somebody answers at {address}");
        }
        (status.code(), said, complained)
    }
}

#[tokio::test]
async fn session_reader_reads_the_session_of_a_visitor() {
    let mut shop = Shop::start("28600").await;
    let profile = shop.line_after("Look inside: kiln watch sessions --profile ").await;
    let [a, b] = shop.addresses.clone().map(|address| address.parse().unwrap());
    let mut browser = Browser::default();
    let answer = browser.post(a, "/login", "name=ada").await.unwrap();
    browser.keep(&answer);
    assert_eq!(browser.post(b, "/cart/add", "sku=mug").await.unwrap().status, 303);
    let id = browser.cookie.clone().unwrap().split_once('=').unwrap().1.to_owned();
    let reader = env!("CARGO_BIN_EXE_session_reader");
    let said = run_well(reader, &[&profile, &id]).await;
    assert!(said.starts_with("user    ada\nvisits  0\n"), "{said}");
    assert!(said.ends_with("cart    1 x mug, 1800 cents each\n"), "{said}");
    browser.post(b, "/logout", "").await.unwrap();
    assert!(run_well(reader, &[&profile, &id]).await.starts_with("there is no such session"));
    let Output { status, stderr, .. } = run(reader, &[&profile, "nonsense"]).await;
    assert!(!status.success() && String::from_utf8_lossy(&stderr).contains("that is no session's id"));
}

#[tokio::test]
async fn ctrl_c_stops_the_shop_cleanly() {
    let shop = Shop::start("28000").await;
    shop.fetch().await;
    // A terminal sends it to the whole group.
    kill_process_group(shop.pid(), Signal::INT).unwrap();
    let (code, said, complained) = shop.end().await;
    assert_eq!((code, &*complained), (Some(0), ""), "{said}");
    assert!(said.ends_with("Stopping.\n"), "{said}");
}

#[tokio::test]
async fn a_supervisor_stops_the_shop_cleanly() {
    let shop = Shop::start("28200").await;
    // A connection that says nothing does not hold it up for ever.
    let _idle = TcpStream::connect(&shop.addresses[0]).await.unwrap();
    kill_process(shop.pid(), Signal::TERM).unwrap();
    let (code, said, complained) = shop.end().await;
    assert_eq!((code, &*complained), (Some(0), ""), "{said}");
}

#[tokio::test]
async fn the_nodes_end_with_a_shop_that_is_killed() {
    let shop = Shop::start("28400").await;
    shop.fetch().await;
    kill_process(shop.pid(), Signal::KILL).unwrap();
    let (code, ..) = shop.end().await;
    assert_eq!(code, None, "killed");
}
