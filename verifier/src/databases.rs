//! Which databases: those named as arguments, else those configured, else all below the replica's URL.
//!
//! "All" are those listed and those that ever were: the ledger remembers them, so that a database whose
//! objects are all gone is not passed over in silence. One that was retired is asked for until the
//! remaining ones are configured by name.

use std::collections::BTreeSet;
use std::sync::Arc;

use replica::operator::DatabaseArg;
use replica::store::{Root, S3Options, Store, StoreError};

use crate::config::Config;
use crate::ledger::{Ledger, Place, normalized};
use crate::words::in_words;

/// One database.
#[derive(Debug, Clone)]
pub struct Database {
    /// Its name: the last part of its URL.
    pub name: String,
    /// Where it is.
    pub store: Arc<dyn Store>,
}

impl Database {
    /// What the ledger keys its rows by.
    #[must_use]
    pub fn place(&self) -> Place {
        Place::new(&self.store.url(), &self.name)
    }
}

/// The databases, or why they cannot be told.
#[derive(Debug)]
pub enum Databases {
    /// These, in order; never empty.
    Found(Vec<Database>),
    /// The replica's URL lists nothing, or cannot be listed.
    Unlisted {
        /// The URL.
        url: String,
        /// The store's failure; `None`: it is empty.
        error: Option<StoreError>,
    },
}

/// Finds the databases. Options that are `given` win over configured ones.
///
/// # Errors
/// A configuration that cannot work. That nothing is there is no error.
pub async fn databases(
    config: &Config,
    arguments: &[DatabaseArg],
    given: &S3Options,
    ledger: &dyn Ledger,
) -> anyhow::Result<Databases> {
    let mut found = Vec::new();
    if !arguments.is_empty() {
        for argument in arguments {
            let configured = || Ok((config.replica_url()?, config.s3_options()));
            let store = argument.open(configured, &options_for(argument, config, given)).await?;
            let name = match argument {
                DatabaseArg::Name(name) => name.clone(),
                DatabaseArg::Url(_) => last_part(&store.url()),
            };
            found.push(Database { name, store });
        }
        return Ok(Databases::Found(found));
    }
    let root = Root::open(&config.replica_url()?, &config.s3_options()).await?;
    let url = config.replica.url.clone().unwrap_or_default();
    let names = if config.replica.databases.is_empty() {
        match root.databases().await {
            Ok(listed) => with_known(&root, listed, ledger).await?,
            Err(error @ StoreError::Configuration { .. }) => return Err(error.into()),
            Err(error) => return Ok(Databases::Unlisted { url, error: Some(error) }),
        }
    } else {
        config.replica.databases.clone()
    };
    for name in names {
        let store = root.database(&name)?;
        found.push(Database { name, store });
    }
    Ok(if found.is_empty() {
        Databases::Unlisted { url, error: None }
    } else {
        Databases::Found(found)
    })
}

/// The names listed and those of databases that were listed before, in order. Without the ledger
/// these are the listed ones: who needs it finds out by himself.
async fn with_known(
    root: &Root,
    listed: Vec<String>,
    ledger: &dyn Ledger,
) -> Result<Vec<String>, StoreError> {
    let known = match ledger.known_databases().await {
        Ok(known) => known,
        Err(error) => {
            tracing::error!(error = in_words(error), "databases that are gone cannot be told");
            return Ok(listed);
        }
    };
    let mut new = Vec::new();
    for name in &listed {
        let url = root.database(name)?.url();
        if !known.contains(&url) {
            new.push(url);
        }
    }
    if !new.is_empty()
        && let Err(error) = ledger.remember_databases(&new).await
    {
        tracing::error!(error = in_words(error), "new databases were not written down");
    }
    let mut names: BTreeSet<String> = listed.into_iter().collect();
    for url in &known {
        let name = last_part(url);
        // The ledger may know databases of other replicas.
        let ours = root.database(&name).is_ok_and(|store| store.url() == normalized(url));
        if ours && names.insert(name) {
            tracing::warn!(
                url,
                "was listed before and is no more\nHINT: if it was retired, name the remaining ones in [replica] databases"
            );
        }
    }
    Ok(names.into_iter().collect())
}

/// A URL of its own uses the configured endpoint too, where there is one and nothing else was given.
fn options_for(argument: &DatabaseArg, config: &Config, given: &S3Options) -> S3Options {
    match argument {
        DatabaseArg::Name(_) => given.clone(),
        DatabaseArg::Url(_) => S3Options {
            endpoint: given.endpoint.clone().or_else(|| config.replica.endpoint.clone()),
            region: given.region.clone().or_else(|| config.replica.region.clone()),
            force_path_style: given.force_path_style.or(config.replica.force_path_style),
            checksum: given.checksum.or(config.replica.checksum),
        },
    }
}

fn last_part(url: &str) -> String {
    url.trim_end_matches('/').rsplit('/').next().unwrap_or(url).to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::ledger::SqliteLedger;

    async fn names(
        root: &std::path::Path,
        configured: &[&str],
        ledger: &dyn Ledger,
    ) -> Vec<String> {
        let mut config = Config::default();
        config.replica.url = Some(format!("file://{}", root.display()));
        config.replica.databases = configured.iter().map(|name| (*name).to_owned()).collect();
        match databases(&config, &[], &S3Options::default(), ledger).await.unwrap() {
            Databases::Found(found) => found.into_iter().map(|database| database.name).collect(),
            Databases::Unlisted { error, .. } => {
                assert!(error.is_none(), "{error:?}");
                Vec::new()
            }
        }
    }

    #[tokio::test]
    async fn a_database_that_is_gone_is_still_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(&directory.path().join("ledger.db")).unwrap();
        let (ours, other) = (directory.path().join("ours"), directory.path().join("other"));
        for name in ["app", "web"] {
            std::fs::create_dir_all(ours.join(name)).unwrap();
        }
        std::fs::create_dir_all(&other).unwrap();
        assert_eq!(names(&ours, &[], &ledger).await, ["app", "web"]);
        std::fs::remove_dir(ours.join("app")).unwrap();
        std::fs::create_dir(ours.join("new")).unwrap();
        assert_eq!(names(&ours, &[], &ledger).await, ["app", "new", "web"]);
        assert_eq!(names(&ours, &["web"], &ledger).await, ["web"], "the explicit list wins");
        std::fs::remove_dir_all(&ours).unwrap();
        std::fs::create_dir(&ours).unwrap();
        assert_eq!(names(&ours, &[], &ledger).await, ["app", "new", "web"], "all are gone");
        assert!(names(&other, &[], &ledger).await.is_empty(), "another replica's are not ours");
    }
}
