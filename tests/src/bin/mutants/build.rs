//! The copy of the workspace with every bug in it, and the programs that are built of it.

use crate::list::Mutant;
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// What the workspace consists of, as far as a build needs it.
const TOP: [&str; 7] = ["Cargo.toml", "Cargo.lock", "coordinator", "examples", "macros", "runtime", "tests"];
/// Where the switch is: both engines see it.
const HOME: &str = "coordinator/protocol/src/lib.rs";
const SWITCHES: &str = r#"
/// Whether this planted bug is switched on.
#[doc(hidden)]
pub fn mutant(name: &str) -> bool {
    static ON: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    ON.get_or_init(|| std::env::var("KILN_MUTANT").ok()).as_deref() == Some(name)
}
"#;
const UNIT_TESTED: [&str; 3] = ["kiln-protocol", "kiln-coordinator", "kiln-engine"];

/// What finds bugs.
pub(crate) struct Programs {
    pub(crate) simulation: PathBuf,
    pub(crate) unit_tests: Vec<PathBuf>,
}

/// Copies the workspace, plants every bug and builds.
pub(crate) async fn build(source: &Path, all: &[Mutant], unit_tests: bool) -> Result<Programs, Box<dyn Error>> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| source.join("target"), PathBuf::from);
    let (tree, builds) = (target.join("mutants/tree"), target.join("mutants/build"));
    let mut files = BTreeMap::new();
    for name in TOP {
        collect(&source.join(name), Path::new(name), &mut files)?;
    }
    for mutant in all {
        let file = files.get_mut(Path::new(&mutant.file)).ok_or_else(|| format!("there is no {}", mutant.file))?;
        *file = mutant.plant(std::str::from_utf8(file)?)?.into_bytes();
    }
    files.get_mut(Path::new(HOME)).ok_or("no place for the switches")?.extend_from_slice(SWITCHES.as_bytes());
    write(&tree, &files)?;
    let simulation = executables(&tree, &builds, &["-p", "kiln-tests", "--test", "sim"]).await?;
    let mut tests = Vec::new();
    if unit_tests {
        let packages = UNIT_TESTED.iter().flat_map(|package| ["-p", package]);
        let arguments: Vec<_> = packages.chain(["--lib"]).collect();
        tests = executables(&tree, &builds, &arguments).await?;
    }
    let simulation = simulation.into_iter().next().ok_or("no simulation was built")?;
    Ok(Programs { simulation, unit_tests: tests })
}

fn collect(from: &Path, name: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) -> std::io::Result<()> {
    if from.is_file() {
        files.insert(name.to_owned(), std::fs::read(from)?);
        return Ok(());
    }
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_name() != "target" {
            collect(&entry.path(), &name.join(entry.file_name()), files)?;
        }
    }
    Ok(())
}

/// What is as it was stays untouched, so that only what changed is built again.
fn write(tree: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) -> std::io::Result<()> {
    let mut old = BTreeMap::new();
    if tree.exists() {
        collect(tree, Path::new(""), &mut old)?;
    }
    for gone in old.keys().filter(|name| !files.contains_key(*name)) {
        std::fs::remove_file(tree.join(gone))?;
    }
    for (name, text) in files.iter().filter(|(name, text)| old.get(*name) != Some(text)) {
        let path = tree.join(name);
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        std::fs::write(path, text)?;
    }
    Ok(())
}

/// Builds tests and returns where they are.
async fn executables(tree: &Path, target: &Path, what: &[&str]) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["test", "--release", "--no-run", "--message-format", "json-render-diagnostics"])
        .args(what)
        .current_dir(tree)
        .env("CARGO_TARGET_DIR", target)
        .env("RUSTFLAGS", "--cap-lints=warn -Awarnings")
        // What takes long here is the building.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
        .kill_on_drop(true)
        .output()
        .await?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{said}\nthe workspace with the bugs in it does not build").into());
    }
    let mut found = Vec::new();
    for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let message: serde_json::Value = serde_json::from_slice(line)?;
        let is_test = message["profile"]["test"] == true;
        if let Some(path) = message["executable"].as_str().filter(|_| is_test) {
            found.push(PathBuf::from(path));
        }
    }
    Ok(found)
}
