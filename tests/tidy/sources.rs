//! What code may not contain.

use crate::{ALL, code, none, rust_files};

/// No file is longer, so that each can be read as one thing.
const LINES_MAX: usize = 500;
/// Files that may be longer, and why.
const LONGER: [(&str, &str); 1] = [(
    "coordinator/protocol/src/message.rs",
    "two enums with one documented field after the other: the protocol in one place",
)];

/// Engines, and what they stand on: `(now, event)` in, effects or tickets out.
const PURE: [&str; 5] = [
    "coordinator/protocol/src",
    "coordinator/src/engine",
    "runtime/engine/src",
    "runtime/heap/src",
    "runtime/object/src",
];

/// What pure code has no business with, beside its tests.
const IMPURE: [(&str, &str); 11] = [
    ("tokio::", "a task runtime"),
    ("quinn::", "the network"),
    ("std::net", "the network"),
    ("std::fs", "files"),
    ("std::env", "the environment"),
    ("std::process", "processes"),
    ("std::thread::", "threads"),
    ("Instant::now", "a clock"),
    ("SystemTime", "a clock"),
    ("UNIX_EPOCH", "a clock"),
    ("rand::", "randomness"),
];

/// Uses that are not what they look like, and why.
const EXCUSED: [(&str, &str, &str); 4] = [
    ("runtime/heap/src/", "std::thread::", "which shard a thread uses; the heap starts none"),
    ("runtime/object/src/", "std::net", "addresses are values that a field can have"),
    ("coordinator/protocol/src/structure/", "std::net", "and are rendered as such"),
    ("coordinator/src/engine/", "std::net", "addresses are shown to people"),
];

/// The part of a file before its unit tests.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod ").next().unwrap_or_default().split("#[cfg(all(test").next().unwrap_or_default()
}

fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs") || path.contains("/benches/") || path.starts_with("tests/")
}

#[test]
fn files_are_short() {
    let mut found = Vec::new();
    for (path, text) in rust_files(&ALL) {
        let lines = text.lines().count();
        let excused = LONGER.iter().any(|(longer, _)| *longer == path);
        if lines > LINES_MAX && !excused {
            found.push(format!("{path}: {lines} lines"));
        }
        assert!(!excused || lines > LINES_MAX, "{path} is short by now: take it out of LONGER");
    }
    none("a file is longer than 500 lines: split it by noun", &found);
}

#[test]
fn engines_are_pure() {
    let mut found = Vec::new();
    for (path, text) in rust_files(&PURE) {
        if is_test(&path) {
            continue;
        }
        for (number, line) in (1..).zip(without_tests(&text).lines()) {
            for (what, means) in IMPURE {
                let excused = EXCUSED.iter().any(|(folder, excused, _)| path.starts_with(folder) && *excused == what);
                if code(line).contains(what) && !excused {
                    found.push(format!("{path}:{number}: `{what}` is {means}"));
                }
            }
        }
    }
    none("pure code reaches for the world", &found);
}

#[test]
fn unsafe_code_is_in_the_heap_alone() {
    let mut found = Vec::new();
    for (path, text) in rust_files(&ALL) {
        let allowed = path.starts_with("runtime/heap/") || path.starts_with("tests/tidy/");
        for (number, line) in (1..).zip(text.lines()) {
            let code = code(line);
            let unsafe_here = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe trait", "unsafe extern", "(unsafe_code"];
            if !allowed && unsafe_here.iter().any(|what| code.contains(what)) {
                found.push(format!("{path}:{number}: {}", line.trim()));
            }
        }
    }
    none("unsafe code outside of runtime/heap", &found);
}

#[test]
fn nothing_is_left_over() {
    let mut found = Vec::new();
    for (path, text) in rust_files(&ALL) {
        if path.starts_with("tests/tidy/") {
            continue;
        }
        for (number, line) in (1..).zip(text.lines()) {
            let code = code(line);
            for what in ["todo!(", "unimplemented!(", "dbg!(", "#[ignore]"] {
                if code.contains(what) {
                    found.push(format!("{path}:{number}: {what} (an ignored test says why: `#[ignore = \"..\"]`)"));
                }
            }
            if ["TODO", "FIXME", "XXX"].iter().any(|mark| line.contains(mark)) {
                found.push(format!("{path}:{number}: {}", line.trim()));
            }
        }
    }
    none("something was left for later", &found);
}

#[test]
fn every_module_says_what_it_is_for() {
    let mut found = Vec::new();
    for (path, text) in rust_files(&ALL) {
        let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        // Unit tests are about the module that has them; what the compiler is to refuse is as short as it can be.
        let of_tests = path.ends_with("/tests.rs") || (path.contains("/tests/") && path.contains("/src/"));
        if !first.starts_with("//!") && !of_tests && !path.contains("/tests/ui/") {
            found.push(path);
        }
    }
    none("a file does not begin with what it is for (`//!`)", &found);
}

#[test]
fn names_say_what_a_thing_is() {
    let vague = ["util", "utils", "common", "helper", "helpers", "misc", "manager", "stuff"];
    let mut found = Vec::new();
    for (path, _) in rust_files(&ALL) {
        if path.split(['/', '.', '_']).any(|part| vague.contains(&part)) {
            found.push(path);
        }
    }
    none("a file's name says nothing", &found);
}
