//! What the command says of flags, variables and profiles that are wrong or unwise.

use crate::{Process, Running, kiln, run};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;

#[tokio::test]
async fn a_profile_that_others_can_read_is_pointed_out() {
    let running = Running::start().await;
    let profile = running.directory.path().join("kiln.toml");
    assert_eq!(running.kiln(&["status"]).await.err, "");
    std::fs::set_permissions(&profile, std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = running.kiln(&["status"]).await;
    assert_eq!(said.code, Some(0));
    assert!(said.err.contains("mode 0644") && said.err.contains("chmod 600 kiln.toml"), "{}", said.err);
}

#[test]
fn wrong_settings_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let complaint = |arguments: &[&str], variable: Option<(&str, &str)>| {
        let mut command = kiln(directory.path(), arguments);
        command.envs(variable);
        let said = run(command);
        assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{}", said.err);
        said.err
    };
    let said = complaint(&["serve", "--listen", "localhost:1"], None);
    assert!(said.contains("IP:PORT") && said.contains("not resolved") && !said.contains("KILN_LISTEN"), "{said}");
    for (variable, arguments) in
        [("KILN_LISTEN", ["serve"]), ("KILN_STOP_TIMEOUT", ["serve"]), ("KILN_TIMEOUT", ["ls"])]
    {
        let said = complaint(&arguments, Some((variable, "abc")));
        assert!(said.contains(&format!("{variable} is wrong")), "{said}");
    }
    let said = complaint(&["status"], Some(("KILN_PROFILE", "")));
    assert!(said.contains("KILN_PROFILE is wrong"), "{said}");
    // The flag goes first, and so it is the one that is wrong.
    let said = complaint(&["serve", "--listen=abc"], Some(("KILN_LISTEN", "127.0.0.1:1")));
    assert!(!said.contains("KILN_LISTEN"), "{said}");

    let said = run(kiln(directory.path(), &["serve", "--listen", "127.0.0.1:0", "--profile", "no/such/k.toml"]));
    assert!(said.err.contains("cannot write no/such/k.toml:"), "{}", said.err);
}

#[test]
fn a_profile_for_this_machine_only_is_pointed_out() {
    let directory = tempfile::tempdir().unwrap();
    for (advertise, is_told) in [(None, true), (Some("--advertise=db.example"), false)] {
        let all = ["serve", "--listen", "0.0.0.0:0"].into_iter().chain(advertise).collect::<Vec<_>>();
        let mut process = Process::start(kiln(directory.path(), &all));
        while !process.line().contains("state is kept") {}
        process.signal(rustix::process::Signal::TERM);
        let err = BufReader::new(process.child.stderr.take().unwrap());
        let told = err.lines().map(Result::unwrap).any(|line| line.contains("--advertise"));
        assert_eq!(told, is_told);
    }
}
