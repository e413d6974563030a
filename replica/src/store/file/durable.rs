//! Files that appear whole and stay: temporary file, sync, rename, sync of the directory.
//!
//! The file is synced before the rename, else a crash could show the name over missing bytes; the
//! directory after it, else the name itself could be lost after success was reported; each new
//! directory's parent too, for the same reason one level up.
//!
//! A replica is as secret as its database: what is created here is open to its owner alone, whatever the umask.
//! What root writes belongs to the directory's owner, so that a drill as root does not lock the shipper out.

use std::fs::{self, DirBuilder, File, FileTimes};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, fchown};
use std::path::Path;
use std::time::SystemTime;

use jiff::Timestamp;
use tempfile::NamedTempFile;

use crate::store::{Body, StoreError};

use super::failure;

/// No object's name starts like this.
const TEMPORARY_PREFIX: &str = ".tmp-";
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// Writes a file that must not exist yet; `false` where one does (nothing was changed then).
pub(super) fn write_new(path: &Path, body: &Body, modified: Timestamp) -> Result<bool, StoreError> {
    let dir = parent(path)?;
    let mut file = temporary(dir)?;
    copy(body, &mut file, path)?;
    file.as_file()
        .set_times(FileTimes::new().set_modified(SystemTime::from(modified)))
        .map_err(|source| failure(path, "set modification time", source))?;
    file.as_file().sync_all().map_err(|source| failure(path, "sync file", source))?;
    match file.persist_noclobber(path) {
        Ok(_) => {}
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(failure(path, "rename file", error.error)),
    }
    sync_dir(dir)?;
    Ok(true)
}

/// Writes a file, or replaces it, in one step.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let dir = parent(path)?;
    let mut file = temporary(dir)?;
    file.write_all(content).map_err(|source| failure(path, "write file", source))?;
    file.as_file().sync_all().map_err(|source| failure(path, "sync file", source))?;
    file.persist(path).map_err(|error| failure(path, "rename file", error.error))?;
    sync_dir(dir)
}

fn parent(path: &Path) -> Result<&Path, StoreError> {
    path.parent()
        .ok_or_else(|| failure(path, "find parent directory", io::ErrorKind::InvalidInput.into()))
}

/// A temporary file in `dir` (created where missing), removed again unless it is renamed.
fn temporary(dir: &Path) -> Result<NamedTempFile, StoreError> {
    create_dirs(dir)?;
    let file = tempfile::Builder::new()
        .prefix(TEMPORARY_PREFIX)
        .permissions(fs::Permissions::from_mode(FILE_MODE))
        .tempfile_in(dir)
        .map_err(|source| writing(dir, "create temporary file", source))?;
    if let Some((user, group)) = owner_to_give(dir) {
        // A file system that keeps owners to itself is no reason not to write.
        let _ = fchown(file.as_file(), Some(user), Some(group));
    }
    Ok(file)
}

/// The owner of `dir`, where that is another user than root and root asks.
fn owner_to_give(dir: &Path) -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let dir = fs::metadata(dir).ok()?;
    (dir.uid() != 0).then(|| (dir.uid(), dir.gid()))
}

fn copy(body: &Body, target: &mut NamedTempFile, path: &Path) -> Result<(), StoreError> {
    let fail = |source| failure(path, "write file", source);
    match body {
        Body::Bytes(bytes) => target.write_all(bytes).map_err(fail),
        Body::File { path: from, len } => {
            let source = File::open(from).map_err(|source| writing(from, "open file", source))?;
            let copied = io::copy(&mut source.take(*len), target.as_file_mut()).map_err(fail)?;
            if copied == *len {
                return Ok(());
            }
            let message = format!("{copied} bytes, expected {len}");
            Err(failure(from, "read file", io::Error::new(io::ErrorKind::UnexpectedEof, message)))
        }
    }
}

/// Creates a directory and those above it, durably.
fn create_dirs(dir: &Path) -> Result<(), StoreError> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(above) = dir.parent() {
        create_dirs(above)?;
    }
    match DirBuilder::new().mode(DIRECTORY_MODE).create(dir) {
        Ok(()) => {
            if let Some((user, group)) = dir.parent().and_then(owner_to_give) {
                let _ = chown(dir, Some(user), Some(group));
            }
        }
        // Somebody else was faster; what is there may still be a file.
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
        Err(source) => return Err(writing(dir, "create directory", source)),
    }
    dir.parent().map_or(Ok(()), sync_dir)
}

fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|source| failure(dir, "sync directory", source))
}

/// As [`failure`], where what is missing is not the object: a directory or an upload's source.
fn writing(path: &Path, action: &'static str, source: io::Error) -> StoreError {
    if source.kind() == io::ErrorKind::NotFound {
        return StoreError::Io { path: path.display().to_string(), action, source };
    }
    failure(path, action, source)
}
