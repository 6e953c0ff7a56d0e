//! `kiln ls`: the roots, or the keys of one.

use crate::Connect;
use crate::catalog::{self, Catalog};
use crate::client::{Client, unexpected};
use crate::failure::Failure;
use crate::key;
use crate::output::{Output, note, shown};
use kiln_protocol::limits::KEYS_PAGE_MAX;
use kiln_protocol::message::{RootInfo, RootOptions};
use kiln_protocol::schema::FieldKind;
use kiln_protocol::{ToCoordinator, ToNode};
use serde::Serialize;
use std::io;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The root whose keys to list; none: list the roots.
    root: Option<String>,
    /// List at most so many keys.
    #[arg(long, value_name = "KEYS")]
    limit: Option<u64>,
    #[command(flatten)]
    connect: Connect,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Key<'a> {
    root: &'a str,
    key: String,
}

#[derive(Serialize)]
struct Root<'a> {
    root: &'a str,
    key: &'a str,
    #[serde(rename = "type")]
    type_name: &'a str,
    objects: u64,
    ephemeral: bool,
    idle_timeout_ms: Option<u64>,
    absolute_timeout_ms: Option<u64>,
    #[serde(skip_serializing_if = "str::is_empty")]
    locking: &'a str,
    hashed_keys: bool,
    fields: Vec<Field<'a>>,
}

#[derive(Serialize)]
struct Field<'a> {
    field: &'a str,
    kind: FieldKind,
    structure: &'a str,
    group: String,
}

impl<'a> Root<'a> {
    fn of(root: &'a RootInfo) -> Self {
        let catalog = Catalog::new(root);
        let fields = root.type_info.fields.iter().map(|field| Field {
            field: &field.description.name,
            kind: field.description.kind,
            structure: &field.description.structure,
            group: catalog.group(field.group),
        });
        Self {
            root: &root.name,
            key: &root.key,
            type_name: &root.type_info.name,
            objects: root.objects,
            ephemeral: root.options.ephemeral,
            idle_timeout_ms: Some(root.options.idle_timeout_ms).filter(|ms| *ms > 0),
            absolute_timeout_ms: Some(root.options.absolute_timeout_ms).filter(|ms| *ms > 0),
            locking: &root.options.locking,
            hashed_keys: root.options.hashed_keys,
            fields: fields.collect(),
        }
    }
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    args.connect.observe(async |client| look(&args, client).await).await
}

async fn look(args: &Args, client: &mut Client) -> Result<(), Failure> {
    let roots = catalog::roots(client).await?;
    let mut out = Output::new();
    let Some(name) = &args.root else {
        list(&mut out, &roots, args.json)?;
        out.flush()?;
        return Ok(());
    };
    let root = catalog::find(&roots, name)?;
    let limit = args.limit.unwrap_or(u64::MAX);
    let mut listed = 0;
    let mut after = None;
    loop {
        let page = u32::try_from((limit - listed).min(KEYS_PAGE_MAX as u64)).unwrap_or(u32::MAX);
        if page == 0 {
            break;
        }
        let answer = client
            .ask(|request| ToCoordinator::Keys { request, root: root.root, after: after.clone(), limit: page })
            .await?;
        let ToNode::Keys { keys, more, .. } = answer else {
            return Err(unexpected(&answer).into());
        };
        for bytes in &keys {
            let key = key::show(&root.key, bytes);
            if args.json {
                out.json(&Key { root: name, key })?;
            } else {
                out.line(shown(&key))?;
            }
        }
        // Whoever reads along gets each page as it comes.
        out.flush()?;
        listed += keys.len() as u64;
        // A page without keys cannot be followed by another.
        after = keys.into_iter().next_back();
        if !more || after.is_none() {
            break;
        }
        if listed >= limit {
            note(format_args!("there are more keys after these {listed}"));
            break;
        }
    }
    Ok(())
}

fn options(options: &RootOptions) -> String {
    let mut said = Vec::new();
    if options.ephemeral {
        said.push("ephemeral".to_owned());
    }
    if options.idle_timeout_ms > 0 {
        said.push(format!("idle {} ms", options.idle_timeout_ms));
    }
    if options.absolute_timeout_ms > 0 {
        said.push(format!("absolute {} ms", options.absolute_timeout_ms));
    }
    if !options.locking.is_empty() {
        said.push(format!("locking {}", shown(&options.locking)));
    }
    if options.hashed_keys {
        said.push("hashed keys".to_owned());
    }
    said.join(", ")
}

fn list(out: &mut Output, roots: &[RootInfo], json: bool) -> io::Result<()> {
    if json {
        return roots.iter().try_for_each(|root| out.json(&Root::of(root)));
    }
    let rows: Vec<[String; 5]> = roots
        .iter()
        .map(|root| {
            [
                shown(&root.name),
                shown(&root.key),
                shown(&root.type_info.name),
                root.objects.to_string(),
                options(&root.options),
            ]
        })
        .collect();
    out.table(["ROOT", "KEY", "TYPE", "OBJECTS", "OPTIONS"], &rows)
}
