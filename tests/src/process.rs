//! Processes steered by lines: one command to the standard input, one answer from the standard output. A process is
//! ended by its own id, at the latest when its [`Process`] is dropped, also by a panic of the test. One whose test was
//! killed ends by itself, because its standard input does.

use crate::patience::PATIENCE;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};

/// A running process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    said: String,
}

impl Process {
    /// Starts `program`; `name` is for messages.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(name: &str, program: &str, arguments: &[&OsStr]) -> Self {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start `{program}`: {error}"));
        let input = child.stdin.take();
        let output = child.stdout.take().expect("its output is a pipe");
        let (sender, lines) = channel();
        forward(output, sender);
        Self { name: name.to_owned(), child, input, lines, said: String::new() }
    }

    /// Gives a command, without waiting for its answer.
    ///
    /// # Panics
    /// When the process has ended.
    pub fn say(&mut self, command: &str) {
        command.clone_into(&mut self.said);
        let input = self.input.as_mut().expect("its input is open");
        if let Err(error) = writeln!(input, "{command}") {
            panic!("{} ended before `{command}`: {error}", self.name);
        }
    }

    /// The next line it says.
    ///
    /// # Panics
    /// When it says nothing for [`PATIENCE`], or has ended.
    pub fn hear(&mut self) -> String {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("{} does not answer `{}`", self.name, self.said),
            Err(RecvTimeoutError::Disconnected) => panic!("{} ended after `{}`", self.name, self.said),
        }
    }

    /// What it has said by now. Never waits.
    pub fn heard(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }

    /// What it had said before it was killed, to the last line that is whole.
    ///
    /// # Panics
    /// When something else has its output open for [`PATIENCE`].
    pub fn last_words(&self) -> Vec<String> {
        let mut said = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => said.push(line),
                Err(RecvTimeoutError::Disconnected) => return said,
                Err(RecvTimeoutError::Timeout) => panic!("{} is dead and its output open", self.name),
            }
        }
    }

    /// Gives a command and returns the answer.
    ///
    /// # Panics
    /// As [`Process::say`] and [`Process::hear`].
    pub fn ask(&mut self, command: &str) -> String {
        self.say(command);
        self.hear()
    }

    /// Kills it at once (SIGKILL) and returns when the system has cleaned up behind it.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it was running");
    }

    /// Asks it to end (SIGTERM).
    ///
    /// # Panics
    /// When it has been waited for already.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Keeps it from doing anything at all (SIGSTOP), until it is killed or [resumed](Self::resume). Returns when it
    /// has stopped: on a busy machine it may run on for a while after the signal.
    ///
    /// # Panics
    /// When it has ended.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        let status = waitpid(Some(self.id()), WaitOptions::UNTRACED).expect("it is running");
        assert!(status.is_some_and(|(_, status)| status.stopped()), "{} ended before it was paused", self.name);
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Panics
    /// When it has been waited for already.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn id(&self) -> Pid {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        id.expect("process ids are positive")
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.id(), signal).expect("it is running");
    }

    /// Waits until it ends by itself, and returns what it said until then.
    ///
    /// # Panics
    /// When it goes on for [`PATIENCE`] without a word.
    pub fn wait(&mut self) -> (ExitStatus, Vec<String>) {
        let mut said = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => said.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("{} does not end", self.name),
            }
        }
        (self.child.wait().expect("it was running"), said)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Errors say that it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Reads lines until the process ends.
#[expect(clippy::disallowed_methods, reason = "a harness waits for its processes; the thread ends with the pipe")]
fn forward(output: ChildStdout, to: Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if to.send(line).is_err() {
                return;
            }
        }
    });
}
