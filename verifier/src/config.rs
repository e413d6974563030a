//! `verifier.toml`, or the same keys from the environment (`SEAWORTHY_REPLICA__URL`).
//!
//! Every key has a default, since a URL as argument needs no configuration. An empty value counts as absent: a
//! template sets every variable of a Lambda, also those that nobody filled in.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use replica::operator::{FriendlyDuration, load, usage};
use replica::store::{RootUrl, S3Options, UploadChecksum};
use serde::{Deserialize, Deserializer};

/// What the variables begin with.
const ENV_PREFIX: &str = "SEAWORTHY_";

/// The configuration.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the databases are.
    pub replica: ReplicaConfig,
    /// Where drills are recorded.
    pub ledger: LedgerConfig,
    /// Who is mailed.
    pub alert: AlertConfig,
    /// When a database counts as stale.
    pub stale: StaleConfig,
    /// How long a drill may take.
    pub drill: DrillConfig,
    /// How `compact` works.
    pub compaction: CompactionConfig,
}

/// `[replica]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReplicaConfig {
    /// `s3://bucket/prefix` or `file:///dir`: every database under it …
    #[serde(deserialize_with = "text")]
    pub url: Option<String>,
    /// … or only these.
    #[serde(deserialize_with = "list")]
    pub databases: Vec<String>,
    /// Base URL of an S3-compatible store.
    #[serde(deserialize_with = "text")]
    pub endpoint: Option<String>,
    /// Region, else the AWS defaults.
    #[serde(deserialize_with = "text")]
    pub region: Option<String>,
    /// Bucket in the path instead of the host name.
    pub force_path_style: Option<bool>,
    /// What the store verifies an upload with: `md5`, or `none` for stores that refuse the header.
    pub checksum: Option<UploadChecksum>,
}

/// `[ledger]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LedgerConfig {
    /// `dynamodb://table` or `sqlite:///path`.
    #[serde(deserialize_with = "text")]
    pub url: Option<String>,
}

/// `[alert]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AlertConfig {
    /// The sender, verified in SES.
    #[serde(deserialize_with = "text")]
    pub from: Option<String>,
    /// The recipients; none: the log and the exit code.
    #[serde(deserialize_with = "list")]
    pub to: Vec<String>,
    /// How often an alarm that goes on is mailed again.
    pub remind_every: FriendlyDuration,
}

impl Default for AlertConfig {
    fn default() -> Self {
        Self { from: None, to: Vec::new(), remind_every: Duration::from_secs(24 * 3600).into() }
    }
}

/// `[stale]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StaleConfig {
    /// Stuck or dead for longer than this.
    pub after: FriendlyDuration,
    /// No PASS for longer than this.
    pub proof_after: FriendlyDuration,
}

impl Default for StaleConfig {
    fn default() -> Self {
        Self {
            after: Duration::from_secs(15 * 60).into(),
            proof_after: Duration::from_secs(8 * 24 * 3600).into(),
        }
    }
}

/// `[drill]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DrillConfig {
    /// How long `drill` may take for all databases together, where nothing else ends it (in Lambda, the
    /// function's timeout does), and a drill of `compact` and `sabotage`.
    pub deadline: FriendlyDuration,
}

impl Default for DrillConfig {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(6 * 3600).into() }
    }
}

/// `[compaction]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompactionConfig {
    /// How old the newest snapshot may be, as long as something was shipped after it.
    pub snapshot_every: FriendlyDuration,
}

impl Default for CompactionConfig {
    fn default() -> Self {
        Self { snapshot_every: Duration::from_secs(24 * 3600).into() }
    }
}

impl Config {
    /// Reads the file (if any) and the environment over it.
    ///
    /// # Errors
    /// A usage error that names the key.
    pub fn load(file: Option<&Path>) -> anyhow::Result<Self> {
        let config: Self = load(file, Some(ENV_PREFIX))?;
        if config.alert.from.is_none() && !config.alert.to.is_empty() {
            return Err(usage(
                "alert.from: missing beside alert.to\nHINT: a sender address that is verified in SES",
            )
            .into());
        }
        Ok(config)
    }

    /// The parent of the databases.
    ///
    /// # Errors
    /// None is configured, or no URL.
    pub fn replica_url(&self) -> anyhow::Result<RootUrl> {
        let url = self.replica.url.as_ref().ok_or_else(|| {
            usage(
                "replica.url: not configured\nHINT: name the file with --config, set SEAWORTHY_REPLICA__URL, \
                 or give databases as URLs",
            )
        })?;
        url.parse().with_context(|| usage("replica.url"))
    }

    /// How to reach the databases' store.
    #[must_use]
    pub fn s3_options(&self) -> S3Options {
        S3Options {
            endpoint: self.replica.endpoint.clone(),
            region: self.replica.region.clone(),
            force_path_style: self.replica.force_path_style,
            checksum: self.replica.checksum,
        }
    }

    /// The ledger's URL; without one, a file of this user, except in a Lambda, whose disk forgets.
    ///
    /// # Errors
    /// None is configured in a Lambda.
    pub fn ledger_url(&self) -> anyhow::Result<String> {
        if let Some(url) = &self.ledger.url {
            return Ok(url.clone());
        }
        if std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_some() {
            return Err(usage(
                "ledger.url: not configured\nHINT: set SEAWORTHY_LEDGER__URL to dynamodb://table",
            )
            .into());
        }
        Ok(format!("sqlite://{}", default_ledger(|name| std::env::var_os(name)).display()))
    }
}

/// Where systemd or the user keeps state.
fn default_ledger(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> PathBuf {
    let set = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let directory = set("STATE_DIRECTORY")
        .or_else(|| set("XDG_STATE_HOME").map(|state| state.join("seaworthy")))
        .or_else(|| set("HOME").map(|home| home.join(".local/state/seaworthy")))
        .unwrap_or_else(|| PathBuf::from("/var/lib/seaworthy"));
    directory.join("ledger.db")
}

/// A text, an empty one being none.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Option::<String>::deserialize(deserializer)
        .map(|text| text.filter(|text| !text.trim().is_empty()))
}

/// A list, or one text with commas.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Words;
    impl<'de> serde::de::Visitor<'de> for Words {
        type Value = Vec<String>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list of strings, or one string with commas")
        }
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(text
                .split(',')
                .map(str::trim)
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect())
        }
        fn visit_seq<A: serde::de::SeqAccess<'de>>(
            self,
            mut items: A,
        ) -> Result<Self::Value, A::Error> {
            let mut words = Vec::new();
            while let Some(word) = items.next_element()? {
                words.push(word);
            }
            Ok(words)
        }
    }
    deserializer.deserialize_any(Words)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn of(text: &str) -> Result<Config, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("verifier.toml");
        std::fs::write(&path, text).unwrap();
        let named = |error: anyhow::Error| {
            let text = replica::operator::explain(&error);
            text.replace(&path.display().to_string(), "verifier.toml")
        };
        load(Some(&path), None).map_err(named)
    }

    #[test]
    fn the_published_example_is_read() {
        let config = of(r#"
            [replica]
            url = "s3://acme-backups/web-1"
            databases = ["app"]
            [ledger]
            url = "dynamodb://seaworthy"
            [alert]
            from = "backups@acme.example"
            to = ["ops@acme.example"]
            remind_every = "24h"
            [stale]
            after = "15m"
            proof_after = "8d"
            [compaction]
            snapshot_every = "24h"
        "#)
        .unwrap();
        assert_eq!(config.replica.url.as_deref(), Some("s3://acme-backups/web-1"));
        assert_eq!(config.replica.databases, ["app"]);
        assert_eq!(config.alert.to, ["ops@acme.example"]);
        assert_eq!(config.stale, StaleConfig::default(), "the example shows the defaults");
        assert_eq!(config.compaction, CompactionConfig::default());
        assert_eq!(config.alert.remind_every, AlertConfig::default().remind_every);
    }

    #[test]
    fn lists_may_be_one_text_and_empty_is_absent() {
        let config =
            of("[alert]\nto = \"a@x, b@x,\"\nfrom = \"\"\n[replica]\nendpoint = \" \"\n").unwrap();
        assert_eq!(config.alert.to, ["a@x", "b@x"]);
        assert_eq!((config.alert.from, config.replica.endpoint), (None, None));
        assert!(of("[alert]\nto = \"\"\n").unwrap().alert.to.is_empty());
    }

    #[test]
    fn a_wrong_key_names_the_nearest() {
        let error = of("[stale]\nproof_afer = \"8d\"\n").unwrap_err();
        assert_eq!(
            error,
            "error: verifier.toml:2: unknown key stale.proof_afer\nHINT: did you mean proof_after?"
        );
        let error = of("[retention]\nkeep = \"7d\"\n").unwrap_err();
        assert!(error.contains("unknown key retention"), "nothing deletes yet: {error}");
        let error = of("[stale]\nafter = \"soon\"\n").unwrap_err();
        assert!(error.contains("stale.after: not a duration: \"soon\""), "{error}");
    }

    #[test]
    fn the_default_ledger_follows_the_surroundings() {
        let with = |known: &'static [(&str, &str)]| {
            default_ledger(move |name| {
                known.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into())
            })
        };
        assert_eq!(with(&[]), Path::new("/var/lib/seaworthy/ledger.db"));
        assert_eq!(
            with(&[("HOME", "/home/u")]),
            Path::new("/home/u/.local/state/seaworthy/ledger.db")
        );
        assert_eq!(
            with(&[("XDG_STATE_HOME", "/x"), ("HOME", "/home/u")]),
            Path::new("/x/seaworthy/ledger.db")
        );
        assert_eq!(
            with(&[("STATE_DIRECTORY", "/s"), ("XDG_STATE_HOME", "/x")]),
            Path::new("/s/ledger.db")
        );
    }
}
