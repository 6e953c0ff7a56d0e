//! Runs the test suites that tower-sessions and actix-session have for stores, with Kiln's stores.
//!
//! The suites are tests of those crates and nothing that they export. But their packages contain them, and cargo has unpacked
//! these already: so a crate is put together in the target directory, of the suites as they stand in the versions that
//! `Cargo.lock` names, and of the few lines that give them our stores.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

use serde::Deserialize;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const USAGE: &str = "\
Runs the suites that tower-sessions 0.14 and 0.15 and actix-session have for stores, with Kiln's stores.

usage: cargo run -p kiln-tests --bin upstream
";

/// What the suites use beside the frameworks themselves.
const DEPENDENCIES: &str = r#"
[dev-dependencies]
actix-test = "0.1"
actix-web = { version = "4", default-features = false, features = ["cookies", "macros"] }
axum = "0.8"
axum-core = "0.5"
http = "1"
http-body-util = "0.1"
serde = { version = "1", features = ["derive"] }
serde_json = "1"
time = "0.3"
tokio = { version = "1", features = ["full"] }
tower = { version = "0.5", features = ["util"] }
tower-cookies = "0.11"

# The suites are others' code, with warnings of their own.
[lints.rust]
warnings = "allow"

[features]
default = ["axum-core", "memory-store"]
axum-core = []
memory-store = []
"#;

/// Before each suite: where it gets its stores from.
const TOWER_STORE: &str = "
async fn store() -> kiln_sessions::TowerSessionsStore {
    let kiln = kiln::Runtime::embedded().await.unwrap();
    kiln_sessions::TowerSessionsStore::open(&kiln).await.unwrap()
}
";
const ACTIX_STORE: &str = "
#[test]
fn acceptance() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(async {
        let kiln = kiln::Runtime::embedded().await.unwrap();
        kiln_sessions::ActixStore::open(&kiln).await.unwrap()
    });
    let suite = test_helpers::acceptance_test_suite(move || store.clone(), true);
    actix_web::rt::System::new().block_on(suite);
}
";

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    target_directory: PathBuf,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    manifest_path: PathBuf,
}

impl Package {
    fn read(&self, file: &str) -> Result<String> {
        let path = self.manifest_path.with_file_name(file);
        fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()).into())
    }

    /// What stands in a file from the line with this text on.
    fn read_from(&self, file: &str, begin: &str) -> Result<String> {
        let text = self.read(file)?;
        match text.find(begin) {
            Some(at) => Ok(text[at..].to_owned()),
            None => Err(format!("{} {}: {file} has no `{begin}` any more", self.name, self.version).into()),
        }
    }
}

impl Metadata {
    fn get() -> Result<Self> {
        let mut command = Command::new(env!("CARGO"));
        command.args(["metadata", "--format-version", "1", "--manifest-path", env!("CARGO_MANIFEST_PATH")]);
        let said = command.stderr(Stdio::inherit()).output()?;
        if !said.status.success() {
            return Err(format!("`cargo metadata` ended with {}", said.status).into());
        }
        Ok(serde_json::from_slice(&said.stdout)?)
    }

    fn package(&self, name: &str, version: &str) -> Result<&Package> {
        let mut packages = self.packages.iter();
        packages
            .find(|package| package.name == name && package.version.starts_with(version))
            .ok_or_else(|| format!("the workspace does not use {name} {version} any more").into())
    }
}

/// The text with our stores instead of the framework's own.
fn with_our_stores(text: &str) -> Result<String> {
    let own = "MemoryStore::default()";
    if !text.contains(own) {
        return Err(format!("a suite has no `{own}` any more to be replaced").into());
    }
    Ok(text.replace(own, "crate::store().await"))
}

fn write_tower(metadata: &Metadata, version: &str, crate_name: &str, tests: &Path) -> Result<()> {
    let sessions = metadata.package("tower-sessions", version)?;
    let memory = metadata.package("tower-sessions-memory-store", version)?;
    let place = tests.join(crate_name);
    fs::create_dir_all(place.join("common"))?;
    fs::write(place.join("common/mod.rs"), sessions.read("tests/common/mod.rs")?)?;
    let routes = with_our_stores(&sessions.read("tests/integration-tests.rs")?)?;
    let store = with_our_stores(&memory.read_from("src/lib.rs", "#[cfg(test)]")?)?;
    let uses = "use time::OffsetDateTime;\nuse tower_sessions::{SessionStore, session::Record};\n";
    fs::write(place.join("store.rs"), format!("{uses}{store}"))?;
    let head = format!("extern crate {crate_name} as tower_sessions;\nmod store;\n");
    fs::write(place.join("main.rs"), format!("{head}{routes}{TOWER_STORE}"))?;
    Ok(())
}

fn write_actix(metadata: &Metadata, tests: &Path) -> Result<()> {
    let suite = metadata.package("actix-session", "0.11")?.read_from("src/lib.rs", "pub mod test_helpers {")?;
    // The suite finds them in its own crate.
    let uses = "pub use actix_session::{config, storage, Session, SessionExt, SessionMiddleware};\n";
    fs::write(tests.join("actix.rs"), format!("{uses}{suite}{ACTIX_STORE}"))?;
    Ok(())
}

fn manifest(metadata: &Metadata) -> Result<String> {
    let root = &metadata.workspace_root;
    let of_workspace: toml::Table = fs::read_to_string(root.join("Cargo.toml"))?.parse()?;
    let profile: toml::Table = of_workspace.into_iter().filter(|(name, _)| name == "profile").collect();
    let dependency = |name: &str, place: &str, features: &str| {
        format!("{name} = {{ path = {:?}, features = [{features}] }}\n", root.join(place))
    };
    let version = |package: &Package| format!("version = \"={}\"", package.version);
    let mut text = "[package]\nname = \"upstream\"\nedition = \"2021\"\n\n[workspace]\n\n[dependencies]\n".to_owned();
    text += &dependency("kiln", "runtime", r#""embedded""#);
    text += &dependency("kiln-sessions", "runtime/sessions", r#""actix", "tower-sessions""#);
    text += &format!(
        "actix-session = {{ {}, default-features = false }}\n",
        version(metadata.package("actix-session", "0.11")?)
    );
    for minor in ["14", "15"] {
        let package = metadata.package("tower-sessions", &format!("0.{minor}."))?;
        text += &format!("tower_sessions_{minor} = {{ package = \"tower-sessions\", {} }}\n", version(package));
    }
    Ok(format!("{text}{DEPENDENCIES}\n{profile}"))
}

fn run() -> Result<bool> {
    if std::env::args().len() > 1 {
        print!("{USAGE}");
        return Ok(std::env::args().nth(1).is_some_and(|argument| matches!(&*argument, "-h" | "--help")));
    }
    let metadata = Metadata::get()?;
    let place = metadata.target_directory.join("upstream");
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    let tests = place.join("tests");
    fs::create_dir_all(&tests)?;
    fs::create_dir_all(place.join("src"))?;
    fs::write(place.join("src/lib.rs"), "")?;
    fs::write(place.join("Cargo.toml"), manifest(&metadata)?)?;
    // What both use is the same then.
    fs::copy(metadata.workspace_root.join("Cargo.lock"), place.join("Cargo.lock"))?;
    write_tower(&metadata, "0.14.", "tower_sessions_14", &tests)?;
    write_tower(&metadata, "0.15.", "tower_sessions_15", &tests)?;
    write_actix(&metadata, &tests)?;
    let mut command = Command::new(env!("CARGO"));
    command.args(["test", "--no-fail-fast", "--tests"]).current_dir(&place);
    command.env("CARGO_TARGET_DIR", &metadata.target_directory);
    Ok(command.status()?.success())
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("upstream: {error}");
            ExitCode::FAILURE
        }
    }
}
