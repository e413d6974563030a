//! Makes a restored file appear whole or not at all.
//!
//! The copy is made in a temporary file beside the output (`.<name>.restoring-…`), synced and renamed. Dropping the
//! future removes the temporary file; only a kill or a power loss leaves it, and the output is then
//! still what it was.
//!
//! SQLite would replay a `-wal` or `-journal` that another database left behind into the restored
//! one: with `force` they are removed, durably, *before* the rename.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Gid, Uid};
use tempfile::NamedTempFile;

use crate::restore::{Plan, Progress, RestoreError, Restored, apply};
use crate::store::Store;

/// What SQLite keeps beside a database, and would believe.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];
/// Mode of a restored file that replaces none.
const MODE: u32 = 0o600;

/// Restores into a temporary file in `output`'s directory, syncs it, renames it, syncs the directory.
/// Refuses an existing `output`, `output-wal` or `output-shm` unless `force` (which then replaces the
/// one and removes the others). The restored file has mode 0600, or the mode and owner of the one that it replaces.
///
/// # Errors
/// Those of [`crate::restore::apply()`], and of the file system. Nothing is left behind.
pub async fn publish(
    store: Arc<dyn Store>,
    plan: &Plan,
    output: &Path,
    force: bool,
    progress: Arc<dyn Progress>,
) -> Result<Restored, RestoreError> {
    let place = Place::of(output)?;
    if !force {
        place.refuse_existing()?;
    }
    let replaced = place.replaced()?;
    let temporary = place.temporary()?;
    let file = temporary
        .as_file()
        .try_clone()
        .map_err(|source| io_error(temporary.path(), "open temporary file", source))?;
    let restored = apply(store, plan, file, progress).await?;
    if let Some(replaced) = replaced {
        take_over(&temporary, &replaced, output)?;
    }
    if force {
        place.remove_companions()?;
        let renamed = temporary.persist(&place.output);
        renamed.map_err(|error| io_error(output, "rename restored file", error.error))?;
    } else {
        // Somebody may have been quicker since the check above.
        temporary.persist_noclobber(&place.output).map_err(|error| match error.error.kind() {
            io::ErrorKind::AlreadyExists => exists(output),
            _ => io_error(output, "rename restored file", error.error),
        })?;
    }
    place.sync_directory()?;
    Ok(restored)
}

/// Where the output goes.
struct Place {
    output: PathBuf,
    directory: PathBuf,
    name: OsString,
}

impl Place {
    fn of(output: &Path) -> Result<Self, RestoreError> {
        let invalid = |what: &str| {
            io_error(output, "use as output", io::Error::new(io::ErrorKind::InvalidInput, what))
        };
        let name = output.file_name().ok_or_else(|| invalid("not the name of a file"))?.to_owned();
        let directory = match output.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        match fs::symlink_metadata(output) {
            Ok(metadata) if metadata.is_dir() => Err(invalid("a directory")),
            Ok(metadata) if metadata.is_symlink() => {
                // Replacing the link would leave the database that it names in place.
                Err(invalid("a symbolic link; name the file itself"))
            }
            _ => Ok(Self { output: output.to_owned(), directory, name }),
        }
    }

    fn companion(&self, end: &str) -> PathBuf {
        let mut name = self.name.clone();
        name.push(end);
        self.directory.join(name)
    }

    fn refuse_existing(&self) -> Result<(), RestoreError> {
        let companions = COMPANIONS.iter().map(|end| self.companion(end));
        match std::iter::once(self.output.clone()).chain(companions).find(|path| is_there(path)) {
            Some(path) => Err(exists(&path)),
            None => Ok(()),
        }
    }

    fn replaced(&self) -> Result<Option<Metadata>, RestoreError> {
        match fs::metadata(&self.output) {
            Ok(metadata) => Ok(Some(metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(io_error(&self.output, "read file metadata", source)),
        }
    }

    fn temporary(&self) -> Result<NamedTempFile, RestoreError> {
        let mut prefix = OsString::from(".");
        prefix.push(&self.name);
        prefix.push(".restoring-");
        tempfile::Builder::new()
            .prefix(&prefix)
            .permissions(Permissions::from_mode(MODE))
            .tempfile_in(&self.directory)
            .map_err(|source| io_error(&self.directory, "create temporary file", source))
    }

    fn remove_companions(&self) -> Result<(), RestoreError> {
        let mut removed = false;
        for path in COMPANIONS.iter().map(|end| self.companion(end)) {
            match fs::remove_file(&path) {
                Ok(()) => removed = true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(io_error(&path, "remove leftover file", source)),
            }
        }
        if removed { self.sync_directory() } else { Ok(()) }
    }

    fn sync_directory(&self) -> Result<(), RestoreError> {
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|source| io_error(&self.directory, "sync directory", source))
    }
}

/// Gives the restored file the mode and owner of the one that it replaces.
fn take_over(
    temporary: &NamedTempFile,
    replaced: &Metadata,
    output: &Path,
) -> Result<(), RestoreError> {
    let file = temporary.as_file();
    let (uid, gid) = (Uid::from_raw(replaced.uid()), Gid::from_raw(replaced.gid()));
    if let Err(error) = rustix::fs::fchown(file, Some(uid), Some(gid)) {
        let output = output.display();
        tracing::warn!("{output}: owner of the replaced file not kept ({error})");
    }
    // After the owner: changing that clears bits of the mode.
    file.set_permissions(Permissions::from_mode(replaced.mode() & 0o777))
        .and_then(|()| file.sync_all())
        .map_err(|source| io_error(temporary.path(), "set mode", source))
}

/// Also a dangling link is something.
fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

fn exists(path: &Path) -> RestoreError {
    RestoreError::OutputExists { path: path.display().to_string() }
}

fn io_error(path: &Path, action: &'static str, source: io::Error) -> RestoreError {
    RestoreError::Io { path: path.display().to_string(), action, source }
}
