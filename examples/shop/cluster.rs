//! The process that a person starts: it holds the coordinator, unless one runs already, and starts the nodes as processes
//! of their own.

use crate::error::Failed;
use crate::node::{PAIRED, READY};
use crate::output::say;
use crate::signals;
use kiln::Runtime;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Longer than a node takes at most to finish its requests and to leave.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A coordinator and two nodes.
pub(crate) struct Cluster {
    kiln: Runtime,
    pub(crate) first: Node,
    pub(crate) second: Node,
}

/// A node's process. It ends when `stdin` is closed, and so also when this process dies of whatever cause.
pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) port: u16,
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

/// Runs the shop until it is stopped.
pub(crate) async fn run(port: u16, profile: Option<&Path>) -> Result<ExitCode, Failed> {
    let mut stop = Box::pin(signals::stop()?);
    let started = tokio::select! {
        started = Cluster::start(port, profile) => started,
        () = &mut stop => return Ok(ExitCode::SUCCESS),
    };
    let mut cluster = started?;
    let (first, second) = (&cluster.first, &cluster.second);
    if first.port != port || second.port != port.saturating_add(1) {
        say(format_args!("Ports {port} and {} are not both free: these are the next ones.", port.saturating_add(1)));
    }
    say("A shop on two nodes with one set of sessions:\n");
    say(format_args!("  {}  {}\n  {}  {}\n", first.name, first.address(), second.name, second.address()));
    say("Log in on one, fill the cart on the other, log out on either. Ctrl-C stops both.");
    if let Some(profile) = cluster.kiln.profile_path() {
        say(format_args!("Look inside: kiln watch sessions --profile {}", profile.display()));
    }
    let broken = tokio::select! {
        () = &mut stop => None,
        why = cluster.broken() => Some(why),
    };
    say("Stopping.");
    let stopped = cluster.stop().await;
    match broken {
        Some(why) => Err(Failed::to("go on")(why)),
        None => stopped.map(|()| ExitCode::SUCCESS),
    }
}

impl Cluster {
    /// Starts the coordinator, or finds the one with this profile, and starts the nodes. `port` is the first node's, or
    /// the next free one; 0 is any for both.
    pub(crate) async fn start(port: u16, profile: Option<&Path>) -> Result<Self, Failed> {
        let builder = Runtime::builder().node_name("shop");
        let kiln = match profile {
            None => builder.embedded().await.map_err(Failed::to("start the coordinator"))?,
            Some(profile) => builder.profile(profile).attach().await.map_err(Failed::to("reach the coordinator"))?,
        };
        let profile =
            kiln.profile_path().ok_or("there is none").map_err(Failed::to("find the coordinator's profile"))?;
        let mut first = Node::start("web-1", profile, port).await?;
        let mut second =
            Node::start("web-2", profile, if port == 0 { 0 } else { first.port.saturating_add(1) }).await?;
        first.tell_peer(second.port).await?;
        second.tell_peer(first.port).await?;
        Ok(Self { kiln, first, second })
    }

    /// Resolves when the coordinator or a node has ended although nobody asked it to.
    pub(crate) async fn broken(&mut self) -> String {
        tokio::select! {
            ended = self.kiln.closed() => ended.to_string(),
            status = self.first.process.wait() => how_it_ended(self.first.name, status),
            status = self.second.process.wait() => how_it_ended(self.second.name, status),
        }
    }

    /// Ends the nodes, then the coordinator.
    pub(crate) async fn stop(self) -> Result<(), Failed> {
        let (first, second) = tokio::join!(self.first.stop(), self.second.stop());
        let detached = self.kiln.detach(STOP_TIMEOUT).await.map_err(Failed::to("stop the coordinator"));
        first.and(second).and(detached)
    }
}

fn how_it_ended(name: &str, status: io::Result<ExitStatus>) -> String {
    let status = match status {
        Ok(status) => status,
        Err(error) => return format!("{name} cannot be waited for: {error}"),
    };
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("{name} ended with exit code {code}"),
        (None, Some(signal)) => format!("{name} was killed by signal {signal}"),
        (None, None) => format!("{name} ended: {status}"),
    }
}

impl Node {
    /// Where it answers.
    pub(crate) fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    async fn start(name: &'static str, profile: &Path, port: u16) -> Result<Self, Failed> {
        let program = std::env::current_exe().map_err(Failed::to("find this program"))?;
        let mut command = Command::new(program);
        command.args(["node", name]).arg(profile).arg(port.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().map_err(Failed::to(format!("start {name}")))?;
        let pipes = process.stdin.take().zip(process.stdout.take());
        let (stdin, stdout) = pipes.ok_or("it has no pipes").map_err(Failed::to(format!("talk to {name}")))?;
        let mut node = Self { name, port, process, stdin, stdout: BufReader::new(stdout) };
        let line = node.hear().await?;
        let port = line.strip_prefix(READY).and_then(|port| port.parse().ok());
        node.port = port.ok_or("it ended before it was ready").map_err(Failed::to(format!("start {name}")))?;
        Ok(node)
    }

    /// The next line that the node says; empty when it has ended.
    async fn hear(&mut self) -> Result<String, Failed> {
        let mut line = String::new();
        let read = tokio::time::timeout(START_TIMEOUT, self.stdout.read_line(&mut line)).await;
        let read = read.map_err(Failed::to(format!("wait for {}", self.name)))?;
        read.map_err(Failed::to(format!("hear from {}", self.name)))?;
        line.truncate(line.trim_end().len());
        Ok(line)
    }

    async fn tell_peer(&mut self, port: u16) -> Result<(), Failed> {
        let told = self.stdin.write_all(format!("{port}\n").as_bytes()).await;
        told.map_err(Failed::to(format!("tell {} of the other node", self.name)))?;
        if self.hear().await? == PAIRED {
            return Ok(());
        }
        Err(Failed::to(format!("tell {} of the other node", self.name))("it has ended"))
    }

    async fn stop(self) -> Result<(), Failed> {
        let Self { name, mut process, stdin, .. } = self;
        drop(stdin);
        // Dropping the process on a time-out kills it.
        let status = tokio::time::timeout(STOP_TIMEOUT, process.wait()).await;
        let status = status.map_err(Failed::to(format!("wait for {name} to end")))?;
        let status = status.map_err(Failed::to(format!("wait for {name} to end")))?;
        if status.success() { Ok(()) } else { Err(Failed::to(format!("stop {name} cleanly"))(status.to_string())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_ends_says_how() {
        let ended = |raw| how_it_ended("web-2", Ok(ExitStatus::from_raw(raw)));
        assert_eq!(ended(9), "web-2 was killed by signal 9");
        assert_eq!(ended(1 << 8), "web-2 ended with exit code 1");
    }
}
