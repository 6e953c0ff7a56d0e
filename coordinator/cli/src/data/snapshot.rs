//! `kiln snapshot`: asks the running coordinator for one.

use super::progress::Progress;
use crate::Connect;
use crate::client::{Client, unexpected};
use crate::failure::Failure;
use crate::output::{Output, duration};
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
    args.connect.observe(async |client| take(&args, client).await).await
}

async fn take(args: &Args, client: &mut Client) -> Result<(), Failure> {
    let mut progress = Progress::new();
    let mut answer = client.ask(|request| ToCoordinator::Snapshot { request }).await?;
    // The time to wait is that from one of these to the next.
    while let ToNode::SnapshotGoesOn { objects, of, .. } = answer {
        progress.at(objects, of);
        answer = client.answer().await?;
    }
    let ToNode::SnapshotTaken { snapshot, .. } = answer else {
        return Err(unexpected(&answer).into());
    };
    drop(progress);
    let mut out = Output::new();
    if args.json {
        out.json(&snapshot)?;
    } else {
        out.line(format_args!(
            "{} objects after entry {}: {} bytes in {}; {} older files removed",
            snapshot.objects,
            snapshot.entry,
            snapshot.bytes,
            duration(snapshot.took_ms),
            snapshot.removed
        ))?;
    }
    Ok(out.flush()?)
}
