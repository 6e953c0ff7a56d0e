//! Where each setting of `kiln serve` comes from: flag, else environment, else file, else default.

use super::Args;
use kiln_coordinator::server::{DEFAULT_ADDRESS, DEFAULT_DIRECTORY, Options, Storage};
use kiln_coordinator::store::SyncPolicy;
use serde::Deserialize;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Shorter than a second, a busy machine loses them; longer than ten minutes, dead nodes keep their locks for too long.
const LEASES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);
/// Shorter is as good as always; who wants it longer wants it never.
const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// In the working directory, where the other commands look for it.
const PROFILE: &str = "kiln.toml";
const KEYS: &str = "`listen`, `data`, `in_memory`, `sync`, `profile`, `advertise`, `metrics`, `stop_timeout`, `lease`";

/// A configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read the configuration {}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("{}, line {line}: {what}; a configuration has the keys {KEYS}", path.display())]
    Parse { path: PathBuf, line: usize, what: String },
    #[error("a lease of {lease:?}: {what}")]
    Lease { lease: Duration, what: String },
    #[error("{}: `{key}` is `{value}`: {what}", path.display())]
    Value { path: PathBuf, key: &'static str, value: String, what: String },
}

/// The file. Paths in it are relative to it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<String>,
    data: Option<PathBuf>,
    in_memory: Option<bool>,
    sync: Option<String>,
    profile: Option<PathBuf>,
    advertise: Option<String>,
    metrics: Option<String>,
    /// Seconds.
    stop_timeout: Option<f64>,
    /// Seconds.
    lease: Option<f64>,
}

/// Everything that `kiln serve` needs.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) options: Options,
    pub(super) metrics: Option<SocketAddr>,
    pub(super) stop_timeout: Duration,
}

/// `args` holds what flags and the environment say.
pub(super) fn settings(args: Args) -> Result<Settings, ConfigError> {
    let (path, file) = match args.config {
        Some(path) => {
            let text =
                std::fs::read_to_string(&path).map_err(|error| ConfigError::Read { path: path.clone(), error })?;
            let file = parse(&path, &text)?;
            (path, file)
        }
        None => (PathBuf::new(), File::default()),
    };
    let beside = |named: PathBuf| path.parent().unwrap_or_else(|| Path::new("")).join(named);
    let listen = or_file(args.listen, "listen", file.listen, &path)?;
    let mut options =
        Options::new(args.data.or_else(|| file.data.map(beside)).unwrap_or_else(|| PathBuf::from(DEFAULT_DIRECTORY)));
    options.listen = listen.unwrap_or(DEFAULT_ADDRESS);
    options.storage = storage(args.in_memory, args.sync, &file.in_memory, file.sync, &path)?;
    options.profile = Some(args.profile.or_else(|| file.profile.map(beside)).unwrap_or_else(|| PathBuf::from(PROFILE)));
    options.advertise = args.advertise.or(file.advertise);
    let stop_timeout = or_seconds(args.stop_timeout, "stop_timeout", file.stop_timeout, &path)?.unwrap_or(STOP_TIMEOUT);
    if let Some(lease) = or_seconds(args.lease, "lease", file.lease, &path)? {
        if !LEASES.contains(&lease) {
            let what = format!("a lease is from {:?} to {:?}", LEASES.start(), LEASES.end());
            return Err(ConfigError::Lease { lease, what });
        }
        options.tuning.lease = lease;
    }
    Ok(Settings { options, metrics: or_file(args.metrics, "metrics", file.metrics, &path)?, stop_timeout })
}

/// In memory where a flag says so, else as a flag says, else as the file says, else always synced.
fn storage(
    in_memory: bool,
    sync: Option<SyncPolicy>,
    file_in_memory: &Option<bool>,
    file_sync: Option<String>,
    path: &Path,
) -> Result<Storage, ConfigError> {
    if in_memory {
        return Ok(Storage::Memory);
    }
    if let Some(sync) = sync {
        return Ok(Storage::Disk(sync));
    }
    match (file_in_memory, file_sync) {
        (Some(true), Some(value)) => {
            let what = "what is kept in memory is never synced; leave one of `in_memory` and `sync` out".to_owned();
            Err(ConfigError::Value { path: path.to_owned(), key: "sync", value, what })
        }
        (Some(true), None) => Ok(Storage::Memory),
        (Some(false) | None, None) => Ok(Storage::Disk(SyncPolicy::Always)),
        (Some(false) | None, Some(value)) => self::sync(&value).map(Storage::Disk).map_err(|what| ConfigError::Value {
            path: path.to_owned(),
            key: "sync",
            value,
            what,
        }),
    }
}

/// Reads `always`, `interval:MS` or `never`.
pub(super) fn sync(text: &str) -> Result<SyncPolicy, String> {
    let policy = match text.split_once(':') {
        None if text == "always" => Some(SyncPolicy::Always),
        None if text == "never" => Some(SyncPolicy::Never),
        Some(("interval", ms)) => {
            let ms = ms.parse().ok().map(Duration::from_millis).filter(|interval| INTERVALS.contains(interval));
            ms.map(SyncPolicy::Interval)
        }
        _ => None,
    };
    policy.ok_or_else(|| "write `always`, `never`, or `interval:MS` with 1 to 60000 milliseconds".to_owned())
}

/// A time from a flag, else from the file.
fn or_seconds(
    flag: Option<Duration>,
    key: &'static str,
    value: Option<f64>,
    path: &Path,
) -> Result<Option<Duration>, ConfigError> {
    let (None, Some(seconds)) = (flag, value) else {
        return Ok(flag);
    };
    let value = seconds.to_string();
    crate::seconds(&value).map(Some).map_err(|what| ConfigError::Value { path: path.to_owned(), key, value, what })
}

/// An address from a flag, else from the file.
fn or_file(
    flag: Option<SocketAddr>,
    key: &'static str,
    value: Option<String>,
    path: &Path,
) -> Result<Option<SocketAddr>, ConfigError> {
    let (None, Some(value)) = (flag, value) else {
        return Ok(flag);
    };
    match value.parse() {
        Ok(address) => Ok(Some(address)),
        Err(_) => Err(ConfigError::Value {
            path: path.to_owned(),
            key,
            value,
            what: "not an address; write an IP address and a port, as in `127.0.0.1:4747`".into(),
        }),
    }
}

fn parse(path: &Path, text: &str) -> Result<File, ConfigError> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        ConfigError::Parse {
            path: path.to_owned(),
            line: text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1,
            what: error.message().to_owned(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    const ALL: &str = "listen = \"127.0.0.1:1\"\ndata = \"data\"\nprofile = \"p.toml\"\nadvertise = \"a.example\"\n\
                       metrics = \"127.0.0.1:2\"\nsync = \"interval:20\"\nstop_timeout = 0.5\nlease = 20\n";

    fn args() -> Args {
        Args {
            config: None,
            listen: None,
            data: None,
            in_memory: false,
            sync: None,
            profile: None,
            advertise: None,
            metrics: None,
            stop_timeout: None,
            lease: None,
        }
    }

    fn file(text: &str) -> (TempDir, Args) {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config.toml");
        std::fs::write(&config, text).unwrap();
        let args = Args { config: Some(config), ..args() };
        (directory, args)
    }

    fn complaint(text: &str) -> String {
        settings(file(text).1).unwrap_err().to_string()
    }

    #[test]
    fn without_anything_there_are_defaults() {
        let settings = settings(args()).unwrap();
        assert_eq!(settings.options.listen, DEFAULT_ADDRESS);
        assert_eq!(settings.options.directory, Path::new("kiln-data"));
        assert_eq!(settings.options.profile.as_deref(), Some(Path::new("kiln.toml")));
        assert_eq!((settings.metrics, settings.stop_timeout), (None, STOP_TIMEOUT));
        assert_eq!(settings.options.storage, Storage::Disk(SyncPolicy::Always));
    }

    #[test]
    fn the_file_goes_before_defaults() {
        let (directory, args) = file(ALL);
        let settings = settings(args).unwrap();
        assert_eq!(settings.options.listen.port(), 1);
        assert_eq!(settings.options.directory, directory.path().join("data"));
        assert_eq!(settings.options.profile, Some(directory.path().join("p.toml")));
        assert_eq!(settings.options.advertise.as_deref(), Some("a.example"));
        assert_eq!(settings.metrics.map(|address| address.port()), Some(2));
        assert_eq!(settings.stop_timeout, Duration::from_millis(500));
        assert_eq!(settings.options.storage, Storage::Disk(SyncPolicy::Interval(Duration::from_millis(20))));
        assert_eq!(settings.options.tuning.lease, Duration::from_secs(20));
    }

    #[test]
    fn flags_go_before_the_file() {
        let (_directory, mut args) = file(ALL);
        args.listen = Some("127.0.0.1:9".parse().unwrap());
        args.metrics = args.listen;
        args.data = Some("elsewhere".into());
        args.sync = Some(SyncPolicy::Never);
        args.profile = Some("elsewhere.toml".into());
        args.advertise = Some("b.example".into());
        args.stop_timeout = Some(Duration::from_secs(9));
        args.lease = Some(Duration::from_secs(8));
        let settings = settings(args).unwrap();
        assert_eq!(settings.options.listen.port(), 9);
        assert_eq!(settings.metrics.map(|address| address.port()), Some(9));
        assert_eq!(settings.options.directory, Path::new("elsewhere"));
        assert_eq!(settings.options.profile.as_deref(), Some(Path::new("elsewhere.toml")));
        assert_eq!(settings.options.advertise.as_deref(), Some("b.example"));
        assert_eq!(settings.stop_timeout, Duration::from_secs(9));
        assert_eq!(settings.options.storage, Storage::Disk(SyncPolicy::Never));
        assert_eq!(settings.options.tuning.lease, Duration::from_secs(8));
    }

    #[test]
    fn memory_is_asked_for() {
        let (_directory, args) = file("in_memory = true\n");
        assert_eq!(settings(args).unwrap().options.storage, Storage::Memory);
        let (_directory, mut args) = file(ALL);
        args.in_memory = true;
        assert_eq!(settings(args).unwrap().options.storage, Storage::Memory);
        let (_directory, mut args) = file("in_memory = true\n");
        args.sync = Some(SyncPolicy::Always);
        assert_eq!(settings(args).unwrap().options.storage, Storage::Disk(SyncPolicy::Always));
    }

    #[test]
    fn mistakes_are_named() {
        let unknown = complaint("data = \"x\"\nlisten_to = \"x\"\n");
        assert!(
            unknown.contains("config.toml, line 2") && unknown.contains("listen_to") && unknown.contains("`listen`"),
            "{unknown}"
        );
        let syntax = complaint("listen = \n");
        assert!(syntax.contains("line 1"), "{syntax}");
        let value = complaint("listen = \"here\"\n");
        assert!(value.contains("`listen` is `here`") && value.contains("127.0.0.1:4747"), "{value}");
        let time = complaint("stop_timeout = -1.0\n");
        assert!(time.contains("`stop_timeout` is `-1`"), "{time}");
        let sync = complaint("sync = \"interval:0\"\n");
        assert!(sync.contains("`sync` is `interval:0`") && sync.contains("1 to 60000"), "{sync}");
        let both = complaint("sync = \"never\"\nin_memory = true\n");
        assert!(both.contains("leave one of"), "{both}");
        let lease = complaint("lease = 0.5\n");
        assert!(lease.contains("a lease is from 1s to 600s"), "{lease}");
        let missing = settings(Args { config: Some("no/such.toml".into()), ..args() });
        assert!(missing.unwrap_err().to_string().contains("no/such.toml"));
    }
}
