//! The private directory of a drill: mode 0700, gone when the guard drops.
//!
//! The guard also drops when the drill panics or its deadline passes. Only a killed process leaves its
//! directory; each directory is locked (`flock`) while its owner lives, so that a later drill can sweep what nobody
//! owns any more and never what another drill is using.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use replica::restore::RestoreError;
use rustix::fs::{FlockOperation, flock};

/// What a directory in use is called; it has this name only once it is locked.
const PREFIX: &str = "seaworthy-drill-";
/// What it is called until then.
const PREFIX_UNLOCKED: &str = "seaworthy-new-";
/// Leftovers looked at in one sweep.
const SWEPT_AT_MOST: usize = 1000;

/// The directory.
#[derive(Debug)]
pub struct Workspace {
    path: PathBuf,
    _lock: File,
}

impl Workspace {
    /// Makes a directory below `temporary`.
    ///
    /// # Errors
    /// The file system's.
    pub fn create(temporary: &Path) -> Result<Self, RestoreError> {
        let fail = |source: io::Error| failed(temporary, "create private directory", source);
        let directory = tempfile::Builder::new()
            .prefix(PREFIX_UNLOCKED)
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(temporary)
            .map_err(fail)?;
        let lock = File::open(directory.path()).map_err(fail)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| fail(error.into()))?;
        let name = directory.path().file_name().unwrap_or_default().to_string_lossy();
        let path = temporary.join(name.replacen(PREFIX_UNLOCKED, PREFIX, 1));
        fs::rename(directory.path(), &path).map_err(fail)?;
        // From here on this guard removes it, under its new name.
        let workspace = Self { path, _lock: lock };
        let _ = directory.keep();
        Ok(workspace)
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the copy stands.
    #[must_use]
    pub fn copy(&self) -> PathBuf {
        self.path.join("copy.db")
    }

    /// Creates the empty file of the copy, for this user only.
    ///
    /// # Errors
    /// The file system's.
    pub fn create_copy(&self) -> Result<File, RestoreError> {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.copy();
        File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| failed(&path, "create restored copy", source))
    }

    /// Removes what killed drills left below `temporary`; what cannot be removed is left with a warning.
    pub fn sweep(temporary: &Path) {
        let Ok(entries) = fs::read_dir(temporary) else { return };
        let leftovers = entries.filter_map(Result::ok).filter(|entry| {
            entry.file_name().to_string_lossy().starts_with(PREFIX)
                && entry.metadata().is_ok_and(|metadata| is_own_directory(&metadata))
        });
        for leftover in leftovers.take(SWEPT_AT_MOST) {
            let path = leftover.path();
            let Ok(lock) = File::open(&path) else { continue };
            if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
                continue;
            }
            match fs::remove_dir_all(&path) {
                Ok(()) => {
                    tracing::info!(path = %path.display(), "removed the copy of a killed drill")
                }
                Err(error) => tracing::warn!(path = %path.display(), %error, "leftover copy stays"),
            }
        }
    }
}

/// `DirEntry::metadata` does not follow links, so that a link is never taken for a directory.
fn is_own_directory(metadata: &fs::Metadata) -> bool {
    metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw()
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::error!(path = %self.path.display(), %error, "restored copy could not be removed");
        }
    }
}

fn failed(path: &Path, action: &'static str, source: io::Error) -> RestoreError {
    RestoreError::Io { path: path.display().to_string(), action, source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn it_is_private_and_gone_after_a_panic() {
        let temporary = tempfile::tempdir().unwrap();
        let below = temporary.path().to_owned();
        let outcome = std::panic::catch_unwind(|| {
            let workspace = Workspace::create(&below).unwrap();
            workspace.create_copy().unwrap();
            assert_eq!(fs::metadata(&workspace.path).unwrap().mode() & 0o777, 0o700);
            assert_eq!(fs::metadata(workspace.copy()).unwrap().mode() & 0o777, 0o600);
            assert_eq!(names(&below).len(), 1);
            std::panic::panic_any("as a failing check would");
        });
        assert!(outcome.is_err());
        assert!(names(temporary.path()).is_empty());
    }

    #[test]
    fn a_sweep_takes_what_nobody_owns_and_nothing_else() {
        let temporary = tempfile::tempdir().unwrap();
        let used = Workspace::create(temporary.path()).unwrap();
        fs::create_dir_all(temporary.path().join("seaworthy-drill-killed/x")).unwrap();
        fs::create_dir(temporary.path().join("other")).unwrap();
        std::os::unix::fs::symlink("other", temporary.path().join("seaworthy-drill-link")).unwrap();
        Workspace::sweep(temporary.path());
        let mut left = names(temporary.path());
        left.sort();
        let own = used.path.file_name().unwrap().to_string_lossy().into_owned();
        let mut expected = vec!["other".to_owned(), "seaworthy-drill-link".to_owned(), own];
        expected.sort();
        assert_eq!(left, expected);
    }
}
