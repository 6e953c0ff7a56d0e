//! The documents name what there is.

use crate::{none, read};
use std::fs;

/// The variants of an enum, as its source has them.
fn variants(text: &str, name: &str) -> Vec<String> {
    let start = text.find(&format!("pub enum {name} {{")).unwrap_or_else(|| panic!("no enum {name}"));
    let body = &text[start..];
    let body = &body[..body.find("\n}\n").unwrap()];
    let heads = body.lines().skip(1).filter_map(|line| {
        let line = line.strip_prefix("    ")?;
        let is_head = line.starts_with(|first: char| first.is_ascii_uppercase());
        is_head.then(|| line.chars().take_while(char::is_ascii_alphanumeric).collect())
    });
    heads.collect()
}

/// The first column of a row of a table.
fn rows(section: &str) -> Vec<&str> {
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    cells.collect()
}

fn section<'a>(document: &'a str, heading: &str) -> &'a str {
    let start = document.find(heading).unwrap_or_else(|| panic!("no heading `{heading}`"));
    let rest = &document[start + heading.len()..];
    rest.find("\n## ").map_or(rest, |end| &rest[..end])
}

#[test]
fn the_protocol_document_has_a_row_for_every_message() {
    let document = read("docs/PROTOCOL.md");
    for (name, file, heading) in [
        ("ToCoordinator", "to_coordinator", "\n## From a node to the coordinator\n"),
        ("ToNode", "to_node", "\n## From the coordinator to a node\n"),
    ] {
        let messages = read(&format!("coordinator/protocol/src/message/{file}.rs"));
        let (variants, section) = (variants(&messages, name), section(&document, heading));
        assert!(variants.len() > 15, "{variants:?}");
        let rows = rows(section);
        let missing: Vec<String> =
            variants.iter().filter(|variant| !rows.contains(&variant.as_str())).cloned().collect();
        none(&format!("docs/PROTOCOL.md has no row for a message of {name}"), &missing);
        let gone: Vec<String> = rows
            .iter()
            .filter(|row| !variants.iter().any(|variant| variant == *row))
            .map(|row| (*row).to_owned())
            .collect();
        none(&format!("docs/PROTOCOL.md has a row for what is no message of {name}"), &gone);
    }
}

#[test]
fn the_protocol_document_names_every_limit() {
    let limits = read("coordinator/protocol/src/limits.rs");
    let document = read("docs/PROTOCOL.md");
    let names = limits.lines().filter_map(|line| line.strip_prefix("pub const ")?.split(':').next());
    let missing: Vec<String> =
        names.filter(|name| !document.contains(&format!("`{name}`"))).map(str::to_owned).collect();
    none("docs/PROTOCOL.md does not name a limit", &missing);
}

#[test]
fn the_glossary_has_every_word() {
    let glossary = read("docs/GLOSSARY.md");
    let words = [
        "cluster",
        "coordinator",
        "runtime",
        "node",
        "incarnation",
        "root",
        "object",
        "slot",
        "lock group",
        "version",
        "record",
        "delta",
        "commit",
        "lock",
        "grant",
        "token",
        "recall",
        "release",
        "lease",
        "epoch",
        "fault",
        "resident",
        "interest",
        "outbox",
        "near cache",
    ];
    let missing: Vec<String> =
        words.iter().filter(|word| !glossary.contains(&format!("**{word}**"))).map(|word| (*word).to_owned()).collect();
    none("docs/GLOSSARY.md lacks a word", &missing);
}

#[test]
fn every_path_in_a_document_is_there() {
    let mut found = Vec::new();
    for document in
        ["ARCHITECTURE.md", "README.md", "docs/PROTOCOL.md", "docs/STORE.md", "docs/GLOSSARY.md", "tests/README.md"]
    {
        for word in read(document).split(['`', '(', ')', ' ', '\n', ',']) {
            let word = word.trim_end_matches(['/', '.', ':', ';']);
            let folder = word.split('/').next().unwrap_or_default();
            let is_path = word.contains('/') && !word.contains(['*', '<', '{', '$']);
            let ours = ["coordinator", "runtime", "macros", "examples", "tests", "docs", ".ci"].contains(&folder);
            if is_path && ours && fs::metadata(crate::root().join(word)).is_err() {
                found.push(format!("{document}: {word}"));
            }
        }
    }
    none("a document names a file that is not there", &found);
}
