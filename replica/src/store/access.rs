//! Who asks, and how patiently: what a caller may decide that no configuration file holds.

use std::fmt;

use crate::store::RetryPolicy;

/// Credentials and patience of a store's client.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Where the credentials come from.
    pub credentials: Credentials,
    /// How failures are retried.
    pub retry: RetryPolicy,
}

/// Where an S3 client's credentials come from.
#[derive(Clone, Default)]
pub enum Credentials {
    /// The AWS way: environment, profile, container or instance role.
    #[default]
    Environment,
    /// A key that the caller holds.
    Key {
        /// The access key's id.
        id: String,
        /// Its secret.
        secret: String,
    },
}

impl fmt::Debug for Credentials {
    /// Never the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("Environment"),
            Self::Key { id, .. } => f.debug_struct("Key").field("id", id).finish_non_exhaustive(),
        }
    }
}
