//! Whether the files under the database's configured name are still those that we have open.
//!
//! Whoever moves another database over a live one, points a link or a mount on the way to it elsewhere, or removes its `-wal`
//! or `-shm`, leaves our connections with files that are no longer the application's: a checkpoint would then write old pages
//! into a new database. So this is asked right before every checkpoint, after every read before what was read counts, and
//! before anything is vouched for. A few `stat`s: some microseconds.
//!
//! *Invariant*: the database is asked for under the name that is configured, as the application opens it. `-wal` and `-shm`
//! lie beside the file that this name led to: SQLite follows links.
//!
//! Does not promise anything of a file that is replaced between the question and the checkpoint that follows at once.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

use crate::wal::attach::Attachable;
use crate::wal::reader::wal_path;

/// What makes a file the one that it is, for as long as somebody has it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl From<&Metadata> for FileId {
    fn from(file: &Metadata) -> Self {
        Self { device: file.dev(), inode: file.ino() }
    }
}

/// The database's file, its WAL and the WAL's index.
#[derive(Debug, Clone)]
pub struct Files {
    names: [PathBuf; 3],
    ids: [FileId; 3],
}

/// A name does not lead to the file that we have open, or it is not the only one.
#[derive(Debug, thiserror::Error)]
#[error("{path} {how}")]
pub struct Replaced {
    path: String,
    how: &'static str,
}

/// What no longer is as it was.
const REPLACED: &str = "was replaced or removed, or its path leads elsewhere by now";
const LINKED: &str = "has a second name by now: a hard link";
const MOUNTED: &str = "was mounted by itself";

impl Files {
    /// The files of the configured `database` as they are named now. SQLite has just opened what was found `attachable`.
    ///
    /// # Errors
    /// One of them is missing, or the database is another one.
    pub fn of(database: &Path, attachable: &Attachable) -> Result<Self, Replaced> {
        let real = &attachable.real;
        let names = [database.to_owned(), wal_path(real), shm_path(real)];
        let mut ids = [attachable.file; 3];
        for (name, id) in names.iter().zip(&mut ids).skip(1) {
            let file = std::fs::metadata(name).map_err(|_| replaced(name, REPLACED))?;
            *id = FileId::from(&file);
        }
        let files = Self { names, ids };
        files.check()?;
        Ok(files)
    }

    /// # Errors
    /// A name leads to another file, or to none; or the database was linked or mounted under another name, where its WAL is
    /// not ours.
    pub fn check(&self) -> Result<(), Replaced> {
        for (name, id) in self.names.iter().zip(self.ids) {
            let file = std::fs::metadata(name).ok();
            let Some(file) = file.filter(|file| FileId::from(file) == id) else {
                return Err(replaced(name, REPLACED));
            };
            if *name == self.names[0] && file.nlink() > 1 {
                return Err(replaced(name, LINKED));
            }
        }
        if is_mounted_alone(&self.names[0]) == Some(true) {
            return Err(replaced(&self.names[0], MOUNTED));
        }
        Ok(())
    }

    /// When the database's file was last written, and its size: it changes by a checkpoint, or behind SQLite's back.
    #[must_use]
    pub fn stamp(&self) -> Option<Stamp> {
        let file = std::fs::metadata(&self.names[0]).ok()?;
        Some(Stamp { seconds: file.mtime(), nanoseconds: file.mtime_nsec(), size: file.size() })
    }
}

/// See [`Files::stamp`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    seconds: i64,
    nanoseconds: i64,
    size: u64,
}

/// Whether this file, not a directory above it, is what was mounted. `None` where the system does not say (Linux before 5.8).
pub(super) fn is_mounted_alone(path: &Path) -> Option<bool> {
    let told = statx(CWD, path, AtFlags::empty(), StatxFlags::empty()).ok()?;
    told.stx_attributes_mask
        .contains(StatxAttributes::MOUNT_ROOT)
        .then(|| told.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn replaced(path: &Path, how: &'static str) -> Replaced {
    Replaced { path: path.display().to_string(), how }
}

/// The index of the WAL that belongs to a database.
pub(super) fn shm_path(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push("-shm");
    path.into()
}
