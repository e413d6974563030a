//! From a URL to stores: `s3://bucket/prefix` or `file:///dir`.

use std::sync::Arc;

use crate::store::{Store, StoreError};

/// A parsed `s3://bucket/prefix` or `file:///dir`. Never an empty prefix on S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootUrl {
    /// A prefix in a bucket.
    S3 {
        /// The bucket's name.
        bucket: String,
        /// The prefix, without slashes at its ends, not empty.
        prefix: String,
    },
    /// A directory.
    File {
        /// Absolute path.
        path: std::path::PathBuf,
    },
}

impl std::str::FromStr for RootUrl {
    type Err = StoreError;
    fn from_str(_text: &str) -> Result<Self, StoreError> {
        todo!()
    }
}

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
}

/// What `[replica] url` names: the parent of every database's [`Store`].
#[derive(Debug, Clone)]
pub struct Root {}

impl Root {
    /// Prepares access; nothing is requested yet.
    ///
    /// # Errors
    /// A configuration that cannot work.
    pub async fn open(_url: &RootUrl, _options: &S3Options) -> Result<Self, StoreError> {
        todo!()
    }

    /// The store of one database below this root.
    ///
    /// # Errors
    /// A name that is empty or holds anything but letters, digits, `.`, `-`, `_` (or starts with `.`).
    pub fn database(&self, _name: &str) -> Result<Arc<dyn Store>, StoreError> {
        todo!()
    }

    /// This URL as a database's own store (`shipper restore s3://bucket/prefix/name`).
    #[must_use]
    pub fn as_database(&self) -> Arc<dyn Store> {
        todo!()
    }

    /// Names of the databases below this root, ascending.
    ///
    /// # Errors
    /// Those of a listing.
    pub async fn databases(&self) -> Result<Vec<String>, StoreError> {
        todo!()
    }
}
