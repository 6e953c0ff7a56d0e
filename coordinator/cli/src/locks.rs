//! `kiln locks`: who holds what, who waits, for how long.

use crate::Connect;
use crate::catalog;
use crate::client::{Client, unexpected};
use crate::failure::Failure;
use crate::key;
use crate::output::{Output, duration, note, shown};
use kiln_protocol::message::{LockInfo, LockParty, RootInfo};
use kiln_protocol::schema::DEFAULT_GROUP;
use kiln_protocol::{ToCoordinator, ToNode};
use serde::Serialize;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    connect: Connect,
    /// Print one JSON object a lock.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Lock<'a> {
    root: &'a str,
    key: String,
    object: String,
    group: &'a str,
    holders: Vec<Party<'a>>,
    waiters: Vec<Party<'a>>,
    hand_offs: u64,
    cached: bool,
}

#[derive(Serialize)]
struct Party<'a> {
    node: Option<&'a str>,
    incarnation: Option<u64>,
    /// What the node asked the coordinator to do under the lock, if it is not the node itself that has or wants it.
    operation: Option<&'a str>,
    mode: kiln_protocol::message::Mode,
    age_ms: u64,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    args.connect.observe(async |client| look(&args, client).await).await
}

async fn look(args: &Args, client: &mut Client) -> Result<(), Failure> {
    let roots = catalog::roots(client).await?;
    let answer = client.ask(|request| ToCoordinator::Locks { request }).await?;
    let ToNode::Locks { locks, left_out, .. } = answer else {
        return Err(unexpected(&answer).into());
    };
    let mut out = Output::new();
    if args.json {
        for lock in &locks {
            out.json(&Lock {
                root: &lock.root,
                key: key_text(&roots, lock),
                object: lock.object.to_string(),
                group: group(lock),
                holders: lock.holders.iter().map(party).collect(),
                waiters: lock.waiters.iter().map(party).collect(),
                hand_offs: lock.hand_offs,
                cached: lock.cached,
            })?;
        }
    } else {
        let rows: Vec<_> = locks.iter().map(|lock| row(&roots, lock)).collect();
        out.table(["ROOT", "KEY", "GROUP", "HOLDERS", "WAITERS", "HAND-OFFS", "CACHED"], &rows)?;
    }
    out.flush()?;
    if left_out > 0 {
        note(format_args!("{left_out} more locks are not listed: these are the busiest"));
    }
    Ok(())
}

fn key_text(roots: &[RootInfo], lock: &LockInfo) -> String {
    let root = roots.iter().find(|root| root.name == lock.root);
    key::show(root.map_or("", |root| &root.key), &lock.key)
}

fn group(lock: &LockInfo) -> &str {
    if lock.group.is_empty() { DEFAULT_GROUP } else { &lock.group }
}

fn party(party: &LockParty) -> Party<'_> {
    let node = party.node.as_ref();
    Party {
        node: node.map(|(_, name)| name.as_str()),
        incarnation: node.map(|(incarnation, _)| incarnation.to_bits()),
        operation: party.operation.as_deref(),
        mode: party.mode,
        age_ms: party.age_ms,
    }
}

fn row(roots: &[RootInfo], lock: &LockInfo) -> [String; 7] {
    [
        shown(&lock.root),
        shown(&key_text(roots, lock)),
        shown(group(lock)),
        parties(&lock.holders),
        parties(&lock.waiters),
        lock.hand_offs.to_string(),
        if lock.cached { "yes" } else { "no" }.to_owned(),
    ]
}

fn parties(parties: &[LockParty]) -> String {
    const SHOWN_MAX: usize = 4;
    let shown_parties = parties.iter().take(SHOWN_MAX).map(|party| {
        let node = match &party.node {
            Some((incarnation, name)) => format!("{}#{incarnation}", shown(name)),
            None => "coordinator".to_owned(),
        };
        let does = party.operation.as_ref().map_or_else(|| party.mode.to_string(), |operation| shown(operation));
        format!("{node} {does} {}", duration(party.age_ms))
    });
    let mut text = shown_parties.collect::<Vec<_>>().join(", ");
    if parties.len() > SHOWN_MAX {
        text.push_str(&format!(" and {} more", parties.len() - SHOWN_MAX));
    }
    text
}
