//! `/etc/seaworthy/shipper.toml`, checked and made plain.
//!
//! Everything that can be refused is refused here, before anything is opened: unknown keys, names
//! that cannot be keys, two databases with one name. Whether a database can be attached is not
//! looked at: one broken database never stops the others.

mod databases;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use replica::operator::{FriendlyDuration, load, usage};
use replica::store::{RootUrl, S3Options, UploadChecksum};
use serde::{Deserialize, Deserializer};

pub use databases::{DatabaseConfig, MAX_DATABASES, Match, Patterns};

/// Where state is kept unless configured (or told by the service manager) otherwise.
const DEFAULT_STATE_DIR: &str = "/var/lib/seaworthy";
/// Name of the control socket in its directory.
pub const SOCKET_NAME: &str = "shipper.sock";
/// What `sockaddr_un` holds, less its NUL, bytes.
const SOCKET_PATH_MAX: usize = 107;

/// The checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the shipper keeps what it must not forget.
    pub state_dir: PathBuf,
    /// Where the databases go.
    pub replica: ReplicaConfig,
    /// Where the control socket goes, unless the usual places will do.
    pub runtime_dir: Option<PathBuf>,
    /// What is shipped.
    pub databases: Patterns,
    /// How often a proof of life is written.
    pub heartbeat: HeartbeatConfig,
}

/// Where the databases go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaConfig {
    /// The parent of every database.
    pub url: RootUrl,
    /// How to reach it.
    pub options: S3Options,
}

/// How often `heartbeat.json` is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartbeatConfig {
    /// While anything changed.
    pub every: Duration,
    /// While nothing did.
    pub idle_every: Duration,
}

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    state_dir: Option<PathBuf>,
    runtime_dir: Option<PathBuf>,
    replica: ReplicaSection,
    #[serde(default)]
    database: Vec<databases::Section>,
    #[serde(default)]
    heartbeat: HeartbeatSection,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplicaSection {
    #[serde(deserialize_with = "root_url")]
    url: RootUrl,
    endpoint: Option<String>,
    region: Option<String>,
    force_path_style: Option<bool>,
    checksum: Option<UploadChecksum>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeartbeatSection {
    every: Option<FriendlyDuration>,
    idle_every: Option<FriendlyDuration>,
}

fn root_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RootUrl, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

impl Config {
    /// Reads and checks a configuration. What its globs match is not looked at: that is refused one by one.
    ///
    /// # Errors
    /// Anything that is wrong with it, as [`replica::operator::Usage`].
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let file: File = load(Some(path), None)?;
        let wrong = || usage(format!("configuration {}", path.display()));
        let databases = Patterns::new(file.database).with_context(wrong)?;
        databases::check(&databases.literal()).with_context(wrong)?;
        let heartbeat = heartbeat(&file.heartbeat).with_context(wrong)?;
        Ok(Self {
            state_dir: state_dir(file.state_dir)?,
            runtime_dir: file.runtime_dir.map(|path| runtime_dir(&path)).transpose()?,
            replica: replica(file.replica),
            databases,
            heartbeat,
        })
    }
}

/// Reads only where the state is kept, which is where a running shipper is found: its databases may be out of the
/// caller's sight.
///
/// # Errors
/// Anything that is wrong with the file, as [`replica::operator::Usage`].
pub fn load_state_dir(path: &Path) -> anyhow::Result<PathBuf> {
    let file: File = load(Some(path), None)?;
    state_dir(file.state_dir)
}

impl ReplicaConfig {
    /// Reads only where the databases go: a restore must work when the databases themselves, which
    /// [`Config::load`] looks for, are gone.
    ///
    /// # Errors
    /// Anything that is wrong with the file, as [`replica::operator::Usage`].
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let file: File = load(Some(path), None)?;
        Ok(replica(file.replica))
    }
}

fn replica(section: ReplicaSection) -> ReplicaConfig {
    ReplicaConfig {
        url: section.url,
        options: S3Options {
            endpoint: section.endpoint,
            region: section.region,
            force_path_style: section.force_path_style,
            checksum: section.checksum,
        },
    }
}

/// As configured, if a socket's path in it is not too long.
fn runtime_dir(path: &Path) -> anyhow::Result<PathBuf> {
    let path = std::path::absolute(path)
        .with_context(|| usage(format!("runtime_dir {}", path.display())))?;
    if !fits_socket(&path) {
        return Err(usage(format!(
            "runtime_dir {}: too long for a socket in it\nHINT: choose a path of at most {} bytes",
            path.display(),
            SOCKET_PATH_MAX - SOCKET_NAME.len() - 1,
        ))
        .into());
    }
    Ok(path)
}

/// Whether the system takes the path of a socket in this directory.
#[must_use]
pub fn fits_socket(directory: &Path) -> bool {
    directory.join(SOCKET_NAME).as_os_str().len() <= SOCKET_PATH_MAX
}

/// As configured, else as systemd's `StateDirectory=` says (the first of its list), else the default.
fn state_dir(configured: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let told = || {
        let list = std::env::var_os("STATE_DIRECTORY")?;
        std::env::split_paths(&list).next().filter(|path| !path.as_os_str().is_empty())
    };
    let path = configured.or_else(told).unwrap_or_else(|| PathBuf::from(DEFAULT_STATE_DIR));
    std::path::absolute(&path).with_context(|| usage(format!("state_dir {}", path.display())))
}

fn heartbeat(section: &HeartbeatSection) -> anyhow::Result<HeartbeatConfig> {
    let every = section.every.map_or(Duration::from_secs(60), FriendlyDuration::get);
    let idle_every = section.idle_every.map_or(Duration::from_secs(300), FriendlyDuration::get);
    bounded("heartbeat.every", every, Duration::from_secs(1), Duration::from_secs(3600))?;
    bounded("heartbeat.idle_every", idle_every, every, Duration::from_secs(86_400))?;
    Ok(HeartbeatConfig { every, idle_every })
}

/// Refuses a duration out of `min..=max`.
fn bounded(key: &str, value: Duration, min: Duration, max: Duration) -> anyhow::Result<()> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(usage(format!("{key} = {value:?}: must be between {min:?} and {max:?}")).into())
}
