//! What a store can answer, as kinds that callers act on.

/// A store's refusal or failure, after its retries.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// 404: no such object (or bucket).
    #[error("{target}: not found")]
    NotFound {
        /// The object, with its full key.
        target: String,
    },
    /// 412 or 409: another object is there.
    #[error("{target}: exists already with other content")]
    Precondition {
        /// The object, with its full key.
        target: String,
    },
    /// 401 or 403: the rights are missing.
    #[error("{target}: access denied ({action})")]
    Denied {
        /// The object, with its full key.
        target: String,
        /// What was tried, as the policy names it (`s3:PutObject`).
        action: &'static str,
    },
    /// The configuration cannot work (bad URL, no region, no credentials, wrong bucket name).
    #[error("{message}")]
    Configuration {
        /// What is wrong, ending in a `HINT:` line where the operator can act.
        message: String,
    },
    /// The store cannot be reached, or kept failing through every retry.
    #[error("{target}: {action} failed after {attempts} attempts")]
    Unavailable {
        /// The object, with its full key.
        target: String,
        /// What was tried.
        action: &'static str,
        /// How often.
        attempts: u32,
        /// The last failure.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Local input or output failed (the file backend, or the file of an upload).
    #[error("{path}: {action}")]
    Io {
        /// The path.
        path: String,
        /// What was tried, as a noun phrase (`create directory`).
        action: &'static str,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// An object above the bound of its kind.
    #[error("{target}: {size} bytes, more than the {limit} allowed")]
    TooLarge {
        /// The object.
        target: String,
        /// Its size, bytes.
        size: u64,
        /// The bound, bytes.
        limit: u64,
    },
}

impl StoreError {
    /// Nothing is there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Something else is there.
    #[must_use]
    pub fn is_precondition(&self) -> bool {
        matches!(self, Self::Precondition { .. })
    }

    /// The rights are missing.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Denied { .. })
    }

    /// Trying again later cannot help without somebody's doing something.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        !matches!(self, Self::Unavailable { .. } | Self::Io { .. })
    }
}
