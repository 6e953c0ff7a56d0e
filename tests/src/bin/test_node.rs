//! A node as a process of its own, steered by lines: one command in, one answer out. It ends with its standard input.

use kiln::{AttachError, Away, Builder, Level, OnReturn, Root, Runtime, Shared};
use kiln_tests::{Load, SESSIONS, Session, SessionCounters as _};
use std::collections::VecDeque;
use std::error::Error;
use std::io::Write as _;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

type Failed = Box<dyn Error + Send + Sync>;

const TIMEOUT: Duration = Duration::from_secs(20);
/// Events that a listener has written down and not acknowledged.
const ACKNOWLEDGED_LATER: usize = 8;
const DETACH_DEADLINE: Duration = Duration::from_secs(5);

struct Steered {
    kiln: Runtime,
    sessions: Root<String, Session>,
    held: Option<Holding>,
    load: Option<Load>,
    listening: JoinSet<()>,
}

/// The guard that `hold` took.
struct Holding {
    /// Ends it: `true` commits.
    release: oneshot::Sender<bool>,
    task: JoinSet<Result<(), Failed>>,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failed> {
    let mut arguments = std::env::args().skip(1);
    let (Some(profile), Some(name)) = (arguments.next(), arguments.next()) else {
        return Err("usage: test-node PROFILE NAME [alone|durable]".into());
    };
    let (away, level) = match arguments.next().as_deref() {
        Some("alone") => (Away::LocalReadWrite { on_return: OnReturn::Replay }, Level::default()),
        Some("durable") => (Away::default(), Level::Durable),
        _ => (Away::default(), Level::default()),
    };
    let builder = Runtime::builder().profile(profile).node_name(name).timeout(TIMEOUT).away(away).level(level);
    let kiln = attach(builder).await?;
    let sessions = kiln.root(SESSIONS).await?;
    let mut node = Steered { kiln, sessions, held: None, load: None, listening: JoinSet::new() };
    say("attached")?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let words: Vec<&str> = line.split_whitespace().collect();
        match node.obey(&words).await {
            Ok(answer) => say(&answer)?,
            Err(error) => say(&format!("error {error}"))?,
        }
    }
    Ok(())
}

/// Tries again while no coordinator answers: it may be about to start.
async fn attach(builder: Builder) -> Result<Runtime, AttachError> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match builder.clone().attach().await {
            Err(AttachError::Connect { .. }) if Instant::now() < deadline => {}
            attached => return attached,
        }
    }
}

fn say(line: &str) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}

impl Steered {
    async fn session(&self, key: &str) -> Result<Shared<Session>, Failed> {
        Ok(self.sessions.get_or_create(key, Session::default).await?)
    }

    async fn obey(&mut self, words: &[&str]) -> Result<String, Failed> {
        match *words {
            // Creates the session with `visits`, unless it is there; answers with what it has.
            ["create", key, visits] => {
                let visits = visits.parse()?;
                let make = || Session { visits, ..Session::default() };
                let session = self.sessions.get_or_create(key, make).await?;
                Ok(format!("created {} visits {}", session.id(), session.view().visits()))
            }
            ["increment", key, tasks, times] => self.increment(key, tasks.parse()?, times.parse()?).await,
            ["update", key] => {
                let session = self.session(key).await?;
                session.update(|session| *session.visits += 1).await?;
                Ok("updated".to_owned())
            }
            ["update-everywhere", key] => {
                let session = self.session(key).await?;
                session.update_with(Level::Everywhere, |session| *session.visits += 1).await?;
                Ok("updated".to_owned())
            }
            // The coherent value.
            ["read", key] => {
                let session = self.session(key).await?;
                let guard = session.read().await?;
                let stale = if guard.is_stale() { " stale" } else { "" };
                Ok(format!("visits {} theme {:?}{stale}", guard.view().visits(), guard.view().theme()))
            }
            // What is shown here, without asking anybody.
            ["view", key] => match self.sessions.peek(key) {
                Some(session) => Ok(format!("visits {}", session.view().visits())),
                None => Ok("absent".to_owned()),
            },
            ["add", key, amount] => {
                self.session(key).await?.clicks().add(amount.parse()?)?;
                Ok("added".to_owned())
            }
            ["clicks", key] => Ok(format!("clicks {}", self.session(key).await?.view().clicks())),
            ["hold", key] => self.hold(key).await,
            ["load", seed] => {
                self.load = Some(Load::start(&self.kiln, &self.sessions, seed.parse()?).await?);
                Ok("loaded".to_owned())
            }
            ["unload"] => {
                self.load.take().ok_or("there is no load")?.stop().await;
                Ok("unloaded".to_owned())
            }
            // Writes down what it is told, and acknowledges it some events later.
            ["listen", group, file] => {
                let mut listener = self.sessions.listen(group).await?;
                let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file)?;
                self.listening.spawn(async move {
                    let mut told = VecDeque::new();
                    while let Some(notice) = listener.next().await {
                        let how = if notice.redelivered() { "again" } else { "first" };
                        if writeln!(file, "{} {how} {:?}", notice.id(), notice.told()).is_ok() {
                            told.push_back(notice);
                        }
                        if told.len() > ACKNOWLEDGED_LATER {
                            told.pop_front().map(kiln::Notice::acknowledge);
                        }
                    }
                });
                Ok("listening".to_owned())
            }
            ["release", how] => self.release(how == "commit").await,
            ["closed"] => Ok(format!("closed {:?}", self.kiln.closed().await)),
            ["detach"] => {
                self.kiln.clone().detach(DETACH_DEADLINE).await?;
                Ok("detached".to_owned())
            }
            _ => Err(format!("no such command: {words:?}").into()),
        }
    }

    async fn increment(&self, key: &str, tasks: usize, times: usize) -> Result<String, Failed> {
        let session = self.session(key).await?;
        let mut all = JoinSet::new();
        for _ in 0..tasks {
            let session = session.clone();
            all.spawn(async move {
                for _ in 0..times {
                    session.update(|session| *session.visits += 1).await?;
                }
                Ok::<_, Failed>(())
            });
        }
        while let Some(done) = all.join_next().await {
            done??;
        }
        Ok(format!("incremented {}", tasks * times))
    }

    /// Takes the write lock and changes everything, without a commit.
    async fn hold(&mut self, key: &str) -> Result<String, Failed> {
        let session = self.session(key).await?;
        let (release, released) = oneshot::channel();
        let (tell, told) = oneshot::channel();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut guard = session.write().await?;
            *guard.visits += 1_000_000;
            "half".clone_into(&mut guard.theme);
            let _nobody_listens = tell.send(());
            if released.await == Ok(true) {
                guard.commit().await?;
            }
            Ok(())
        });
        if told.await.is_err() {
            task.join_next().await.ok_or("the task is gone")???;
        }
        self.held = Some(Holding { release, task });
        Ok("held".to_owned())
    }

    async fn release(&mut self, commit: bool) -> Result<String, Failed> {
        let Holding { release, mut task } = self.held.take().ok_or("nothing is held")?;
        let _gone = release.send(commit);
        task.join_next().await.ok_or("the task is gone")???;
        Ok("released".to_owned())
    }
}
