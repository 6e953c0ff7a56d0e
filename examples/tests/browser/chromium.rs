//! A headless Chromium, steered over the DevTools protocol: JSON messages that end with a zero byte, through two pipes.
//! No port is opened, and no other program is needed.
//!
//! Absent: everything but pages that are opened, looked at and clicked.

use kiln_tests::PATIENCE;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;
use tempfile::TempDir;

/// What systems call it.
const NAMES: [&str; 5] =
    ["chromium", "chromium-browser", "chromium-headless-shell", "google-chrome", "google-chrome-stable"];
/// The protocol's pipes are the descriptors 3 and 4; what else the browser says is of no interest.
const WITH_PIPES: &str = r#"exec "$@" 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null"#;
/// The pages are the test's own, and where tests run there is often nothing that a sandbox could be made of.
const ARGUMENTS: [&str; 7] = [
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "about:blank",
];

/// The Chromium of this machine: `KILN_CHROMIUM`, or one by its usual names.
pub(crate) fn find() -> Option<PathBuf> {
    if let Some(named) = env::var_os("KILN_CHROMIUM") {
        return Some(named.into());
    }
    let path = env::var_os("PATH")?;
    let mut programs = NAMES.iter().flat_map(|name| env::split_paths(&path).map(move |folder| folder.join(name)));
    programs.find(|program| program.is_file())
}

/// A running browser. It ends with the value, and its helpers with it.
pub(crate) struct Chromium {
    process: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    last_command: u64,
    _profile: TempDir,
}

/// One of its tabs.
pub(crate) struct Tab {
    session: Value,
}

impl Chromium {
    pub(crate) fn start(program: PathBuf) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", WITH_PIPES, "sh"]).arg(program);
        command.arg(format!("--user-data-dir={}", profile.path().display())).args(ARGUMENTS);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut process = command.spawn().unwrap();
        let commands = process.stdin.take().unwrap();
        let (sender, messages) = channel();
        forward(process.stdout.take().unwrap(), sender);
        Self { process, commands, messages, last_command: 0, _profile: profile }
    }

    /// A new tab, with nothing in it.
    pub(crate) fn tab(&mut self) -> Tab {
        let target = self.call(None, "Target.createTarget", json!({"url": "about:blank"})).unwrap();
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = self.call(None, "Target.attachToTarget", attach).unwrap();
        Tab { session: attached["sessionId"].clone() }
    }

    /// Opens an address, and returns when the page is there.
    pub(crate) fn open(&mut self, tab: &Tab, address: &str) {
        self.leave(tab, |browser| {
            browser.call(Some(tab), "Page.navigate", json!({"url": address})).unwrap();
        });
    }

    /// Clicks the first element that a selector finds, and returns when the next page is there.
    pub(crate) fn click(&mut self, tab: &Tab, selector: &str) {
        let click = format!("document.querySelector({}).click()", json!(selector));
        self.leave(tab, |browser| {
            browser.evaluate(tab, &click).unwrap();
        });
    }

    /// Types into a field.
    pub(crate) fn fill(&mut self, tab: &Tab, selector: &str, text: &str) {
        self.evaluate(tab, &format!("document.querySelector({}).focus()", json!(selector))).unwrap();
        self.call(Some(tab), "Input.insertText", json!({"text": text})).unwrap();
    }

    /// What the page says, in one line.
    pub(crate) fn text(&mut self, tab: &Tab) -> String {
        let text = self.evaluate(tab, "document.body.innerText").unwrap();
        text.as_str().unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Does what leads to another page, and returns when that is there as a whole.
    fn leave(&mut self, tab: &Tab, go: impl FnOnce(&mut Self)) {
        self.evaluate(tab, "window.isLeft = true").unwrap();
        go(self);
        let begun = Instant::now();
        // Between two pages there is none to ask.
        while self.evaluate(tab, "!window.isLeft && document.readyState === 'complete'") != Ok(Value::Bool(true)) {
            assert!(begun.elapsed() < PATIENCE, "no other page comes");
        }
    }

    /// The value of an expression in the page.
    fn evaluate(&mut self, tab: &Tab, expression: &str) -> Result<Value, String> {
        let evaluated = self.call(Some(tab), "Runtime.evaluate", json!({"expression": expression}))?;
        match evaluated.get("exceptionDetails") {
            Some(exception) => Err(exception.to_string()),
            None => Ok(evaluated["result"]["value"].clone()),
        }
    }

    fn call(&mut self, tab: Option<&Tab>, method: &str, parameters: Value) -> Result<Value, String> {
        self.last_command += 1;
        let mut command = json!({"id": self.last_command, "method": method, "params": parameters});
        if let Some(tab) = tab {
            command["sessionId"] = tab.session.clone();
        }
        self.commands.write_all(format!("{command}\0").as_bytes()).unwrap();
        loop {
            let heard = self.messages.recv_timeout(PATIENCE);
            let message = heard.unwrap_or_else(|error| panic!("Chromium does not answer {method}: {error}"));
            if message["id"] != self.last_command {
                continue;
            }
            return match message.get("error") {
                Some(error) => Err(error.to_string()),
                None => Ok(message["result"].clone()),
            };
        }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let group = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
        // An error says that it has ended already.
        group.map(|group| kill_process_group(group, Signal::KILL).ok());
        drop(self.process.wait());
    }
}

/// Reads messages until the browser ends.
#[expect(clippy::disallowed_methods, reason = "a pipe blocks; the thread ends with it")]
fn forward(output: ChildStdout, to: Sender<Value>) {
    std::thread::spawn(move || {
        for message in BufReader::new(output).split(0).map_while(Result::ok) {
            let message = serde_json::from_slice(&message).expect("the protocol's messages are JSON");
            if to.send(message).is_err() {
                return;
            }
        }
    });
}
