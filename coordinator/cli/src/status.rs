//! `kiln status`: the coordinator and who is attached.

use crate::Connect;
use crate::client::{Client, unexpected};
use crate::failure::Failure;
use crate::output::{Output, duration, shown};
use kiln_protocol::message::{Role, Status};
use kiln_protocol::{ToCoordinator, ToNode};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    connect: Connect,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    args.connect.observe(async |client| look(&args, client).await).await
}

async fn look(args: &Args, client: &mut Client) -> Result<(), Failure> {
    let answer = client.ask(|request| ToCoordinator::Status { request }).await?;
    let ToNode::Status { status, .. } = answer else {
        return Err(unexpected(&answer).into());
    };
    let mut out = Output::new();
    if args.json {
        out.json(&status)?;
    } else {
        print(&mut out, &status)?;
    }
    out.flush()?;
    Ok(())
}

fn print(out: &mut Output, status: &Status) -> std::io::Result<()> {
    let rows: [(&str, String); 9] = [
        ("version", shown(&status.version)),
        ("epoch", status.epoch.to_string()),
        ("up for", duration(status.uptime_ms)),
        ("store", shown(&status.store)),
        ("roots", status.roots.to_string()),
        ("objects", format!("{} ({} bytes of keys and slots)", status.objects, status.object_bytes)),
        ("commits", format!("{} applied, {} refused", status.commits, status.commits_refused)),
        ("grants", status.grants.to_string()),
        ("recalls", status.recalls.to_string()),
    ];
    for (name, value) in rows {
        out.line(format_args!("{name:<9}{value}"))?;
    }
    out.line("")?;
    let rows: Vec<[String; 7]> = status
        .nodes
        .iter()
        .map(|node| {
            [
                shown(&node.name),
                node.incarnation.to_string(),
                match node.role {
                    Role::Node => "node".to_owned(),
                    Role::Observer => "observer".to_owned(),
                },
                duration(node.attached_ms),
                node.interest.to_string(),
                node.grants.to_string(),
                node.applied.to_string(),
            ]
        })
        .collect();
    out.table(["NODE", "INCARNATION", "ROLE", "ATTACHED FOR", "OBJECTS", "GRANTS", "COMMITS"], &rows)
}
