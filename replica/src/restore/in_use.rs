//! Who has a database open, so that it is not replaced under them.
//!
//! Whoever goes on in a file that was replaced writes into one that nobody finds again. SQLite's own locks tell of a transaction,
//! and in WAL mode of every connection (each holds a lock on the `-shm`): they are asked for, never taken, and also show in
//! another container. An idle connection in a rollback mode holds none: `/proc` shows it, where it may look.
//!
//! Nothing is written, and nothing is opened with SQLite, which would recover a WAL.
//!
//! Does not promise to see an idle connection in a rollback mode of a user whose processes we may not look into, of another
//! container, or through a network file system. Closes the files that it asks about, and so drops the POSIX locks
//! that this very process has on them: it is for processes that have no connection to the database.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// Who has one of these files open, in words; `None` where nobody is seen to.
///
/// # Errors
/// A file that is there and cannot be asked about.
pub(super) fn users(files: &[PathBuf]) -> io::Result<Option<String>> {
    let mut known = Vec::new();
    let mut locked = false;
    let mut holders = BTreeMap::new();
    for path in files {
        // A pipe would hold whoever opens it.
        if !fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file()) {
            continue;
        }
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            // Whoever may not read it may replace it all the same.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                known.extend(Known::of(path, &fs::symlink_metadata(path)?));
                continue;
            }
            Err(error) => return Err(error),
        };
        known.extend(Known::of(path, &file.metadata()?));
        if let Some(pid) = lock_on(&file)? {
            locked = true;
            if pid > 0 {
                holders.insert(pid, name_of(pid));
            }
        }
    }
    for pid in processes() {
        if has_open(pid, &known) {
            holders.insert(pid, name_of(pid));
        }
    }
    if holders.is_empty() {
        return Ok(locked
            .then(|| "a process that cannot be seen from here (another container?)".to_owned()));
    }
    let named = holders.iter().map(|(pid, name)| format!("{name} (process {pid})"));
    Ok(Some(named.collect::<Vec<_>>().join(", ")))
}

/// The process that has a lock on any part of a file: 0 or less where it cannot be named.
// The constants are small; their type in the structure is the system's.
#[allow(clippy::cast_possible_truncation)]
fn lock_on(file: &File) -> io::Result<Option<i32>> {
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_GETLK(&mut lock)) {
        Ok(_) if i32::from(lock.l_type) == libc::F_UNLCK => Ok(None),
        Ok(_) => Ok(Some(lock.l_pid)),
        // A file system without locks: SQLite could not work there either, and `/proc` is left.
        Err(nix::errno::Errno::ENOLCK | nix::errno::Errno::EINVAL | nix::errno::Errno::ENOSYS) => {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// A file that somebody may have open.
struct Known {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Known {
    fn of(path: &Path, metadata: &fs::Metadata) -> Option<Self> {
        let path = fs::canonicalize(path).ok()?;
        Some(Self { path, device: metadata.dev(), inode: metadata.ino() })
    }
}

fn processes() -> BTreeSet<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Whether a process has one of them open, as far as we may look.
fn has_open(pid: i32, known: &[Known]) -> bool {
    let directory = PathBuf::from(format!("/proc/{pid}"));
    let descriptors = fs::read_dir(directory.join("fd")).into_iter().flatten().flatten();
    descriptors.map(|entry| entry.file_name()).any(|number| {
        let link = directory.join("fd").join(&number);
        if fs::read_link(&link).is_ok_and(|path| known.iter().any(|file| file.path == path)) {
            return true;
        }
        // Asked about a file of its own on a dead network mount, `stat` would hang.
        let inode = inode_in(&directory.join("fdinfo").join(&number));
        if inode.is_some_and(|inode| known.iter().all(|file| file.inode != inode)) {
            return false;
        }
        fs::metadata(&link).is_ok_and(|open| {
            known.iter().any(|file| (file.device, file.inode) == (open.dev(), open.ino()))
        })
    })
}

/// The inode of an open file by its `fdinfo` (Linux 5.14 and later).
fn inode_in(path: &Path) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix("ino:")?.trim().parse().ok())
}

fn name_of(pid: i32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    match name.trim() {
        "" => "a process".to_owned(),
        name => name.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
    }
}
