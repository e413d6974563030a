//! The `DATABASE` argument: a configured name, or a URL that needs no configuration.

use std::str::FromStr;
use std::sync::Arc;

use crate::operator::usage;
use crate::store::{Root, RootUrl, S3Options, Store};

/// What an operator typed for a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseArg {
    /// A name below the configured replica.
    Name(String),
    /// A URL of its own: the server is gone, and so is its configuration.
    Url(RootUrl),
}

impl FromStr for DatabaseArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            return text.parse().map(Self::Url).map_err(|error| format!("{error}"));
        }
        if text.is_empty() || text.contains('/') {
            return Err(format!(
                "{text:?} is neither a configured name nor a URL (s3://bucket/prefix/name or file:///dir/name)"
            ));
        }
        Ok(Self::Name(text.to_owned()))
    }
}

impl DatabaseArg {
    /// Opens the database's store. `configured` gives the replica that a [`DatabaseArg::Name`] stands
    /// below (it is not called for a URL); `given` are options from the command line, which win.
    ///
    /// # Errors
    /// No configuration for a name, or one that cannot work.
    pub async fn open(
        &self,
        configured: impl FnOnce() -> anyhow::Result<(RootUrl, S3Options)>,
        given: &S3Options,
    ) -> anyhow::Result<Arc<dyn Store>> {
        match self {
            Self::Name(name) => {
                let (url, options) = configured()?;
                let root = Root::open(&url, &overlay(&options, given)).await?;
                let store = root.database(name);
                Ok(store
                    .map_err(|error| anyhow::Error::from(error).context(usage("open database")))?)
            }
            Self::Url(url) => Ok(Root::open(url, given).await?.as_database()),
        }
    }
}

fn overlay(base: &S3Options, over: &S3Options) -> S3Options {
    S3Options {
        endpoint: over.endpoint.clone().or_else(|| base.endpoint.clone()),
        region: over.region.clone().or_else(|| base.region.clone()),
        force_path_style: over.force_path_style.or(base.force_path_style),
        checksum: over.checksum.or(base.checksum),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_and_paths_are_told_apart() {
        assert_eq!("app".parse(), Ok(DatabaseArg::Name("app".into())));
        for wrong in ["", "/srv/app.db", "a/b"] {
            assert!(wrong.parse::<DatabaseArg>().unwrap_err().contains("neither"), "{wrong:?}");
        }
    }
}
