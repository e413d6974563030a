//! What must hold of a database before we touch it.
//!
//! Whoever opens a database first after a boot creates its `-wal` and `-shm`: a shipper under another user
//! could lock the application out. Everything here is checked before SQLite opens the file, with one
//! read of its first 100 bytes; nothing is created or changed.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use replica::format::PageSize;
use rustix::fs::Access;

use crate::wal::sqlite;

/// What the file says of the database before it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attachable {
    /// Bytes in a page.
    pub page_size: PageSize,
    /// Identity of the file: changes when it is replaced.
    pub inode: u64,
    /// Version of the SQLite that last wrote to it (`3051003`), 0 if it never did.
    pub written_by: i32,
}

/// Why a database cannot be shipped. Each message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No file.
    #[error(
        "{path}: no such file\n\
         HINT: start the application once so that it creates its database, or correct [[database]] path"
    )]
    Missing {
        /// The database.
        path: String,
    },
    /// A directory, a device.
    #[error("{path}: not a regular file\nHINT: correct [[database]] path")]
    NotAFile {
        /// The database.
        path: String,
    },
    /// No right to read it.
    #[error(
        "{path}: {source}\n\
         HINT: run the shipper as the user who owns the database (User= in the unit)"
    )]
    Unreadable {
        /// The database.
        path: String,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// Empty, so of no journal mode yet.
    #[error(
        "{path}: empty, not a database yet\n\
         HINT: let the application create its tables in WAL mode: PRAGMA journal_mode=WAL"
    )]
    Empty {
        /// The database.
        path: String,
    },
    /// Other content.
    #[error(
        "{path}: not a SQLite database (or an encrypted one)\n\
         HINT: correct [[database]] path; encrypted databases cannot be shipped"
    )]
    NotSqlite {
        /// The database.
        path: String,
    },
    /// Rollback journal.
    #[error(
        "{path}: not in WAL mode\n\
         HINT: once, with the application stopped: sqlite3 {path} 'PRAGMA journal_mode=WAL'"
    )]
    NotWal {
        /// The database.
        path: String,
    },
    /// We would create files that the application cannot write.
    #[error(
        "{path}: owned by user {owner}, and this is user {user}: a -wal or -shm file created by the \
         shipper could lock the application out\n\
         HINT: run the shipper as the owner (User= in the unit), or make the database group-writable in \
         a setgid directory of a group that both users are in"
    )]
    ForeignOwner {
        /// The database.
        path: String,
        /// Its owner's uid.
        owner: u32,
        /// Our uid.
        user: u32,
    },
    /// We could not create or write what SQLite needs.
    #[error(
        "{path}: no right to write {what}, which SQLite needs even for reading in WAL mode\n\
         HINT: run the shipper as the owner, and list the directory in ReadWritePaths= of the unit"
    )]
    NotWritable {
        /// The database.
        path: String,
        /// The file or directory.
        what: String,
    },
}

/// Checks that the database can be shipped by this process.
///
/// # Errors
/// A [`Refusal`] that says why not and what to do.
pub fn check(path: &Path) -> Result<Attachable, Refusal> {
    let name = || path.display().to_string();
    let unreadable = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => Refusal::Missing { path: name() },
        _ => Refusal::Unreadable { path: name(), source },
    };
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(Refusal::NotAFile { path: name() });
    }
    let mut header = [0; 100];
    if metadata.len() == 0 {
        return Err(Refusal::Empty { path: name() });
    }
    let mut file = File::open(path).map_err(unreadable)?;
    file.read_exact(&mut header).map_err(|_| Refusal::NotSqlite { path: name() })?;
    drop(file);
    let page_size = decode_page_size(&header).ok_or_else(|| Refusal::NotSqlite { path: name() })?;
    if header[18..20] != [2, 2] {
        return Err(Refusal::NotWal { path: name() });
    }
    check_rights(path, &metadata)?;
    let written_by = i32::from_be_bytes([header[96], header[97], header[98], header[99]]);
    Ok(Attachable { page_size, inode: metadata.ino(), written_by })
}

impl Attachable {
    /// What the operator should know about the application's own SQLite, where it can be told.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        sqlite::has_wal_reset_bug(self.written_by).then(|| {
            let (major, minor, patch) = (
                self.written_by / 1_000_000,
                self.written_by / 1000 % 1000,
                self.written_by % 1000,
            );
            format!(
                "last written by SQLite {major}.{minor}.{patch}, which can lose committed pages when a \
                 checkpoint races a writer (the WAL-reset bug)\nHINT: update the application's SQLite \
                 to 3.51.3 or later, 3.50.7 or 3.44.6"
            )
        })
    }
}

fn decode_page_size(header: &[u8; 100]) -> Option<PageSize> {
    if !header.starts_with(b"SQLite format 3\0") {
        return None;
    }
    let raw = u32::from(u16::from_be_bytes([header[16], header[17]]));
    PageSize::new(if raw == 1 { 65536 } else { raw }).ok()
}

fn check_rights(path: &Path, file: &Metadata) -> Result<(), Refusal> {
    let name = || path.display().to_string();
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let user = rustix::process::geteuid().as_raw();
    let setgid_group = std::fs::metadata(directory)
        .ok()
        .filter(|directory| directory.permissions().mode() & 0o2000 != 0)
        .map(|directory| directory.gid());
    if !leaves_files_usable(user, file.uid(), file.gid(), file.permissions().mode(), setgid_group) {
        return Err(Refusal::ForeignOwner { path: name(), owner: file.uid(), user });
    }
    for what in [path, directory, &crate::wal::reader::wal_path(path)] {
        let writable = rustix::fs::accessat(
            rustix::fs::CWD,
            what,
            Access::WRITE_OK,
            rustix::fs::AtFlags::EACCESS,
        );
        match writable {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(_) => {
                return Err(Refusal::NotWritable {
                    path: name(),
                    what: what.display().to_string(),
                });
            }
        }
    }
    Ok(())
}

/// Whether a `-wal` or `-shm` that `user` creates is as usable to the database's owner as its own: SQLite
/// gives it the database's mode and, for root only, its owner; its group comes from a setgid directory.
fn leaves_files_usable(
    user: u32,
    owner: u32,
    group: u32,
    mode: u32,
    setgid_group: Option<u32>,
) -> bool {
    user == owner || user == 0 || (mode & 0o060 == 0o060 && setgid_group == Some(group))
}

#[cfg(test)]
mod tests {
    use super::leaves_files_usable;

    #[test]
    fn only_the_owner_root_or_a_shared_group_may_create_the_wal() {
        let (app, other, group) = (1000, 1001, 2000);
        assert!(leaves_files_usable(app, app, group, 0o600, None), "the owner");
        assert!(
            leaves_files_usable(0, app, group, 0o600, None),
            "root: SQLite gives the files away"
        );
        assert!(
            !leaves_files_usable(other, app, group, 0o644, None),
            "another user, readable file"
        );
        assert!(!leaves_files_usable(other, app, group, 0o660, None), "no setgid directory");
        assert!(!leaves_files_usable(other, app, group, 0o640, Some(group)), "not group-writable");
        assert!(!leaves_files_usable(other, app, group, 0o660, Some(2001)), "another group");
        assert!(leaves_files_usable(other, app, group, 0o660, Some(group)), "the shared group");
    }
}
