//! Who else has the database open, as SQLite's own locks tell.
//!
//! Every connection in WAL mode holds a shared lock on the database's file for as long as it is open, and one on the index
//! (`-shm`) of the WAL that it uses. So who has the former and not the latter uses another WAL than the one beside the file:
//! the file alone was mounted or linked elsewhere. The system tells of these locks whatever name, mount or container they
//! were taken through.
//!
//! *Invariant*: an [`Openers`] outlives every connection of this process to its files, since closing a descriptor drops the
//! process's locks on the file.
//!
//! Does not promise to see somebody on another machine, nor one who has opened the database and read nothing yet.

use std::fs::File;
use std::path::PathBuf;

use rustix::process::{Flock, FlockOffsetType, FlockType, fcntl_getlk};

use crate::wal::attach::Attachable;
use crate::wal::files::{FileId, shm_path};

/// Where SQLite's shared locks on a database lie (`SHARED_FIRST`, `SHARED_SIZE` in `os.h`).
const SHARED: (u64, u64) = (0x4000_0002, 510);
/// The byte of the index that every user of it has locked (`UNIX_SHM_DMS` in `os_unix.c`).
const INDEX_IN_USE: (u64, u64) = (128, 1);
/// Replaced files that are kept in mind.
const MOST_LEFT: usize = 8;

/// The files of an attached database, asked who else has them open.
#[derive(Debug)]
pub struct Openers {
    database: Left,
    index: File,
}

/// A database's file that may have been replaced by now.
#[derive(Debug)]
pub struct Left {
    file: File,
    id: FileId,
    path: PathBuf,
}

impl Openers {
    /// Those of the database, whose `-shm` is there.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn of(attachable: &Attachable) -> std::io::Result<Self> {
        let file = File::open(&attachable.real)?;
        let id = FileId::from(&file.metadata()?);
        let index = File::open(shm_path(&attachable.real))?;
        Ok(Self { database: Left { file, id, path: attachable.real.clone() }, index })
    }

    /// Whether anybody else has the database open.
    #[must_use]
    pub fn any(&self) -> bool {
        self.database.is_open()
    }

    /// Whether somebody else has the database open, and nobody else the WAL beside it.
    #[must_use]
    pub fn elsewhere(&self) -> bool {
        self.any() && !is_locked(&self.index, INDEX_IN_USE)
    }

    /// The database's file.
    #[must_use]
    pub fn database(&self) -> &File {
        &self.database.file
    }

    /// The database's file, once no connection to it is left.
    #[must_use]
    pub fn leave(self) -> Left {
        self.database
    }
}

impl Left {
    fn is_open(&self) -> bool {
        is_locked(&self.file, SHARED)
    }
}

/// Files that a database had before, and that somebody may still commit into.
#[derive(Debug, Default)]
pub struct LeftBehind(Vec<Left>);

impl LeftBehind {
    /// Adds one.
    pub fn add(&mut self, left: Left) {
        self.0.push(left);
        let superfluous = self.0.len().saturating_sub(MOST_LEFT);
        self.0.drain(..superfluous);
    }

    /// Forgets the file that is to be attached: nobody has left it. No connection to it may be open.
    pub fn take_up(&mut self, file: FileId) {
        self.0.retain(|left| left.id != file);
    }

    /// Why nothing can be vouched for, although the database is `now` another file: somebody still has one of these open.
    /// Those that nobody has are forgotten.
    pub fn reason(&mut self, now: Option<FileId>) -> Option<String> {
        self.0.retain(Left::is_open);
        let left = self.0.iter().find(|left| Some(left.id) != now)?;
        Some(format!(
            "{} was replaced while an application still has the old file open: what it commits there is lost\n\
             HINT: restart the application (all of its processes), so that it opens the file that is there now",
            left.path.display()
        ))
    }
}

/// Whether another process has locked any of these bytes. Where the system cannot say, nobody has.
fn is_locked(file: &File, (start, length): (u64, u64)) -> bool {
    let lock = Flock {
        start,
        length,
        pid: None,
        typ: FlockType::WriteLock,
        offset_type: FlockOffsetType::Set,
    };
    fcntl_getlk(file, &lock).is_ok_and(|held| held.is_some())
}
