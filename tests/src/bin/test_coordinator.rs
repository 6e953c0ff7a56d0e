//! A coordinator as a process of its own: says where its profile is, stops on SIGTERM, and ends with its standard
//! input. It listens on a free port unless it is told one, and keeps its state in memory unless it is told `disk`.

use kiln_coordinator::server::{Options, Server, Storage};
use kiln_coordinator::store::SyncPolicy;
use std::error::Error;
use std::io::Write as _;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};

const STOP_DEADLINE: Duration = Duration::from_secs(5);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let directory = arguments.next().ok_or("usage: test-coordinator DIRECTORY [PORT [disk]]")?;
    let port = arguments.next().and_then(|port| port.to_str()?.parse().ok()).unwrap_or(0);
    let storage = match arguments.next() {
        Some(word) if word == "disk" => Storage::Disk(SyncPolicy::Always),
        _ => Storage::Memory,
    };
    let mut terminated = signal(SignalKind::terminate())?;
    let mut options = Options::new(directory);
    options.listen.set_port(port);
    options.storage = storage;
    let server = Server::start(options).await?;
    say(&format!("profile {}", server.profile_path().display()))?;
    let mut input = tokio::io::stdin();
    let mut nothing = [0; 1];
    tokio::select! {
        _signal = terminated.recv() => {}
        _end = input.read(&mut nothing) => {}
    }
    let stopped = server.stop(STOP_DEADLINE).await?;
    say(&format!("stopped cut={}", stopped.cut))?;
    // The thread that reads the standard input cannot be ended.
    std::process::exit(0);
}

fn say(line: &str) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}
