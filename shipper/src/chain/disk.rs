//! Everything that changes what this machine keeps passes here, and what must survive a power failure is forced here.
//!
//! A process that dies loses nothing that it wrote; a machine that loses power keeps of each file what was forced, or
//! anything in between. Little is forced, since the bucket tells what was lost (see [`crate::chain`]).

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::path::Path;

/// A change that is about to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A file that others rely on is written in place.
    Write,
    /// A whole file gets its name.
    Rename,
    /// A file is removed.
    Remove,
}

/// Room on a file system, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What this user may still write.
    pub free: u64,
    /// All there is.
    pub total: u64,
}

/// Forces files to the disk; injected so that tests know what a power failure may take, and where a process may die.
pub trait Disk: Send + Sync + Debug {
    /// Told before each change; an error is returned as if the change had failed.
    ///
    /// # Errors
    /// Only in tests.
    fn before(&self, _change: Change, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Forces the content (and size) of `file`, which stands at `path`.
    ///
    /// # Errors
    /// The system's: what the file holds is then unknown.
    fn sync(&self, file: &File, path: &Path) -> io::Result<()>;

    /// Forces the names in a directory.
    ///
    /// # Errors
    /// The system's.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// Room on the file system of `path`.
    ///
    /// # Errors
    /// The system's.
    fn space(&self, path: &Path) -> io::Result<Space> {
        let found = rustix::fs::statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Ok(Space { free: bytes(found.f_bavail), total: bytes(found.f_blocks) })
    }

    /// Removes a file that nothing needs any more. One that stays behind costs space until the next start.
    fn remove(&self, path: &Path) {
        let removed = self.before(Change::Remove, path).and_then(|()| std::fs::remove_file(path));
        if let Err(error) = removed {
            tracing::debug!(path = %path.display(), %error, "remove file");
        }
    }

    /// Gives a whole file its name.
    ///
    /// # Errors
    /// The system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.before(Change::Rename, to)?;
        std::fs::rename(from, to)
    }
}

/// The machine's disk.
#[derive(Debug, Clone, Copy)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn sync(&self, file: &File, _path: &Path) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}
