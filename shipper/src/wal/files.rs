//! Whether the files under the database's names are still those that we have open.
//!
//! Whoever moves another database over a live one, or removes its `-wal` or `-shm`, leaves our connections with files that
//! are no longer the application's: a checkpoint would then write old pages into a new database. So this is asked right
//! before every checkpoint, and after every read before what was read counts. Three `stat`s: some microseconds.
//!
//! Does not promise anything of a file that is replaced between the question and the checkpoint that follows at once.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::wal::attach::Attachable;
use crate::wal::reader::wal_path;

/// The database's file, its WAL and the WAL's index.
#[derive(Debug, Clone)]
pub struct Files {
    names: [PathBuf; 3],
    inodes: [u64; 3],
}

/// A file is not the one that we have open.
#[derive(Debug, thiserror::Error)]
#[error("{path} was replaced or removed")]
pub struct Replaced {
    path: String,
}

impl Files {
    /// The files as they are named now, which SQLite has just opened; the database is still `attachable`.
    ///
    /// # Errors
    /// One of them is missing, or the database is another one.
    pub fn of(database: &Path, attachable: &Attachable) -> Result<Self, Replaced> {
        let names = [database.to_owned(), wal_path(database), shm_path(database)];
        let mut inodes = [attachable.inode, 0, 0];
        for (name, inode) in names.iter().zip(&mut inodes).skip(1) {
            *inode = inode_of(name).ok_or_else(|| replaced(name))?;
        }
        let files = Self { names, inodes };
        files.check()?;
        Ok(files)
    }

    /// # Errors
    /// A name leads to another file, or to none.
    pub fn check(&self) -> Result<(), Replaced> {
        for (name, inode) in self.names.iter().zip(self.inodes) {
            if inode_of(name) != Some(inode) {
                return Err(replaced(name));
            }
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

fn inode_of(path: &Path) -> Option<u64> {
    std::fs::metadata(path).map(|file| file.ino()).ok()
}

fn replaced(path: &Path) -> Replaced {
    Replaced { path: path.display().to_string() }
}

fn shm_path(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push("-shm");
    path.into()
}
