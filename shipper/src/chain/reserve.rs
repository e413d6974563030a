//! Room on the disk that is left to others: what waits for the bucket gives way before the application's commits fail.
//!
//! *Invariant*: beyond a small floor, nothing is put into the spool that would leave less free than the reserve. What is there
//! is merged in time, or given up; the frozen file alone may stand in the way of nobody, since it is not made then.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::chain::disk::{Disk, Space};

/// On a file system that the database is not on.
const OWN: Bounds = Bounds { least: 256 << 20, share: 20, most: 2 << 30, of_small: 8 };
/// On the database's.
const SHARED: Bounds = Bounds { least: 1 << 30, share: 10, most: 8 << 30, of_small: 4 };
/// What may always wait, and the share of a small disk that it is.
const FLOOR: (u64, u64) = (16 << 20, 32);

/// How much is left free: a share of the disk between `least` and `most`, and of a small disk one part in `of_small` at most.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    least: u64,
    share: u64,
    most: u64,
    of_small: u64,
}

impl Bounds {
    fn of(self, total: u64) -> u64 {
        (total / self.share).clamp(self.least, self.most).min(total / self.of_small)
    }
}

/// The reserve on the disk of one directory.
#[derive(Debug, Clone)]
pub struct Reserve {
    directory: PathBuf,
    disk: Arc<dyn Disk>,
    bounds: Bounds,
}

/// There is no room for more.
#[derive(Debug, thiserror::Error)]
#[error(
    "state_dir: {free} bytes are free, and {reserve} are left to others\n\
     HINT: make room for state_dir: it holds a compressed copy of the database, twice for a moment, until it is in the \
     bucket; best on a file system that the database is not on"
)]
pub struct NoRoom {
    /// Bytes free.
    pub free: u64,
    /// Bytes that stay free.
    pub reserve: u64,
}

impl Reserve {
    /// That of `directory`, which may be on the file system of the database.
    pub(super) fn new(directory: &Path, disk: Arc<dyn Disk>, shared: bool) -> Self {
        let bounds = if shared { SHARED } else { OWN };
        Self { directory: directory.to_owned(), disk, bounds }
    }

    /// Bytes that may be written now: down to the reserve, and the floor at least.
    ///
    /// # Errors
    /// The system's.
    pub fn headroom(&self) -> io::Result<u64> {
        let Space { free, total } = self.disk.space(&self.directory)?;
        Ok(free.saturating_sub(self.bounds.of(total)).max(floor(total)))
    }

    /// Whether so many bytes may be written for a moment, in place of as many.
    ///
    /// # Errors
    /// [`NoRoom`], and the system's.
    pub fn check_merge(&self, bytes: u64) -> anyhow::Result<()> {
        let Space { free, total } = self.disk.space(&self.directory)?;
        let reserve = self.bounds.of(total);
        if bytes > floor(total) && free.saturating_sub(reserve / 2) < bytes {
            return Err(NoRoom { free, reserve }.into());
        }
        Ok(())
    }

    /// Whether `held` bytes may be in the spool.
    ///
    /// # Errors
    /// [`NoRoom`], and the system's.
    pub fn check(&self, held: u64) -> anyhow::Result<()> {
        let Space { free, total } = self.disk.space(&self.directory)?;
        let reserve = self.bounds.of(total);
        if held > floor(total) && free < reserve {
            return Err(NoRoom { free, reserve }.into());
        }
        Ok(())
    }
}

fn floor(total: u64) -> u64 {
    FLOOR.0.min(total / FLOOR.1)
}

/// Whether an error says that the disk is full, or as full as it may be.
#[must_use]
pub fn is_out_of_room(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<NoRoom>()
            || cause.downcast_ref::<io::Error>().is_some_and(|error| {
                matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_a_bounded_share() {
        const MB: u64 = 1 << 20;
        for (total, own, shared) in [
            (30 * MB, 30 * MB / 8, 30 * MB / 4),
            (2000 * MB, 250 * MB, 500 * MB),
            (20_000 * MB, 1000 * MB, 2000 * MB),
            (10_000_000 * MB, 2048 * MB, 8192 * MB),
        ] {
            assert_eq!((OWN.of(total), SHARED.of(total)), (own, shared), "{total}");
        }
    }
}
