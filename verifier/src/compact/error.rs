//! Why a window or a snapshot was not made, told apart as a drill does: the backup, or what is around it.

use std::io;

use replica::format::{EncodeError, FormatError, MergeError};
use replica::restore::RestoreError;
use replica::store::StoreError;

/// What kept one object from being made. Nothing was written then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompactError {
    /// An input is not what it must be.
    #[error("{object}: damaged")]
    Damaged {
        /// The input, with its full key.
        object: String,
        /// What is wrong, with offset, expected and actual.
        #[source]
        source: FormatError,
    },
    /// Inputs that are valid by themselves do not make one file.
    #[error("{object}: not one chain")]
    Broken {
        /// The input at fault, or the first and the last one.
        object: String,
        /// What is wrong.
        #[source]
        source: MergeError,
    },
    /// An input is not what its chain says, or does not go on from the file before the window.
    #[error(transparent)]
    Doubtful(RestoreError),
    /// A proven copy cannot be written down as the snapshot that it should be.
    #[error("{object}: proven copy is not what it was")]
    Copy {
        /// The snapshot that was to be made.
        object: String,
        /// What is wrong.
        #[source]
        source: EncodeError,
    },
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The temporary directory failed (no room, no right).
    #[error("{action} in the temporary directory\nHINT: {}", hint(source))]
    Io {
        /// What was tried, as a noun phrase.
        action: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

fn hint(source: &io::Error) -> &'static str {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    match source.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => {
            "room for a copy of the database and 64 MB more is needed (TMPDIR; in Lambda the ephemeral storage)"
        }
        _ => "check the owner and mode of the temporary directory (TMPDIR)",
    }
}

impl From<RestoreError> for CompactError {
    fn from(error: RestoreError) -> Self {
        match error {
            RestoreError::Store(error) => Self::Store(error),
            error => Self::Doubtful(error),
        }
    }
}

impl CompactError {
    /// Something is wrong with the backup itself.
    #[must_use]
    pub fn is_replica_fault(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::Broken { .. } => true,
            Self::Doubtful(error) => error.is_replica_fault(),
            _ => false,
        }
    }

    /// An error of the local file system.
    pub(super) fn io(action: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { action, source }
    }
}
