//! House rules that no compiler checks: which crate may know which, what pure code may not touch, how long a file may
//! be, and that the documents name what there is.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod dependencies;
mod documents;
mod sources;

use std::fs;
use std::path::{Path, PathBuf};

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every Rust file below these folders: its path from the root, and its text.
fn rust_files(folders: &[&str]) -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                files.push((path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(), text));
            }
        }
    }
    files.sort();
    assert!(!files.is_empty());
    files
}

/// All folders with Rust code.
const ALL: [&str; 5] = ["coordinator", "examples", "macros", "runtime", "tests"];

/// The code of a line, without its comment. Good enough for rules: a `//` inside a string ends the code too early.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// Fails with everything that was found, not only the first.
fn none(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}
