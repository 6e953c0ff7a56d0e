//! `kiln get`: one object, its fields by name.

use crate::Connect;
use crate::catalog::{self, Catalog};
use crate::client::Client;
use crate::failure::Failure;
use crate::key;
use crate::output::{Output, shown};
use bytes::Bytes;
use kiln_protocol::message::{Record, RootInfo};
use kiln_protocol::structure::Rendered;
use serde::Serialize;
use std::io;
use std::sync::Arc;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The root.
    root: String,
    /// The key, as `kiln ls ROOT` shows it. Of a root whose keys are hashes, also what was hashed: the id of a web session.
    #[arg(allow_hyphen_values = true)]
    key: String,
    #[command(flatten)]
    connect: Connect,
    /// Print one JSON object; a field that was never written is left out.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Object<'a> {
    root: &'a str,
    key: String,
    object: String,
    #[serde(rename = "type")]
    type_name: &'a str,
    versions: Rendered,
    fields: Rendered,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    args.connect.observe(async |client| look(&args, client).await).await
}

async fn look(args: &Args, client: &mut Client) -> Result<(), Failure> {
    let roots = catalog::roots(client).await?;
    let root = catalog::find(&roots, &args.root)?;
    let (key, record) = find(client, &root, &args.key).await?;
    let catalog = Catalog::new(&root);
    let fields = catalog.record(&record.writes);
    let mut out = Output::new();
    if args.json {
        let fields = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
        out.json(&Object {
            root: &root.name,
            key: key::show(&root.key, &key),
            object: record.object.to_string(),
            type_name: &root.type_info.name,
            versions: Rendered::Object(versions(&catalog, &record)),
            fields: Rendered::Object(fields.collect()),
        })?;
    } else {
        print(&mut out, &catalog, &record, &fields)?;
    }
    out.flush()?;
    Ok(())
}

/// The object whose key the text means.
pub(crate) async fn find(client: &mut Client, root: &RootInfo, text: &str) -> Result<(Bytes, Record), Failure> {
    // What people know it by first: it may be a secret, and is for nobody else then.
    let hash = root.options.hashed_keys.then(|| key::hashed(text).into_bytes());
    for key in hash.into_iter().chain(key::readings(&root.key, text)?) {
        let key = Bytes::from(key);
        if let Some(record) = client.peek(root.root, key.clone()).await? {
            return Ok((key, record));
        }
    }
    Err(Failure::NoObject { root: shown(&root.name), key: shown(text) })
}

fn versions(catalog: &Catalog, record: &Record) -> Vec<(Arc<str>, Rendered)> {
    record
        .versions
        .iter()
        .map(|(group, version)| (catalog.group(*group).into(), Rendered::Text(version.to_string())))
        .collect()
}

fn print(
    out: &mut Output,
    catalog: &Catalog,
    record: &Record,
    fields: &[(Arc<str>, Option<Rendered>)],
) -> io::Result<()> {
    let versions: Vec<String> =
        record.versions.iter().map(|(group, version)| format!("{} {version}", catalog.group(*group))).collect();
    let versions = if versions.is_empty() { "never changed".to_owned() } else { versions.join(", ") };
    out.line(format_args!("# object {}, versions: {versions}", record.object))?;
    let width = fields.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, value) in fields {
        let name = shown(name);
        match value {
            // Entries of a map below each other: there may be many.
            Some(Rendered::Map(entries)) if !entries.is_empty() => {
                let plural = if entries.len() == 1 { "entry" } else { "entries" };
                out.line(format_args!("{name:<width$}  {} {plural}", entries.len()))?;
                for (key, value) in entries {
                    out.line(format_args!("  {key}: {value}"))?;
                }
            }
            Some(value) => out.line(format_args!("{name:<width$}  {value}"))?,
            None => out.line(format_args!("{name:<width$}  (default)"))?,
        }
    }
    Ok(())
}
