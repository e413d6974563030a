//! Why a restore cannot be planned or carried out.

use crate::format::wal::WalError;
use crate::format::{Checksum, FormatError, FrameError, PageNumber, Txid};
use crate::store::{Chain, StoreError};

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
    /// An object of a v0.3 replica is not a whole LZ4 frame.
    #[error("{object}: damaged")]
    DamagedFrame {
        /// The object, with its full key.
        object: String,
        /// What is wrong, with offset, expected and actual.
        #[source]
        source: FrameError,
    },
    /// The content of an object of a v0.3 replica is not what a WAL must be.
    #[error("{object}: damaged")]
    DamagedWal {
        /// The object, with its full key.
        object: String,
        /// What is wrong with which frame of the WAL.
        #[source]
        source: WalError,
    },
    /// Encrypted by whoever wrote it: what is in it can neither be restored nor judged here.
    #[error(
        "{object}: encrypted with age, by Litestream v0.3\nHINT: restore it with Litestream v0.3 and its age identity; only the copy can then be checked"
    )]
    Encrypted {
        /// The object, with its full key.
        object: String,
    },
    /// An object is valid by itself, but not in its chain.
    #[error("{object}: {what}: expected {expected}, actual {actual}")]
    Conflict {
        /// The object, with its full key.
        object: String,
        /// What does not fit.
        what: &'static str,
        /// What the rest of the chain (or the listing) says.
        expected: String,
        /// What the object says.
        actual: String,
    },
    /// Every object was valid, and yet pages of the database are in none of them.
    #[error(
        "{object}: the database at TXID {txid} has {pages} pages, and {missing} of them are in no file; the first is page {first}"
    )]
    Incomplete {
        /// The newest object of the plan, which says how many pages there are.
        object: String,
        /// The state that was to be restored.
        txid: Txid,
        /// Pages it has.
        pages: u32,
        /// Pages not found.
        missing: u32,
        /// The first of them.
        first: PageNumber,
    },
    /// The copy is not the database that was shipped.
    #[error(
        "{object}: database checksum after TXID {txid}: expected {expected}, the restored copy has {actual}"
    )]
    DatabaseChecksum {
        /// The object that promises the checksum.
        object: String,
        /// The state that was restored.
        txid: Txid,
        /// What the object promises.
        expected: Checksum,
        /// What the pages written add up to.
        actual: String,
    },
    /// The chain is missing, has a gap, or never reaches the point asked for.
    #[error("{message}")]
    Chain {
        /// What is missing, where.
        message: String,
    },
    /// A file that the point needs is at fault, and no other way leads to it.
    #[error(transparent)]
    NoOtherWay(Box<NoOtherWay>),
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
    /// The file system (or a limit or quota on it) has no room for the copy.
    #[error(
        "no room for the restored database: {needed} bytes needed{}\nHINT: free space, or restore into a path on another file system",
        available.map(|bytes| format!(", {bytes} available")).unwrap_or_default()
    )]
    NoSpace {
        /// Size of the restored database, bytes.
        needed: u64,
        /// Bytes free, where they were known before the first write.
        available: Option<u64>,
    },
    /// Somebody has the output open: what they commit after it was replaced would be lost.
    #[error(
        "{path}: in use by {by}\nHINT: stop the application, and the shipper for it (systemctl stop seaworthy-shipper), then repeat; or choose another --output"
    )]
    InUse {
        /// The path.
        path: String,
        /// Who has it open.
        by: String,
    },
    /// The output exists and was not to be replaced.
    #[error("{path}: exists already\nHINT: choose another --output, or add --force to replace it")]
    OutputExists {
        /// The path.
        path: String,
    },
}

/// A point that cannot be had, and what can.
#[derive(Debug, thiserror::Error)]
#[error("{source}\nHINT: {}", self.hint())]
pub struct NoOtherWay {
    /// What stands in the way.
    pub source: RestoreError,
    /// Where.
    pub url: String,
    /// In which chain.
    pub chain: Chain,
    /// The newest point before it that needs none of the files at fault (or the first after it).
    pub instead: Option<Txid>,
    /// Every point that needs none of them, ascending.
    pub left: Vec<Txid>,
}

impl NoOtherWay {
    fn hint(&self) -> String {
        let Self { url, chain, instead, .. } = self;
        let generation = match chain {
            Chain::Root => String::new(),
            Chain::Generation(id) => format!(" --generation {id}"),
        };
        match instead {
            Some(txid) => format!(
                "no other way leads to this point; the newest that can be had without that file: shipper restore {url} --txid {txid}{generation} --output FILE"
            ),
            None => format!(
                "nothing of generation {chain} can be had without that file; look for another one: shipper points {url}"
            ),
        }
    }
}

impl RestoreError {
    /// What is wrong, without what can be had instead.
    #[must_use]
    pub fn cause(&self) -> &Self {
        match self {
            Self::NoOtherWay(stuck) => stuck.source.cause(),
            error => error,
        }
    }

    /// The replica itself is at fault: a drill's FAIL. Anything else is of the surroundings (INCONCLUSIVE).
    #[must_use]
    pub fn is_replica_fault(&self) -> bool {
        matches!(
            self.cause(),
            Self::Damaged { .. }
                | Self::DamagedFrame { .. }
                | Self::DamagedWal { .. }
                | Self::Conflict { .. }
                | Self::Incomplete { .. }
                | Self::DatabaseChecksum { .. }
                | Self::Chain { .. }
        )
    }
}
