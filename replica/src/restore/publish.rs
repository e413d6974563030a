//! Makes a restored file appear whole or not at all.
//!
//! The copy is made in a temporary file beside the output (`.<name>.restoring-…`), synced and renamed. Dropping the
//! future removes the temporary file; only a kill or a power loss leaves it, and the output is then
//! still what it was.
//!
//! SQLite would replay a `-wal` or `-journal` that another database left behind into the restored
//! one: with `force` they are renamed, durably, *before* the output is (to `.<name>.replaced-…`), put back if
//! that fails, and removed once the output is durable. Nothing is removed before.
//!
//! A database that somebody has open is not replaced, `force` or not ([`super::in_use`]): it is asked before the copy is made, and
//! before and after its companions are renamed.
//!
//! What remains: whoever opens the old database in the instant before the rename goes on in it. A kill or a power loss between the two renames leaves the old database without its `-wal`, so
//! without its last commits, until `.<name>.replaced-…-wal` is renamed back by hand. One after them leaves
//! those files as litter.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Gid, Uid};
use tempfile::NamedTempFile;

use crate::restore::in_use::users;
use crate::restore::{
    Plan, Progress, RestoreError, Restored, Selected, V03Plan, V03Restored, apply, apply_v03,
    restore,
};
use crate::store::Store;

/// What SQLite keeps beside a database, and would believe.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];
/// Mode of a restored file that replaces none.
const MODE: u32 = 0o600;

/// Restores into a temporary file in `output`'s directory, syncs it, renames it, syncs the directory.
/// Refuses an existing `output`, `output-wal` or `output-shm` unless `force` (which then replaces the
/// one and removes the others, but never while somebody has them open). The restored file has mode 0600, or the mode and owner of the one that it replaces.
///
/// # Errors
/// Those of [`crate::restore::apply()`], and of the file system. Nothing is left behind, and what was to be
/// replaced is still there, except where syncing the directory failed after the rename.
pub async fn publish(
    store: Arc<dyn Store>,
    plan: &Plan,
    output: &Path,
    force: bool,
    progress: Arc<dyn Progress>,
) -> Result<Restored, RestoreError> {
    let staged = Staged::begin(output, force)?;
    let restored = apply(store, plan, staged.file()?, progress).await?;
    staged.finish()?;
    Ok(restored)
}

/// As [`publish()`], around what is damaged: see [`restore()`].
///
/// # Errors
/// Those of [`restore()`], and of the file system, as with [`publish()`].
pub async fn publish_selected(
    store: Arc<dyn Store>,
    selected: &mut Selected,
    latest: bool,
    output: &Path,
    force: bool,
    progress: Arc<dyn Progress>,
) -> Result<Restored, RestoreError> {
    let staged = Staged::begin(output, force)?;
    let restored = restore(store, selected, latest, &staged.file()?, progress).await?;
    staged.finish()?;
    Ok(restored)
}

/// As [`publish()`], for a replica that Litestream v0.3 wrote.
///
/// # Errors
/// Those of [`crate::restore::apply_v03()`], and of the file system, as with [`publish()`].
pub async fn publish_v03(
    store: Arc<dyn Store>,
    plan: &V03Plan,
    output: &Path,
    force: bool,
    progress: Arc<dyn Progress>,
) -> Result<V03Restored, RestoreError> {
    let staged = Staged::begin(output, force)?;
    let restored = apply_v03(store, plan, staged.file()?, progress).await?;
    staged.finish()?;
    Ok(restored)
}

/// The copy while it is made.
struct Staged {
    place: Place,
    force: bool,
    replaced: Option<Metadata>,
    temporary: NamedTempFile,
}

impl Staged {
    fn begin(output: &Path, force: bool) -> Result<Self, RestoreError> {
        let place = Place::of(output)?;
        place.refuse_in_use(&Moved::default())?;
        if !force {
            place.refuse_existing()?;
        }
        let replaced = place.replaced()?;
        let temporary = place.temporary()?;
        Ok(Self { place, force, replaced, temporary })
    }

    fn file(&self) -> Result<File, RestoreError> {
        let failed = |source| io_error(self.temporary.path(), "open temporary file", source);
        self.temporary.as_file().try_clone().map_err(failed)
    }

    fn finish(self) -> Result<(), RestoreError> {
        let Self { place, force, replaced, temporary } = self;
        if let Some(replaced) = replaced {
            take_over(&temporary, &replaced, &place.output)?;
        }
        if force {
            return place.replace(temporary);
        }
        // Somebody may have been quicker since the check at the beginning.
        temporary.persist_noclobber(&place.output).map_err(|error| match error.error.kind() {
            io::ErrorKind::AlreadyExists => exists(&place.output),
            _ => io_error(&place.output, "rename restored file", error.error),
        })?;
        place.sync_directory()
    }
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

    /// Refuses where somebody has the database or one of its companions open, also those that were moved.
    fn refuse_in_use(&self, moved: &Moved) -> Result<(), RestoreError> {
        let companions = COMPANIONS.iter().map(|end| self.companion(end));
        let moved = moved.0.iter().map(|(_, to)| to.clone());
        let files: Vec<PathBuf> =
            std::iter::once(self.output.clone()).chain(companions).chain(moved).collect();
        let path = self.output.display().to_string();
        match users(&files)
            .map_err(|source| io_error(&self.output, "ask who has it open", source))?
        {
            Some(by) => Err(RestoreError::InUse { path, by }),
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

    /// Renames the restored file into place and takes the companions of the old one away.
    fn replace(&self, temporary: NamedTempFile) -> Result<(), RestoreError> {
        let mut moved = Moved::default();
        self.refuse_in_use(&moved)?;
        let replaced = self.move_companions(&temporary, &mut moved).and_then(|()| {
            self.refuse_in_use(&moved)?;
            let renamed = temporary.persist(&self.output);
            renamed.map_err(|error| io_error(&self.output, "rename restored file", error.error))
        });
        if let Err(error) = replaced {
            moved.put_back();
            // The error at hand tells more than that of a second one.
            let _ = self.sync_directory();
            return Err(error);
        }
        // Until the rename is durable, a power loss may bring the old database back.
        self.sync_directory()?;
        moved.remove()
    }

    fn move_companions(
        &self,
        temporary: &NamedTempFile,
        moved: &mut Moved,
    ) -> Result<(), RestoreError> {
        // As unlikely to be taken as the temporary file's: that of an earlier crash may be all there is.
        let unique = temporary.path().extension().unwrap_or_default().to_string_lossy();
        let unique = unique.trim_start_matches("restoring-");
        for end in COMPANIONS {
            let from = self.companion(end);
            let mut name = OsString::from(".");
            name.push(&self.name);
            name.push(format!(".replaced-{unique}{end}"));
            let to = self.directory.join(name);
            match fs::rename(&from, &to) {
                Ok(()) => moved.0.push((from, to)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(io_error(&from, "rename leftover file", source)),
            }
        }
        if moved.0.is_empty() { Ok(()) } else { self.sync_directory() }
    }

    fn sync_directory(&self) -> Result<(), RestoreError> {
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|source| io_error(&self.directory, "sync directory", source))
    }
}

/// Companions of the old database: where they were, and where they are.
#[derive(Default)]
struct Moved(Vec<(PathBuf, PathBuf)>);

impl Moved {
    fn put_back(self) {
        for (from, to) in self.0 {
            if let Err(error) = fs::rename(&to, &from) {
                let (from, to) = (from.display(), to.display());
                tracing::error!("{from}: not put back ({error})\nHINT: rename {to} to it by hand");
            }
        }
    }

    fn remove(self) -> Result<(), RestoreError> {
        for (_, to) in self.0 {
            fs::remove_file(&to).map_err(|source| io_error(&to, "remove leftover file", source))?;
        }
        Ok(())
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
