//! From a URL to stores: one root, one client, a store per database.
//!
//! Invariant: all databases of a root share one S3 client (its connections, its credentials).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::format::GenerationId;
use crate::store::key::{FILE_LEVELS_DIR, level_of_s3_dir};
use crate::store::s3::Client;
use crate::store::v03::GENERATIONS_DIR;
use crate::store::{Access, FileStore, RootUrl, S3Store, Store, StoreError, file};

/// How to reach S3 where the AWS defaults are not enough.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Options {
    /// Base URL of an S3-compatible store.
    pub endpoint: Option<String>,
    /// Region; else the AWS defaults.
    pub region: Option<String>,
    /// `https://host/bucket/key` instead of `https://bucket.host/key`; on by default with `endpoint`.
    pub force_path_style: Option<bool>,
    /// What the store verifies an upload with; [`UploadChecksum::Md5`] where nothing is said.
    pub checksum: Option<UploadChecksum>,
}

/// What goes with an upload, so that the store verifies what it received.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UploadChecksum {
    /// `Content-MD5`: a changed byte is refused. Buckets with Object Lock take nothing without one.
    #[default]
    Md5,
    /// Nothing, for stores that refuse the header.
    None,
}

/// What `[replica] url` names: the parent of every database's [`Store`].
#[derive(Debug, Clone)]
pub struct Root {
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    S3 { client: Client, prefix: String },
    File { dir: PathBuf, mark: Option<Arc<file::Mark>> },
}

impl Root {
    /// Prepares access with the credentials of the AWS environment; nothing is requested yet.
    ///
    /// # Errors
    /// A configuration that cannot work.
    pub async fn open(url: &RootUrl, options: &S3Options) -> Result<Self, StoreError> {
        Self::open_with(url, options, Access::default()).await
    }

    /// Prepares access with credentials or a retry policy of the caller's.
    ///
    /// # Errors
    /// A configuration that cannot work.
    pub async fn open_with(
        url: &RootUrl,
        options: &S3Options,
        access: Access,
    ) -> Result<Self, StoreError> {
        let place = match url {
            RootUrl::S3 { bucket, prefix } => Place::S3 {
                client: Client::connect(bucket, options, access).await?,
                prefix: prefix.clone(),
            },
            RootUrl::File { path } => Place::File { dir: path.clone(), mark: None },
        };
        Ok(Self { place })
    }

    /// For a writer with state of its own: a directory is marked at the first write, and the mark remembered in the file
    /// `memory`; from then on nothing is written to one without it (a disk that is not mounted). Elsewhere, nothing.
    #[must_use]
    pub fn remembered_in(self, memory: &Path) -> Self {
        let place = match self.place {
            Place::File { dir, .. } => {
                let mark = Arc::new(file::Mark::new(dir.clone(), memory.to_owned()));
                Place::File { dir, mark: Some(mark) }
            }
            place @ Place::S3 { .. } => place,
        };
        Self { place }
    }

    /// The store of one database below this root.
    ///
    /// # Errors
    /// A name that is empty or holds anything but letters, digits, `.`, `-`, `_` (or starts with
    /// `.`), or one that is the name of a part of a replica (a UUID, `0000`, `ltx`, `generations`).
    pub fn database(&self, name: &str) -> Result<Arc<dyn Store>, StoreError> {
        if !Self::takes_name(name) {
            let message = format!(
                "database name {name:?} cannot be used\nHINT: use letters, digits, '.', '-' and '_', not \
                 starting with '.', and no name that a replica uses itself (a UUID, 0000 to 0009, ltx, \
                 generations)"
            );
            return Err(StoreError::Configuration { message });
        }
        Ok(match &self.place {
            Place::S3 { client, prefix } => {
                Arc::new(S3Store::new(client.clone(), format!("{prefix}/{name}")))
            }
            Place::File { dir, mark } => {
                Arc::new(FileStore::new(dir.join(name)).marked(mark.clone()))
            }
        })
    }

    /// Whether a database can have this name; see [`Root::database`].
    #[must_use]
    pub fn takes_name(name: &str) -> bool {
        is_database_name(name)
    }

    /// Whether it is a directory: then its stores bound by themselves how much is asked of it at once.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        matches!(self.place, Place::File { .. })
    }

    /// This URL as a database's own store (`shipper restore s3://bucket/prefix/name`).
    #[must_use]
    pub fn as_database(&self) -> Arc<dyn Store> {
        match &self.place {
            Place::S3 { client, prefix } => Arc::new(S3Store::new(client.clone(), prefix.clone())),
            Place::File { dir, .. } => Arc::new(FileStore::new(dir.clone())),
        }
    }

    /// Names of the databases below this root, ascending. Names that no database can have are left
    /// out (see [`Root::database`]).
    ///
    /// # Errors
    /// Those of a listing.
    pub async fn databases(&self) -> Result<Vec<String>, StoreError> {
        let mut names = match &self.place {
            Place::S3 { client, prefix } => client.directories(prefix).await?,
            Place::File { dir, .. } => file::directories(dir.clone()).await?,
        };
        names.retain(|name| is_database_name(name));
        names.sort_unstable();
        Ok(names)
    }
}

/// A replica's own directories are no databases: `databases()` on a URL that *is* a database must
/// not offer its generations, and a database of such a name could then never be listed.
fn is_database_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let ours = name.parse::<GenerationId>().is_ok()
        || level_of_s3_dir(name).is_some()
        || matches!(name, FILE_LEVELS_DIR | GENERATIONS_DIR);
    !name.is_empty() && !name.starts_with('.') && name.chars().all(allowed) && !ours
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn database_names() {
        for name in ["app", "web-1", "App_2.db", "0", "00000", "x.tmp"] {
            assert!(is_database_name(name), "{name}");
        }
        let uuid = "01938c5e-7a00-7000-8000-000000000001";
        for name in [
            "",
            ".",
            "..",
            ".hidden",
            "a/b",
            "a b",
            "ä",
            "a\n",
            uuid,
            "0000",
            "0009",
            "ltx",
            "generations",
        ] {
            assert!(!is_database_name(name), "{name}");
        }
    }
}
