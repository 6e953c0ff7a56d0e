//! The roots: named, keyed collections of objects.

use super::entry::{BadEntry, Entry};
use super::keys::KeyIndex;
use super::schema::{Schema, at_most, check_name, check_structure};
use kiln_protocol::limits::ROOTS_MAX;
use kiln_protocol::message::RootOptions;
use kiln_protocol::{Failure, Incarnation, RootId, TypeId};
use std::collections::BTreeMap;

/// All roots.
#[derive(Debug, Default)]
pub(super) struct Roots {
    /// Root n is at place n - 1.
    roots: Vec<Root>,
    by_name: BTreeMap<String, RootId>,
}

/// One root.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) id: RootId,
    pub(super) name: String,
    /// The canonical text of the structure of its keys.
    pub(super) key: String,
    pub(super) type_id: TypeId,
    pub(super) options: RootOptions,
    pub(super) keys: KeyIndex,
}

/// What a program says about a root.
#[derive(Clone, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) name: &'a str,
    pub(super) key: &'a str,
    pub(super) type_name: &'a str,
    pub(super) options: &'a RootOptions,
}

impl Roots {
    pub(super) fn get(&self, root: RootId) -> Option<&Root> {
        self.roots.get(place(root)?)
    }

    pub(super) fn get_mut(&mut self, root: RootId) -> Option<&mut Root> {
        self.roots.get_mut(place(root)?)
    }

    /// Looks up a root that a peer named.
    pub(super) fn known(&self, root: RootId) -> Result<&Root, Failure> {
        self.get(root).ok_or(Failure::UnknownRoot { root })
    }

    pub(super) fn find(&self, name: &str) -> Option<RootId> {
        self.by_name.get(name).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Root> {
        self.roots.iter()
    }

    pub(super) const fn len(&self) -> usize {
        self.roots.len()
    }

    /// What must be added for a program that wants this root. `type_id` is that of its type, added or not.
    pub(super) fn decide(
        &self,
        schema: &Schema,
        by: Option<Incarnation>,
        wanted: &Wanted<'_>,
        type_id: TypeId,
    ) -> Result<Option<Entry>, Failure> {
        let Some(known) = self.find(wanted.name).and_then(|root| self.get(root)) else {
            at_most("the number of roots", self.roots.len() + 1, ROOTS_MAX)?;
            return Ok(Some(Entry::RootAdded {
                by,
                root: RootId::from_bits(u32::try_from(self.roots.len() + 1).unwrap_or(u32::MAX)),
                name: wanted.name.to_owned(),
                key: wanted.key.to_owned(),
                type_id,
                options: wanted.options.clone(),
            }));
        };
        let changed = |what: &str, registered: &str, wanted_text: &str| Failure::RootChanged {
            root: wanted.name.to_owned(),
            what: what.to_owned(),
            registered: registered.to_owned(),
            wanted: wanted_text.to_owned(),
        };
        let type_name = schema.get(known.type_id).map_or("", |of| &of.info().name);
        if type_name != wanted.type_name {
            return Err(changed("type", type_name, wanted.type_name));
        }
        if known.key != wanted.key {
            return Err(changed("key", &known.key, wanted.key));
        }
        let (ours, theirs) = (&known.options, wanted.options);
        if ours.ephemeral != theirs.ephemeral {
            return Err(changed("options", lasts(ours), lasts(theirs)));
        }
        for (what, ours, theirs) in [
            ("idle timeout", ours.idle_timeout_ms, theirs.idle_timeout_ms),
            ("absolute timeout", ours.absolute_timeout_ms, theirs.absolute_timeout_ms),
        ] {
            if ours != theirs {
                return Err(changed(what, &timeout(ours), &timeout(theirs)));
            }
        }
        if locking(ours) != locking(theirs) {
            return Err(changed("locking", locking(ours), locking(theirs)));
        }
        Ok(None)
    }

    pub(super) fn add(&mut self, root: Root) -> Result<(), BadEntry> {
        let next = self.roots.len() as u64 + 1;
        if u64::from(root.id.to_bits()) != next || self.by_name.contains_key(&root.name) {
            return Err(BadEntry::OutOfOrder { what: "root", number: root.id.to_bits().into(), last: next - 1 });
        }
        self.by_name.insert(root.name.clone(), root.id);
        self.roots.push(root);
        Ok(())
    }
}

impl Wanted<'_> {
    /// Checks what a peer sent, apart from the type's description.
    pub(super) fn check(&self) -> Result<(), Failure> {
        check_name("a root's name", self.name)?;
        if self.name.is_empty() {
            return Err(Failure::UnnamedRoot);
        }
        check_name("the word for how a root's objects are locked", &self.options.locking)?;
        check_structure(self.type_name, "the root's key", self.key)
    }
}

fn place(root: RootId) -> Option<usize> {
    usize::try_from(root.to_bits()).ok()?.checked_sub(1)
}

const fn lasts(options: &RootOptions) -> &'static str {
    if options.ephemeral { "ephemeral" } else { "lasting" }
}

fn timeout(ms: u64) -> String {
    if ms == 0 { "none".to_owned() } else { format!("{ms} ms") }
}

fn locking(options: &RootOptions) -> &str {
    if options.locking.is_empty() { "none" } else { &options.locking }
}
