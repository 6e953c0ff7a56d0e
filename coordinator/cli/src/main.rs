//! `kiln`: runs a coordinator, and looks into a cluster.

mod bench;
mod catalog;
mod client;
mod clock;
mod data;
mod failure;
mod get;
mod key;
mod locks;
mod ls;
mod output;
mod serve;
mod status;
mod watch;

use clap::error::{ContextKind, ContextValue};
use clap::{Parser, Subcommand};
use client::Client;
use failure::Failure;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Shares live Rust objects between the processes of a cluster.
#[derive(Debug, Parser)]
#[command(name = "kiln", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a coordinator until SIGTERM or SIGINT.
    Serve(serve::Args),
    /// Show the coordinator and who is attached.
    Status(status::Args),
    /// List the roots, or the keys of one.
    Ls(ls::Args),
    /// Show one object, its fields by name.
    ///
    /// Every field has its value. Only one that was never written, because the program that made the object did not know
    /// it, is `(default)`: each program reads its own default there.
    Get(get::Args),
    /// Follow every change of a root or of one object.
    Watch(watch::Args),
    /// Show who holds and who waits for locks.
    Locks(locks::Args),
    /// Show what changed, by which node, when, field by field; from the coordinator's directory.
    ///
    /// Goes back to the last snapshot. The coordinator may run meanwhile.
    Log(data::log::Args),
    /// Have the running coordinator write a snapshot now, and drop the part of its log that it replaces.
    ///
    /// It does so by itself when the log has become longer than the state. Before a planned restart, a snapshot makes the
    /// next start faster; on a disk that is nearly full it makes room. Nodes go on meanwhile.
    Snapshot(data::snapshot::Args),
    /// Copy what a coordinator keeps, also while it runs; whatever was durable when it began is in the copy.
    Backup(data::backup::BackUpArgs),
    /// Put a backup in place, for a coordinator that does not run and has no log.
    Restore(data::backup::RestoreArgs),
    /// Read all that a coordinator keeps, and report every bad byte.
    Verify(data::verify::Args),
    /// Measure Kiln beside its budgets and floors.
    Bench(bench::Args),
}

/// How to reach the coordinator.
#[derive(clap::Args, Debug)]
struct Connect {
    /// The client profile that the coordinator wrote.
    #[arg(long, env = "KILN_PROFILE", default_value = "kiln.toml", value_name = "FILE")]
    profile: PathBuf,
    /// How long to wait for the coordinator, in seconds.
    #[arg(long, env = "KILN_TIMEOUT", default_value = "5", value_name = "SECONDS", value_parser = seconds)]
    timeout: Duration,
}

impl Connect {
    /// Attaches for as long as `command` takes. Whatever it comes to, the coordinator hears a goodbye.
    async fn observe(&self, command: impl AsyncFnOnce(&mut Client) -> Result<(), Failure>) -> Result<(), Failure> {
        let mut client = Client::attach(&client::load_profile(&self.profile)?, self.timeout).await?;
        let done = command(&mut client).await;
        client.leave().await;
        done
    }
}

/// A time span above zero, in seconds.
fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.parse::<f64>().map_err(|error| error.to_string())?;
    match Duration::try_from_secs_f64(number) {
        Ok(Duration::ZERO) => Err("it must be more than 0".into()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(error.to_string()),
    }
}

/// An address to listen on.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_unreadable| "write IP:PORT, as in `127.0.0.1:4747`; host names are not resolved".to_owned())
}

/// The environment variable that a wrong value comes from, if it was not given as a flag.
fn variable_of(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let flag = argument.split(' ').next()?.strip_prefix("--")?;
    let given = |argument: String| argument.strip_prefix("--").is_some_and(|text| text.split('=').next() == Some(flag));
    let variable = format!("KILN_{}", flag.replace('-', "_").to_uppercase());
    let from_environment = std::env::var_os(&variable).is_some() && !std::env::args().any(given);
    from_environment.then_some(variable)
}

fn parse() -> Cli {
    Cli::try_parse().unwrap_or_else(|error| {
        if let Some(variable) = variable_of(&error) {
            output::note(format_args!("the environment variable {variable} is wrong:"));
        }
        error.exit()
    })
}

fn main() -> ExitCode {
    let done = match parse().command {
        // The benchmark has threads and processes of its own.
        Command::Bench(args) => return bench::run(args),
        Command::Serve(args) => drive(serve::run(args)),
        Command::Status(args) => drive(status::run(args)),
        Command::Ls(args) => drive(ls::run(args)),
        Command::Get(args) => drive(get::run(args)),
        Command::Watch(args) => drive(watch::run(args)),
        Command::Locks(args) => drive(locks::run(args)),
        Command::Snapshot(args) => drive(data::snapshot::run(args)),
        Command::Log(args) => data::log::run(&args),
        Command::Backup(args) => data::backup::back_up(&args),
        Command::Restore(args) => data::backup::restore(&args),
        Command::Verify(args) => data::verify::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            output::note(failure);
            ExitCode::FAILURE
        }
    }
}

fn drive(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    // The connection has a thread of its own: it stays alive while the output waits for a pager.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(command)
}
