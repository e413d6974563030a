//! Why a restore cannot be planned or carried out.

use crate::format::FormatError;
use crate::store::StoreError;

/// Why there is no restored copy. Corruption is told apart from the surroundings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// One object is not what it must be.
    #[error("{object}: damaged")]
    Damaged {
        /// The object, with its full key.
        object: String,
        /// What is wrong, with offset, expected and actual.
        #[source]
        source: FormatError,
    },
    /// The chain is missing, has a gap, or never reaches the point asked for.
    #[error("{message}")]
    Chain {
        /// What is missing, where.
        message: String,
    },
    /// Local input or output failed (no space, no right).
    #[error("{path}: {action}")]
    Io {
        /// The path.
        path: String,
        /// What was tried, as a noun phrase.
        action: &'static str,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The output exists and was not to be replaced.
    #[error("{path}: exists already\nHINT: choose another --output, or add --force to replace it")]
    OutputExists {
        /// The path.
        path: String,
    },
}

impl RestoreError {
    /// The replica itself is at fault: a drill's FAIL. Anything else is of the surroundings (INCONCLUSIVE).
    #[must_use]
    pub fn is_replica_fault(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Chain { .. })
    }
}
