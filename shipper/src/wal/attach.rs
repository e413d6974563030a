//! What must hold of a database before we touch it.
//!
//! Whoever opens a database first after a boot creates its `-wal` and `-shm`: a shipper under another user
//! could lock the application out. Everything here is checked before SQLite opens the file, with one
//! read of its first 100 bytes; nothing is created or changed.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use replica::format::PageSize;
use rustix::fs::Access;
use rustix::thread::CapabilitySet;

use crate::wal::files::{FileId, is_mounted_alone};
use crate::wal::sqlite;

/// What the file says of the database before it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachable {
    /// Where it really is: SQLite keeps `-wal` and `-shm` beside the file that a link leads to.
    pub real: PathBuf,
    /// Bytes in a page.
    pub page_size: PageSize,
    /// Which file it is: another one when it is replaced.
    pub file: FileId,
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
    /// Root without the right to give files away.
    #[error(
        "{path}: owned by user {owner}, and this is root without CAP_CHOWN: -wal and -shm would belong to root, and \
         lock the application out\n\
         HINT: run the shipper as the owner (User= in the unit, --user in Docker), or give it CAP_CHOWN"
    )]
    CannotGive {
        /// The database.
        path: String,
        /// Its owner's uid.
        owner: u32,
    },
    /// Under each of its names it has another WAL.
    #[error(
        "{path}: has {names} names (hard links), and under each of them another -wal: what is committed under \
         another name would be missed, and SQLite can corrupt such a database\n\
         HINT: keep one name (find / -samefile {path}); make copies with VACUUM INTO or .backup, not with ln"
    )]
    HardLinked {
        /// The database.
        path: String,
        /// How many.
        names: u64,
    },
    /// A mount of a single file, beside which the application's WAL is not.
    #[error(
        "{path}: the file itself is mounted here, so the application's -wal is elsewhere\n\
         HINT: mount the directory, not the file (Docker: -v /srv/app:/data, not -v /srv/app/app.db:/data/app.db), \
         for the shipper and for the application"
    )]
    MountedAlone {
        /// The database.
        path: String,
    },
    /// A transaction that was never ended, which we would roll back by opening the database.
    #[error(
        "{path}: a rollback journal is left beside it ({path}-journal), and whoever opens the database next writes it \
         back\n\
         HINT: open the database with the application first; if the journal is not of this very file, move it away"
    )]
    HotJournal {
        /// The database.
        path: String,
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
    let real = std::fs::canonicalize(path).map_err(unreadable)?;
    let metadata = std::fs::metadata(&real).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(Refusal::NotAFile { path: name() });
    }
    let mut header = [0; 100];
    if metadata.len() == 0 {
        return Err(Refusal::Empty { path: name() });
    }
    let mut file = File::open(&real).map_err(unreadable)?;
    file.read_exact(&mut header).map_err(|_| Refusal::NotSqlite { path: name() })?;
    drop(file);
    let page_size = decode_page_size(&header).ok_or_else(|| Refusal::NotSqlite { path: name() })?;
    if header[18..20] != [2, 2] {
        return Err(Refusal::NotWal { path: name() });
    }
    if is_hot(&journal_path(&real)) {
        return Err(Refusal::HotJournal { path: name() });
    }
    if metadata.nlink() > 1 {
        return Err(Refusal::HardLinked { path: name(), names: metadata.nlink() });
    }
    if is_mounted_alone(&real).unwrap_or_else(|| is_mount_point(&real)) {
        return Err(Refusal::MountedAlone { path: name() });
    }
    check_rights(&real, &metadata)?;
    let written_by = i32::from_be_bytes([header[96], header[97], header[98], header[99]]);
    let file = FileId::from(&metadata);
    Ok(Attachable { real, page_size, file, written_by })
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

/// Whether SQLite would take a journal for that of a transaction which never ended: its first byte tells
/// (`hasHotJournal` in `pager.c`).
fn is_hot(journal: &Path) -> bool {
    let mut first = [0];
    File::open(journal).and_then(|mut file| file.read(&mut first)).is_ok_and(|_| first != [0])
}

fn journal_path(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push("-journal");
    path.into()
}

/// The same question as [`is_mounted_alone`], answered by the table of mounts.
fn is_mount_point(path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    // What would end a field is written as an octal number there.
    let escaped: Vec<u8> = path
        .as_os_str()
        .as_bytes()
        .iter()
        .flat_map(|byte| match byte {
            b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
            other => vec![*other],
        })
        .collect();
    table
        .split(|byte| *byte == b'\n')
        .any(|line| line.split(|byte| *byte == b' ').nth(4).is_some_and(|point| point == escaped))
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
    let gives = user == 0 && can_give_files();
    let (owner, mode) = (file.uid(), file.permissions().mode());
    if !leaves_files_usable(user, gives, owner, file.gid(), mode, setgid_group) {
        return Err(if user == 0 {
            Refusal::CannotGive { path: name(), owner }
        } else {
            Refusal::ForeignOwner { path: name(), owner, user }
        });
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

/// Whether a file that root creates can be given to its owner, as SQLite does.
fn can_give_files() -> bool {
    rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::CHOWN))
}

/// Whether a `-wal` or `-shm` that `user` creates is as usable to the database's owner as its own: SQLite gives it the
/// database's mode and, for root only and where it `gives`, its owner; its group comes from a setgid directory.
fn leaves_files_usable(
    user: u32,
    gives: bool,
    owner: u32,
    group: u32,
    mode: u32,
    setgid_group: Option<u32>,
) -> bool {
    user == owner || gives || (mode & 0o060 == 0o060 && setgid_group == Some(group))
}

#[cfg(test)]
mod tests {
    use super::{is_mount_point, leaves_files_usable};

    #[test]
    fn only_the_owner_root_or_a_shared_group_may_create_the_wal() {
        let (app, other, group) = (1000, 1001, 2000);
        let usable = |user, mode, setgid_group| {
            leaves_files_usable(user, user == 0, app, group, mode, setgid_group)
        };
        assert!(usable(app, 0o600, None), "the owner");
        assert!(usable(0, 0o600, None), "root: SQLite gives the files away");
        assert!(!leaves_files_usable(0, false, app, group, 0o600, None), "root that cannot");
        assert!(leaves_files_usable(0, false, 0, group, 0o600, None), "root is the owner");
        assert!(!usable(other, 0o644, None), "another user, readable file");
        assert!(!usable(other, 0o660, None), "no setgid directory");
        assert!(!usable(other, 0o640, Some(group)), "not group-writable");
        assert!(!usable(other, 0o660, Some(2001)), "another group");
        assert!(usable(other, 0o660, Some(group)), "the shared group");
        assert!(leaves_files_usable(0, false, app, group, 0o660, Some(group)), "for root, too");
    }

    #[test]
    fn the_table_of_mounts_tells_a_mount_point() {
        assert!(is_mount_point("/proc".as_ref()));
        assert!(!is_mount_point("/proc/self".as_ref()));
    }
}
