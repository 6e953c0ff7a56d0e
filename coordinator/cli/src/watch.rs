//! `kiln watch`: every change of a root or of one object, as it is ordered.

use crate::Connect;
use crate::catalog::{self, Catalog, Slot};
use crate::client::{Client, unexpected};
use crate::clock;
use crate::failure::Failure;
use crate::get;
use crate::key;
use crate::output::{Output, note, shown};
use kiln_protocol::message::{Change, RootInfo, WatchTarget};
use kiln_protocol::{FieldId, Incarnation, ObjectId, ToCoordinator, ToNode, WatchId};
use serde::Serialize;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The root.
    root: String,
    /// One object's key, as `kiln ls ROOT` shows it; none: every object of the root.
    #[arg(allow_hyphen_values = true)]
    key: Option<String>,
    #[command(flatten)]
    connect: Connect,
    /// Print one JSON object a change.
    #[arg(long)]
    json: bool,
}

/// One change.
#[derive(Serialize)]
struct Line {
    time: String,
    key: String,
    object: String,
    /// Who did it; `None`: the coordinator.
    node: Option<String>,
    incarnation: Option<Incarnation>,
    change: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    writes: Vec<Slot>,
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let node = self.node.as_deref().map_or_else(|| "coordinator".to_owned(), shown);
        write!(f, "{}  {node}", self.time)?;
        if let Some(incarnation) = self.incarnation {
            write!(f, "#{incarnation}")?;
        }
        write!(f, "  {}  {}", shown(&self.key), self.change)?;
        if let Some(to) = &self.to {
            write!(f, " to {}", shown(to))?;
        }
        if let (Some(group), Some(version)) = (&self.group, &self.version) {
            write!(f, " {group} {version} ")?;
        }
        if self.writes.is_empty() {
            for field in &self.fields {
                write!(f, " {}", shown(field))?;
            }
        }
        for (place, slot) in self.writes.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma} {slot}")?;
        }
        Ok(())
    }
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    args.connect.observe(async |client| look(&args, client).await).await
}

async fn look(args: &Args, client: &mut Client) -> Result<(), Failure> {
    let roots = catalog::roots(client).await?;
    let root = catalog::find(&roots, &args.root)?;
    let (target, what) = match &args.key {
        None => (WatchTarget::Root(root.root), root.name.clone()),
        Some(key) => {
            let (key, record) = get::find(client, &root, key).await?;
            (WatchTarget::Object(record.object), format!("{} {}", root.name, key::show(&root.key, &key)))
        }
    };
    let one_object = matches!(target, WatchTarget::Object(_));
    let answer = client
        .ask(|request| ToCoordinator::Watch { request, watch: WatchId::default(), target, with_writes: true })
        .await?;
    if !matches!(answer, ToNode::Done { yes: true, .. }) {
        return Err(unexpected(&answer).into());
    }
    note(format_args!("watching {}; Ctrl-C ends it", shown(&what)));
    let mut catalog = Catalog::new(&root);
    let mut out = Output::new();
    loop {
        let event = client.event().await?;
        let ToNode::Event { object, key, writer, change, .. } = event else {
            return Err(unexpected(&event).into());
        };
        if let Change::Updated { fields, .. } = &change
            && fields.iter().any(|field| !catalog.knows(*field))
        {
            // A newer version of the program has added fields meanwhile.
            let roots = catalog::roots(client).await?;
            catalog = Catalog::new(&catalog::find(&roots, &args.root)?);
        }
        let ended = one_object && matches!(change, Change::Removed | Change::Expired);
        let line = line(&catalog, &root, object, &key, writer, change);
        if args.json {
            out.json(&line)?;
        } else {
            out.line(&line)?;
        }
        if ended {
            out.flush()?;
            return Ok(());
        }
        // What came together is written together, and nothing waits for what may never come.
        if !client.has_event() {
            out.flush()?;
        }
    }
}

fn line(
    catalog: &Catalog,
    root: &RootInfo,
    object: ObjectId,
    key: &[u8],
    writer: Option<(Incarnation, String)>,
    change: Change,
) -> Line {
    let (incarnation, node) = writer.unzip();
    let mut line = Line {
        time: clock::time_of_day(),
        key: key::show(&root.key, key),
        object: object.to_string(),
        node,
        incarnation,
        change: "created",
        to: None,
        group: None,
        version: None,
        fields: Vec::new(),
        writes: Vec::new(),
    };
    match change {
        Change::Created => {}
        Change::Updated { group, version, fields, writes, .. } => {
            line.change = "updated";
            line.group = Some(catalog.group(group));
            line.version = Some(version.to_string());
            line.fields = fields.into_iter().map(|field: FieldId| catalog.field(field).to_string()).collect();
            line.writes = writes.map(|writes| catalog.delta(&writes)).unwrap_or_default();
        }
        Change::Removed => line.change = "removed",
        Change::Expired => line.change = "expired",
        Change::Renamed { to } => {
            line.change = "renamed";
            line.to = Some(key::show(&root.key, &to));
        }
        // Of the queues of listener groups only.
        Change::Missed { .. } | Change::Gap => line.change = "gap: changes before this may be missing",
    }
    line
}
