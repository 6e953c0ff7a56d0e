//! `kiln log`: what changed, by which node, when, field by field; read from the coordinator's directory.

use super::{Data, DataError, log_in};
use crate::catalog::{self, Catalog, Slot};
use crate::clock;
use crate::failure::Failure;
use crate::key;
use crate::output::{Output, note, shown};
use kiln_coordinator::engine::{BadEntry, Entry, LogSeq, LogTime, Piece};
use kiln_coordinator::server::LOG;
use kiln_coordinator::store::{Replay, read};
use kiln_protocol::message::{RootInfo, RootOptions};
use kiln_protocol::schema::{RegisteredField, RegisteredType};
use kiln_protocol::{Incarnation, ObjectId, RootId, TypeId};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Only this root.
    root: Option<String>,
    /// Only this object: its key, as `kiln ls ROOT` shows it. Of a root whose keys are hashes, also what was hashed: the id of
    /// a web session.
    #[arg(allow_hyphen_values = true)]
    key: Option<String>,
    #[command(flatten)]
    data: Data,
    /// Print one JSON object a change.
    #[arg(long)]
    json: bool,
}

/// One change of one object.
#[derive(Serialize)]
struct Line {
    entry: u64,
    time: String,
    root: String,
    key: String,
    /// Who did it; `None`: the coordinator.
    node: Option<String>,
    incarnation: Option<Incarnation>,
    change: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    writes: Vec<Slot>,
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let node = self.node.as_deref().map_or_else(|| "coordinator".to_owned(), shown);
        write!(f, "{}  {}  {node}", self.entry, self.time)?;
        if let Some(incarnation) = self.incarnation {
            write!(f, "#{incarnation}")?;
        }
        write!(f, "  {} {}  {}", shown(&self.root), shown(&self.key), self.change)?;
        if let Some(to) = &self.to {
            write!(f, " to {}", shown(to))?;
        }
        if let Some(version) = &self.version {
            write!(f, " {version}")?;
        }
        for (place, slot) in self.writes.iter().enumerate() {
            write!(f, "{} {slot}", if place == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let medium = log_in(&args.data.path)?;
    let mut teller = Teller::new(args);
    let last = read(&medium, &mut teller);
    // What was told before something went wrong is told all the same.
    teller.failed.map_or(Ok(()), Err)?;
    teller.out.flush()?;
    let last = last.map_err(|error| DataError::Log { path: args.data.path.join(LOG), error })?;
    if let Some(name) = &args.root {
        let roots: Vec<_> = teller.roots.into_values().map(|(root, _)| root).collect();
        catalog::find(&roots, name)?;
    }
    match teller.from {
        Some(from) => note(format_args!("entries {} to {last}; those before are in a snapshot", from.next())),
        None => note(format_args!("entries 1 to {last}")),
    }
    Ok(())
}

/// Follows the log, and tells what was asked for.
struct Teller<'a> {
    args: &'a Args,
    /// Of the key that is asked for.
    hash: Option<String>,
    out: Output,
    failed: Option<io::Error>,
    /// What the snapshot has.
    from: Option<LogSeq>,
    nodes: BTreeMap<Incarnation, String>,
    types: BTreeMap<TypeId, RegisteredType>,
    roots: BTreeMap<RootId, (RootInfo, Catalog)>,
    /// Of the roots that are asked for.
    objects: BTreeMap<ObjectId, (RootId, bytes::Bytes)>,
}

impl<'a> Teller<'a> {
    fn new(args: &'a Args) -> Self {
        Self {
            args,
            hash: args.key.as_deref().map(key::hashed),
            out: Output::new(),
            failed: None,
            from: None,
            nodes: BTreeMap::new(),
            types: BTreeMap::new(),
            roots: BTreeMap::new(),
            objects: BTreeMap::new(),
        }
    }

    fn add_fields(&mut self, id: TypeId, fields: &[RegisteredField]) {
        let Some(of) = self.types.get_mut(&id) else { return };
        of.fields.extend_from_slice(fields);
        for (root, catalog) in self.roots.values_mut().filter(|(root, _)| root.type_info.id == id) {
            root.type_info = of.clone();
            *catalog = Catalog::new(root);
        }
    }

    fn add_root(&mut self, root: RootId, name: String, key: String, type_id: TypeId, options: RootOptions) {
        let Some(type_info) = self.types.get(&type_id).cloned() else { return };
        let root = RootInfo { root, name, key, objects: 0, options, type_info };
        let catalog = Catalog::new(&root);
        self.roots.insert(root.root, (root, catalog));
    }

    fn add_object(&mut self, object: ObjectId, root: RootId, key: bytes::Bytes) {
        let is_wanted = self.roots.get(&root).is_some_and(|(root, _)| {
            self.args.root.as_ref().is_none_or(|wanted| *wanted == root.name || *wanted == shown(&root.name))
        });
        if is_wanted {
            // A copy: the bytes that it came in are large.
            self.objects.insert(object, (root, bytes::Bytes::copy_from_slice(&key)));
        }
    }

    /// Tells of a change, when the object is asked for.
    fn tell(&mut self, seq: LogSeq, time: LogTime, by: Option<Incarnation>, object: ObjectId, change: Change<'_>) {
        let Some((root, key)) = self.objects.get(&object) else { return };
        let Some((root, catalog)) = self.roots.get(root) else { return };
        let shown_key = key::show(&root.key, key);
        let is_wanted = |wanted: &String| {
            *wanted == shown_key
                || *wanted == shown(&shown_key)
                || (root.options.hashed_keys && self.hash.as_ref() == Some(&shown_key))
        };
        if !self.args.key.as_ref().is_none_or(is_wanted) {
            return;
        }
        let mut line = Line {
            entry: seq.to_bits(),
            time: clock::moment(time.to_bits()),
            root: root.name.clone(),
            key: shown_key,
            node: by.map(|by| self.nodes.get(&by).cloned().unwrap_or_else(|| "?".to_owned())),
            incarnation: by,
            change: change.word(),
            to: None,
            version: None,
            writes: Vec::new(),
        };
        match change {
            Change::Created(writes) => line.writes = catalog.delta(writes),
            Change::Updated(version, writes) => {
                (line.version, line.writes) = (Some(version), catalog.delta(writes));
            }
            Change::Renamed(to) => line.to = Some(key::show(&root.key, to)),
            Change::Removed | Change::Expired => {}
        }
        let told = if self.args.json { self.out.json(&line) } else { self.out.line(&line) };
        if let Err(error) = told {
            self.failed.get_or_insert(error);
        }
    }
}

enum Change<'a> {
    Created(&'a [u8]),
    Updated(String, &'a [u8]),
    Renamed(&'a [u8]),
    Removed,
    Expired,
}

impl Change<'_> {
    const fn word(&self) -> &'static str {
        match self {
            Self::Created(_) => "created",
            Self::Updated(..) => "updated",
            Self::Renamed(_) => "renamed",
            Self::Removed => "removed",
            Self::Expired => "expired",
        }
    }
}

impl Replay for Teller<'_> {
    fn piece(&mut self, piece: Piece) -> Result<(), BadEntry> {
        match piece {
            Piece::Start(cut) => self.from = Some(cut.seq),
            Piece::Type { id, name, fields } => {
                self.types.insert(id, RegisteredType { id, name, fields });
            }
            Piece::Root { root, name, key, type_id, options } => self.add_root(root, name, key, type_id, options),
            Piece::Life { incarnation, name, .. } => {
                self.nodes.insert(incarnation, name);
            }
            Piece::Queue { .. } | Piece::Event { .. } => {}
            Piece::Object { object, root, key, .. } => self.add_object(object, root, key),
        }
        Ok(())
    }

    fn entry(&mut self, seq: LogSeq, time: LogTime, entry: Entry) -> Result<(), BadEntry> {
        match entry {
            Entry::Started { .. }
            | Entry::Gone { .. }
            | Entry::Refused { .. }
            | Entry::Used { .. }
            | Entry::QueueAdded { .. }
            | Entry::QueueRemoved { .. }
            | Entry::Heard { .. } => {}
            Entry::Attached { incarnation, name, .. } => {
                self.nodes.insert(incarnation, name);
            }
            Entry::TypeAdded { id, name, .. } => {
                self.types.insert(id, RegisteredType { id, name, fields: Vec::new() });
            }
            Entry::FieldsAdded { id, fields, .. } => self.add_fields(id, &fields),
            Entry::RootAdded { root, name, key, type_id, options, .. } => {
                self.add_root(root, name, key, type_id, options);
            }
            Entry::Created { by, object, root, key, writes } => {
                self.add_object(object, root, key);
                self.tell(seq, time, by, object, Change::Created(&writes));
            }
            Entry::Committed { writer, parts, .. } => {
                for part in parts {
                    let change = Change::Updated(part.version.to_string(), &part.writes);
                    self.tell(seq, time, Some(writer), part.object, change);
                }
            }
            Entry::Removed { by, object } => {
                self.tell(seq, time, by, object, Change::Removed);
                self.objects.remove(&object);
            }
            Entry::Expired { object } => {
                self.tell(seq, time, None, object, Change::Expired);
                self.objects.remove(&object);
            }
            Entry::Renamed { by, object, key } => {
                self.tell(seq, time, by, object, Change::Renamed(&key));
                if let Some((_, old)) = self.objects.get_mut(&object) {
                    *old = bytes::Bytes::copy_from_slice(&key);
                }
            }
        }
        Ok(())
    }
}
