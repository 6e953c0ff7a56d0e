//! The shop of the examples, whose two nodes nothing happens to: whatever becomes of the others, it loses nothing, ends
//! every session at once, and answers.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;
use tokio::process::Command;
use tokio::task::JoinSet;

/// One check, on a machine that is busy.
const TIMEOUT: Duration = Duration::from_secs(240);
const CLIENTS: &str = "8";
const ROUNDS: &str = "40";

/// One check after the other.
pub(crate) struct Shop {
    program: PathBuf,
    profile: PathBuf,
    checking: JoinSet<Output>,
    /// Checks that were good.
    pub(crate) good: u64,
}

impl Shop {
    /// Builds the program as these tests were built, and begins.
    pub(crate) async fn open(profile: &Path) -> Self {
        let tests = std::env::current_exe().expect("the path of this program");
        let built = tests.ancestors().nth(2).expect("cargo builds tests in `deps`");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "-p", "kiln-examples", "--bin", "shop"]).kill_on_drop(true);
        build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        build.arg("--target-dir").arg(built.parent().expect("the target directory"));
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let status = build.status().await.expect("cargo runs");
        assert!(status.success(), "the shop cannot be built");
        let mut shop =
            Self { program: built.join("shop"), profile: profile.to_owned(), checking: JoinSet::new(), good: 0 };
        shop.check();
        shop
    }

    fn check(&mut self) {
        let mut command = Command::new(&self.program);
        command.args(["--check", "--clients", CLIENTS, "--rounds", ROUNDS, "--profile"]).arg(&self.profile);
        command.kill_on_drop(true);
        self.checking.spawn(async move {
            let output = tokio::time::timeout(TIMEOUT, command.output()).await;
            output.unwrap_or_else(|_elapsed| panic!("the shop hangs")).expect("the shop starts")
        });
    }

    /// Looks whether a check has ended, and begins the next one unless the shop is about to close.
    pub(crate) fn turn(&mut self, is_over: bool) {
        let Some(output) = self.checking.try_join_next() else { return };
        let output = output.expect("a check ends");
        let said = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said).into_owned());
        assert!(output.status.success(), "the shop's check, after {} good ones:\n{}", self.good, said.join("\n"));
        self.good += 1;
        if !is_over {
            self.check();
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.checking.is_empty()
    }
}
