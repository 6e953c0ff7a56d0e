use super::*;
use kiln_protocol::Profile;
use rustls_pki_types::UnixTime;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;
use tempfile::TempDir;

const DAY: u64 = 24 * 60 * 60;
const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(20_000 * DAY));

fn days_later(days: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(NOW.as_secs() + days * DAY))
}

/// One coordinator's files, started as often as one likes.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("kiln")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap()
    }

    fn start(&self) -> Result<(Profile, Epoch), DirectoryError> {
        self.start_as("127.0.0.1", NOW)
    }

    fn start_as(&self, host: &str, now: UnixTime) -> Result<(Profile, Epoch), DirectoryError> {
        self.start_with(host, now, None)
    }

    fn start_with(
        &self,
        host: &str,
        now: UnixTime,
        profile: Option<&Path>,
    ) -> Result<(Profile, Epoch), DirectoryError> {
        let directory = Directory::open(&self.path())?;
        let identity = directory.identity(host, now)?;
        directory.quic_keys()?;
        let own = directory.profile_path();
        let profile = directory.write_profile(profile.unwrap_or(&own), &identity, &format!("{host}:1"), host, now)?;
        Ok((profile, directory.next_epoch(Epoch::default())?))
    }

    fn started() -> Self {
        let files = Self::new();
        files.start().unwrap();
        files
    }

    /// What the next start says.
    fn complaint(&self) -> String {
        self.start().unwrap_err().to_string()
    }
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn the_first_start_makes_everything_private() {
    let files = Files::started();
    assert_eq!(mode(&files.path()), 0o700);
    for name in [CA_CERTIFICATE, CA_KEY, SERVER_CERTIFICATE, SERVER_KEY, QUIC_KEY, EPOCH, LOCK, PROFILE] {
        assert_eq!(mode(&files.file(name)), 0o600, "{name}");
    }
    let leftover = fs::read_dir(files.path()).unwrap().count();
    assert_eq!(leftover, 8, "a file nobody knows of");
    let profile = Profile::parse(&files.read(PROFILE)).unwrap();
    assert_eq!(profile.ca, files.read(CA_CERTIFICATE));
}

#[test]
fn later_starts_keep_all_but_the_epoch() {
    let files = Files::new();
    let (profile, first) = files.start().unwrap();
    let keep = [CA_CERTIFICATE, CA_KEY, SERVER_CERTIFICATE, SERVER_KEY, QUIC_KEY, PROFILE];
    let before = keep.map(|name| files.read(name));
    let (same_profile, second) = files.start().unwrap();
    assert_eq!(before, keep.map(|name| files.read(name)));
    assert_eq!(profile, same_profile);
    assert_eq!((first, second), (Epoch::from_bits(1), Epoch::from_bits(2)));
}

#[test]
fn another_address_gets_a_certificate_and_keeps_the_credentials() {
    let files = Files::new();
    let (before, _) = files.start().unwrap();
    let server = files.read(SERVER_CERTIFICATE);
    let (after, _) = files.start_as("db.example", NOW).unwrap();
    assert_ne!(files.read(SERVER_CERTIFICATE), server);
    assert_eq!((after.address.as_str(), after.server_name.as_str()), ("db.example:1", "db.example"));
    assert_eq!((before.certificate, before.key), (after.certificate, after.key));
}

#[test]
fn certificates_are_made_anew_before_they_end() {
    let files = Files::new();
    let (before, _) = files.start().unwrap();
    let server = files.read(SERVER_CERTIFICATE);
    files.start_as("127.0.0.1", days_later(3600)).unwrap();
    assert_eq!(files.read(SERVER_CERTIFICATE), server);
    let (after, _) = files.start_as("127.0.0.1", days_later(3640)).unwrap();
    assert_ne!(files.read(SERVER_CERTIFICATE), server);
    assert_ne!(before.certificate, after.certificate);
}

#[test]
fn what_others_can_reach_is_refused() {
    for (name, wanted) in [(CA_KEY, "600"), (SERVER_KEY, "600"), (QUIC_KEY, "600"), (PROFILE, "600"), ("", "700")] {
        let files = Files::started();
        let path = if name.is_empty() { files.path() } else { files.file(name) };
        chmod(&path, 0o755);
        let complaint = files.complaint();
        let advice = format!("chmod {wanted} {}", path.display());
        assert!(complaint.contains("mode 0755") && complaint.contains(&advice), "{complaint}");
    }
}

#[test]
fn one_of_a_pair_is_missed() {
    for (gone, beside) in [
        (CA_CERTIFICATE, CA_KEY),
        (CA_KEY, CA_CERTIFICATE),
        (SERVER_CERTIFICATE, SERVER_KEY),
        (SERVER_KEY, SERVER_CERTIFICATE),
        (EPOCH, CA_CERTIFICATE),
    ] {
        let files = Files::started();
        fs::remove_file(files.file(gone)).unwrap();
        let complaint = files.complaint();
        assert!(complaint.contains(&format!("{gone} is missing")), "{complaint}");
        assert!(complaint.contains(beside), "{complaint}");
    }
}

#[test]
fn a_lost_ca_is_not_replaced_under_a_certificate_it_signed() {
    let files = Files::started();
    fs::remove_file(files.file(CA_CERTIFICATE)).unwrap();
    fs::remove_file(files.file(CA_KEY)).unwrap();
    let complaint = files.complaint();
    assert!(complaint.contains("ca.pem is missing") && complaint.contains("server."), "{complaint}");
    fs::remove_file(files.file(SERVER_CERTIFICATE)).unwrap();
    fs::remove_file(files.file(SERVER_KEY)).unwrap();
    let old = files.read(PROFILE);
    files.start().unwrap();
    assert_ne!(files.read(PROFILE), old);
}

#[test]
fn a_lost_server_certificate_is_made_anew() {
    let files = Files::started();
    fs::remove_file(files.file(SERVER_CERTIFICATE)).unwrap();
    fs::remove_file(files.file(SERVER_KEY)).unwrap();
    files.start().unwrap();
}

#[test]
fn damaged_files_are_named() {
    for name in [CA_CERTIFICATE, CA_KEY, SERVER_CERTIFICATE, SERVER_KEY, QUIC_KEY, EPOCH] {
        let files = Files::started();
        fs::write(files.file(name), "damaged").unwrap();
        let complaint = files.complaint();
        assert!(complaint.contains(&format!("{name} cannot be used")), "{complaint}");
    }
}

#[test]
fn keys_and_certificates_of_others_do_not_fit() {
    let other = Files::started();
    for (names, what) in [
        (&[CA_KEY][..], "do not belong together"),
        (&[SERVER_KEY][..], "do not belong together"),
        (&[SERVER_KEY, SERVER_CERTIFICATE][..], "does not vouch"),
    ] {
        let files = Files::started();
        for name in names {
            fs::write(files.file(name), other.read(name)).unwrap();
        }
        let complaint = files.complaint();
        assert!(complaint.contains(what), "{complaint}");
    }
}

#[test]
fn two_coordinators_do_not_share_a_directory() {
    let files = Files::started();
    let held = Directory::open(&files.path()).unwrap();
    let complaint = files.complaint();
    let pid = format!("(process {})", std::process::id());
    assert!(complaint.contains("in use") && complaint.contains(&pid), "{complaint}");
    drop(held);
    files.start().unwrap();
}

#[test]
fn a_damaged_profile_in_the_directory_is_written_anew() {
    let files = Files::started();
    fs::write(files.file(PROFILE), "damaged").unwrap();
    let (profile, _) = files.start().unwrap();
    assert_eq!(Profile::parse(&files.read(PROFILE)), Ok(profile));
}

#[test]
fn a_profile_elsewhere_is_overwritten_only_if_it_is_ours() {
    let files = Files::started();
    let elsewhere = files.0.path().join("kiln.toml");
    files.start_with("127.0.0.1", NOW, Some(&elsewhere)).unwrap();
    assert_eq!(mode(&elsewhere), 0o600);
    files.start_with("db.example", NOW, Some(&elsewhere)).unwrap();
    let stranger = Files::started();
    let complaint = stranger.start_with("127.0.0.1", NOW, Some(&elsewhere)).unwrap_err().to_string();
    assert!(complaint.contains("another") && complaint.contains("kiln.toml"), "{complaint}");
    fs::write(&elsewhere, "[server]\nport = 1\n").unwrap();
    let complaint = files.start_with("127.0.0.1", NOW, Some(&elsewhere)).unwrap_err().to_string();
    assert!(complaint.contains("is not a profile"), "{complaint}");
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "[server]\nport = 1\n");
}

#[test]
fn an_interrupted_write_does_not_stand_in_the_way() {
    let files = Files::started();
    fs::write(files.file(".epoch.new"), "9").unwrap();
    assert_eq!(files.start().unwrap().1, Epoch::from_bits(2));
    assert!(!files.file(".epoch.new").exists());
}

#[test]
fn epochs_do_not_wrap() {
    let files = Files::started();
    fs::write(files.file(EPOCH), Epoch::MAX.to_string()).unwrap();
    assert!(files.complaint().contains("epochs end"));
}
