//! What a database's file was when nobody had it open and it had no WAL.
//!
//! *Invariant*: two of these are equal only if nobody wrote to the file in between: the time of its last change, which nobody
//! can set, is part of it. A power failure may lose that time after the file was written, but then the WAL that it was written
//! from is still there: what it holds comes next, unless it was [restarted](crate::wal::reader::WalReader::was_restarted).
//!
//! Does not promise this after a power failure where the file system keeps times in memory for hours (`lazytime`): the scrub
//! that each start begins with finds what is missing.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where SQLite counts changes and pages in the file's header.
const COUNTERS: (u64, usize) = (24, 16);

/// A file at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rest {
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
    counters: [u8; COUNTERS.1],
}

impl Rest {
    /// The database's file as it is now.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn of(database: &File) -> std::io::Result<Self> {
        let file = database.metadata()?;
        let mut counters = [0; COUNTERS.1];
        database.read_exact_at(&mut counters, COUNTERS.0)?;
        Ok(Self {
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
            counters,
        })
    }

    /// Whether the file system seems to keep no fractions of a second.
    #[must_use]
    pub fn is_coarse(&self) -> bool {
        self.modified.1 == 0 && self.changed.1 == 0
    }

    /// When it was last written, since 1970.
    #[must_use]
    pub fn modified(&self) -> Duration {
        let (seconds, nanoseconds) = self.modified;
        let seconds = Duration::from_secs(seconds.try_into().unwrap_or(0));
        seconds + Duration::from_nanos(nanoseconds.try_into().unwrap_or(0))
    }
}
