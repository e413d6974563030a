//! Which databases: those named as arguments, else those configured, else all below the replica's URL.

use std::sync::Arc;

use replica::operator::DatabaseArg;
use replica::store::{Root, S3Options, Store, StoreError};

use crate::config::Config;

/// One database.
#[derive(Debug, Clone)]
pub struct Database {
    /// Its name: the last part of its URL.
    pub name: String,
    /// Where it is.
    pub store: Arc<dyn Store>,
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
            Ok(names) => names,
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

/// A URL of its own uses the configured endpoint too, where there is one and nothing else was given.
fn options_for(argument: &DatabaseArg, config: &Config, given: &S3Options) -> S3Options {
    match argument {
        DatabaseArg::Name(_) => given.clone(),
        DatabaseArg::Url(_) => S3Options {
            endpoint: given.endpoint.clone().or_else(|| config.replica.endpoint.clone()),
            region: given.region.clone().or_else(|| config.replica.region.clone()),
            force_path_style: given.force_path_style.or(config.replica.force_path_style),
        },
    }
}

fn last_part(url: &str) -> String {
    url.trim_end_matches('/').rsplit('/').next().unwrap_or(url).to_owned()
}
