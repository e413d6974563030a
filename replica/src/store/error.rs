//! What a store can answer, as kinds that callers act on.
//!
//! Messages name the object by its full key and end in a `HINT:` line where the operator can act.
//! They never hold a secret, a signature or a signed URL.

/// A store's refusal or failure, after its retries.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// 404: no such object. (A missing *bucket* is [`Self::Configuration`].)
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
    /// 501 (or `NotImplemented` with another status): the store does not know conditional writes.
    /// Nothing was written.
    #[error("{target}: the store does not know conditional writes (If-None-Match)")]
    Unguarded {
        /// The object, with its full key.
        target: String,
    },
    /// 401 or 403: the rights are missing.
    #[error("{target}: access denied ({action}: {reason})\nHINT: {}", denied_hint(action, reason))]
    Denied {
        /// The object, with its full key.
        target: String,
        /// What was tried, as the policy names it (`s3:PutObject`), or for files as a noun phrase.
        action: &'static str,
        /// The store's own word for it (`AccessDenied`).
        reason: String,
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
    /// A directory is not the one that was written to before: a disk is not mounted, or another one is.
    #[error(
        "{directory}: the replica's directory is not the one it was: it {found}\n\
         HINT: is the disk mounted? Nothing is written there until it is. If everything was moved here, write the mark \
         again: echo {id} > {mark}. If it was emptied on purpose: shipper reset DATABASE"
    )]
    Elsewhere {
        /// The replica's directory.
        directory: String,
        /// What became of its mark.
        found: &'static str,
        /// The file with the mark.
        mark: String,
        /// What it must hold.
        id: String,
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
    /// A read that starts beyond the object's end.
    #[error("{target}: no bytes at offset {start}, the object is shorter")]
    OutOfRange {
        /// The object.
        target: String,
        /// The first byte asked for.
        start: u64,
    },
    /// The object was replaced or removed while it was being read.
    #[error("{target}: changed while it was read, at offset {offset}")]
    Changed {
        /// The object.
        target: String,
        /// Bytes of the object delivered before.
        offset: u64,
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

    /// The store cannot keep an object from being overwritten.
    #[must_use]
    pub fn is_unguarded(&self) -> bool {
        matches!(self, Self::Unguarded { .. })
    }

    /// The rights are missing.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Denied { .. })
    }

    /// Trying again later cannot help without somebody's doing something.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        !matches!(self, Self::Unavailable { .. } | Self::Io { .. } | Self::Changed { .. })
    }
}

/// What to do about missing rights, by what was tried and how it was refused.
fn denied_hint(action: &str, reason: &str) -> &'static str {
    match (action, reason) {
        (_, "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken" | "ExpiredToken") => {
            "check the AWS credentials (environment, profile or role) and that they belong to this store"
        }
        ("s3:GetObject", _) => {
            "grant s3:GetObject (the restore policy); without s3:ListBucket a missing object is answered like this too"
        }
        ("s3:ListBucket", _) => "grant s3:ListBucket on this prefix (the restore policy)",
        ("s3:PutObject", _) => {
            "grant s3:PutObject on this prefix (the ship policy for LTX files and the heartbeat)"
        }
        (action, _) if action.starts_with("s3:") => {
            "compare this key's policy with the stack's outputs"
        }
        _ => "check the owner and mode of this path and of the directories above it",
    }
}
