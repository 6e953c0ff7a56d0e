//! Processes of our own, steered by lines over stdin and stdout.
//!
//! A peer ends when its stdin does, so it outlives neither a panic nor the death of the process that started it; a peer
//! that does not is killed by its id.

use super::BenchError;
use super::clock;
use std::env;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// What a process of ours is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(super) enum Role {
    /// Sends back what it gets over QUIC.
    Echo,
    /// Passes what it gets over QUIC on to its other client.
    Relay,
    /// Sends back what the relay passes on.
    RelayClient,
    /// Serves a cluster.
    Coordinator,
    /// Serves a cluster, and keeps its state on disk.
    DurableCoordinator,
    /// The second node.
    Node,
}

/// How long a peer may take to say what is expected of it.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a peer may take to end by itself.
const END_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a peer takes its time to end in order.
const END_GRACE: Duration = Duration::from_secs(2);
const END_POLL: Duration = Duration::from_millis(5);

/// A process that we started.
pub(super) struct Peer {
    role: Role,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Peer {
    /// Starts this program again in another role.
    pub(super) fn start(role: Role) -> Result<Self, BenchError> {
        let failed = |error| BenchError::PeerStart { role, error };
        let name = clap::ValueEnum::to_possible_value(&role).map_or_else(String::new, |value| value.get_name().into());
        let mut child = Command::new(env::current_exe().map_err(failed)?)
            .args(["bench", "--role", &name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take();
        let (sender, lines) = mpsc::unbounded_channel();
        // From here on the child is ended on drop.
        let peer = Self { role, child, stdin, lines };
        if let Some(stdout) = stdout {
            let forward = move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            };
            spawn_thread(role, forward).map_err(failed)?;
        }
        Ok(peer)
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it in the middle of whatever it does.
    pub(super) fn kill(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Sends a line.
    pub(super) fn tell(&mut self, line: &str) -> Result<(), BenchError> {
        let role = self.role;
        let stdin = self.stdin.as_mut().ok_or(BenchError::PeerGone { role })?;
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).map_err(|_broken_pipe| BenchError::PeerGone { role })
    }

    /// Waits for a line that begins with a word, and returns what is behind it.
    pub(super) async fn hear(&mut self, word: &'static str) -> Result<String, BenchError> {
        let role = self.role;
        let line = timeout(ANSWER_TIMEOUT, self.lines.recv())
            .await
            .map_err(|_elapsed| BenchError::PeerSilent { role, word })?
            .ok_or(BenchError::PeerGone { role })?;
        match line.split_once(' ').unwrap_or((&line, "")) {
            (first, rest) if first == word => Ok(rest.to_owned()),
            ("failed", why) => Err(BenchError::PeerFailed { role, why: why.to_owned() }),
            _ => Err(BenchError::PeerFailed { role, why: format!("it said `{line}` instead of `{word} ..`") }),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // The end of its stdin tells the peer to end.
        self.stdin = None;
        let deadline = clock::now() + END_TIMEOUT;
        while clock::now() < deadline {
            match self.child.try_wait() {
                Ok(None) => pause(END_POLL),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        // It may have ended in between; then there is nothing to kill, and nobody else has its id before the wait.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[expect(clippy::disallowed_methods, reason = "waits for a process that is ending")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

fn spawn_thread(role: Role, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(format!("{role:?}-stdout")).spawn(run).map(drop)
}

/// The peer's side: lines in, lines out.
pub(super) struct Steered {
    lines: mpsc::UnboundedReceiver<String>,
}

impl Steered {
    pub(super) fn new() -> io::Result<Self> {
        let (sender, lines) = mpsc::unbounded_channel();
        let forward = move || {
            for line in io::stdin().lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
            drop(sender);
            // Whatever this process is busy with: nobody is left to hear of it.
            pause(END_GRACE);
            std::process::exit(0);
        };
        std::thread::Builder::new().name("stdin".into()).spawn(forward)?;
        Ok(Self { lines })
    }

    /// The next command; `None` when the process that started us is done, or dead.
    pub(super) async fn next(&mut self) -> Option<String> {
        self.lines.recv().await
    }

    /// Answers.
    pub(super) fn say(line: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{line}")?;
        stdout.flush()
    }
}
