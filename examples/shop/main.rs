//! A small web shop on two nodes that share its sessions.
//!
//! One command starts an embedded coordinator and two nodes, each a process with a port of its own. Log in on one, fill
//! the cart on the other, log out on either. `shop --check` does the same with many clients at once and counts.
//!
//! - `session`: the shared types. Begin here.
//! - `site`, `visitor`, `pages`, `request`, `trouble`: what a node answers.
//! - `node`: the process of one node. `cluster`: the process that starts them.
//! - `check`: the clients.
//!
//! Absent: passwords, payment, and a catalogue that changes.

mod catalogue;
mod check;
mod cluster;
mod error;
mod node;
mod options;
mod output;
mod pages;
mod request;
mod session;
mod signals;
mod site;
mod trouble;
mod visitor;

use options::Command;
use output::{complain, say};
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let command = match options::parse(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(mistake) => {
            complain(format_args!("{mistake}\nTry `shop --help`."));
            return ExitCode::from(2);
        }
    };
    let done = match command {
        Command::Help => {
            say(options::HELP);
            Ok(ExitCode::SUCCESS)
        }
        Command::Run { port, profile } => cluster::run(port, profile.as_deref()).await,
        Command::Check { load, profile } => check::run(load, profile.as_deref()).await,
        Command::Node(node) => node::run(node).await,
    };
    done.unwrap_or_else(|error| {
        complain(error);
        ExitCode::FAILURE
    })
}
