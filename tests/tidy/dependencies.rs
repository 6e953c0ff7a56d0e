//! Dependencies point one way.

use crate::{none, read, rust_files};

/// Each crate, and the crates of this workspace that it may depend on.
const MAY_KNOW: [(&str, &[&str]); 11] = [
    ("coordinator/protocol", &[]),
    ("coordinator", &["kiln-protocol"]),
    ("coordinator/cli", &["kiln", "kiln-coordinator", "kiln-protocol"]),
    ("runtime/heap", &[]),
    ("runtime/object", &["kiln-heap", "kiln-macros", "kiln-protocol"]),
    ("runtime/engine", &["kiln-heap", "kiln-object", "kiln-protocol"]),
    ("runtime", &["kiln-coordinator", "kiln-engine", "kiln-heap", "kiln-macros", "kiln-object", "kiln-protocol"]),
    ("runtime/sessions", &["kiln"]),
    ("macros", &[]),
    ("examples", &["kiln", "kiln-sessions"]),
    ("tests", &["kiln", "kiln-coordinator", "kiln-engine", "kiln-heap", "kiln-object", "kiln-protocol"]),
];

/// What may be in the dependencies of crates that do no I/O, beside crates of this workspace. A new one is to be looked
/// at: does it bring threads, a clock, sockets or files?
const PURE: [(&str, &[&str]); 4] = [
    ("coordinator/protocol", &["bytes", "crc32fast", "postcard", "serde", "smallvec", "thiserror", "toml"]),
    ("runtime/heap", &["crossbeam-epoch", "memmap2", "rkyv", "smallvec", "thiserror"]),
    ("runtime/object", &["rkyv", "smallvec", "thiserror"]),
    ("runtime/engine", &["bytes", "crossbeam-queue", "dashmap", "hashbrown", "smallvec", "thiserror"]),
];

fn manifest(folder: &str) -> toml::Table {
    read(&format!("{folder}/Cargo.toml")).parse().unwrap()
}

fn dependencies(folder: &str, section: &str) -> Vec<String> {
    let manifest = manifest(folder);
    manifest.get(section).and_then(toml::Value::as_table).map_or_else(Vec::new, |table| table.keys().cloned().collect())
}

#[test]
fn every_crate_is_listed() {
    let workspace: toml::Table = read("Cargo.toml").parse().unwrap();
    let members = workspace["workspace"]["members"].as_array().unwrap();
    let members: Vec<_> = members.iter().map(|member| member.as_str().unwrap()).collect();
    for member in &members {
        assert!(MAY_KNOW.iter().any(|(folder, _)| folder == member), "{member} has no line in MAY_KNOW");
    }
    assert_eq!(members.len(), MAY_KNOW.len(), "MAY_KNOW lists a crate that is gone");
}

#[test]
fn dependencies_point_one_way() {
    let mut found = Vec::new();
    for (folder, may_know) in MAY_KNOW {
        for dependency in dependencies(folder, "dependencies") {
            if dependency.starts_with("kiln") && !may_know.contains(&dependency.as_str()) {
                found.push(format!("{folder} depends on {dependency}"));
            }
        }
    }
    none("a crate knows one that it must not know", &found);
}

#[test]
fn crates_without_io_depend_on_nothing_that_does_it() {
    let mut found = Vec::new();
    for (folder, allowed) in PURE {
        for dependency in dependencies(folder, "dependencies") {
            if !dependency.starts_with("kiln") && !allowed.contains(&dependency.as_str()) {
                found.push(format!("{folder} depends on {dependency}"));
            }
        }
    }
    none("a crate that does no I/O has a new dependency", &found);
}

#[test]
fn the_runtime_knows_the_coordinator_in_one_place_and_only_when_asked() {
    let dependency = &manifest("runtime")["dependencies"]["kiln-coordinator"];
    assert_eq!(dependency.get("optional").and_then(toml::Value::as_bool), Some(true));
    let features = &manifest("runtime")["features"];
    let default = features.get("default").and_then(toml::Value::as_array);
    assert!(default.is_none_or(Vec::is_empty), "the runtime has default features: {default:?}");
    let mut found = Vec::new();
    for (path, text) in rust_files(&["runtime/src"]) {
        if path != "runtime/src/embedded.rs" && text.contains("kiln_coordinator") {
            found.push(path);
        }
    }
    none("the runtime knows the coordinator elsewhere than in its `embedded` module", &found);
}

#[test]
fn versions_of_dependencies_are_in_the_workspace_alone() {
    let mut found = Vec::new();
    for (folder, _) in MAY_KNOW {
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let manifest = manifest(folder);
            let Some(table) = manifest.get(section).and_then(toml::Value::as_table) else { continue };
            for (name, value) in table {
                if value.is_str() || value.get("version").is_some() || value.get("git").is_some() {
                    found.push(format!("{folder}: {name}"));
                }
            }
        }
    }
    none("a dependency's version is not in the root's [workspace.dependencies]", &found);
}
