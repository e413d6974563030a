//! The mark that tells a replica's directory from the empty mount point of a disk that is not there.
//!
//! A writer with state of its own makes the file [`MARK_NAME`] in the replica's directory before its first write, and
//! notes the mark's id (its *memory*) in that state.
//!
//! *Invariant*: once a mark is remembered, nothing is written to that directory unless it bears it. So a disk that is not
//! mounted, or another one in its place, is an error that waits, and not a new replica that fills the disk below.
//!
//! A crash between mark and memory leaves a mark, which the next write remembers.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use jiff::Timestamp;

use super::{durable, failure};
use crate::store::{Body, StoreError};

/// No database can have this name, and no listing shows a file.
const MARK_NAME: &str = ".seaworthy-root";

/// The mark of one replica's directory, and what is remembered of it.
#[derive(Debug)]
pub(in crate::store) struct Mark {
    root: PathBuf,
    memory: PathBuf,
}

impl Mark {
    /// The mark of `root`, remembered in the file `memory`.
    pub(in crate::store) fn new(root: PathBuf, memory: PathBuf) -> Self {
        Self { root, memory }
    }

    /// Refuses a directory that does not bear the mark that is remembered of it; changes nothing.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.found().map(|_| ())
    }

    /// [`Mark::check`], and where nothing is remembered yet, marks the directory and remembers it.
    pub(super) fn before_write(&self) -> Result<(), StoreError> {
        let (remembered, found) = self.found()?;
        if remembered.is_some() {
            return Ok(());
        }
        let id = match found {
            Some(id) => id,
            None => self.make()?,
        };
        let content = [id.as_bytes(), b"\n", self.root.as_os_str().as_bytes()].concat();
        durable::replace(&self.memory, &content)
    }

    /// The next write takes the directory as it is then.
    pub(super) fn forget(&self) -> Result<(), StoreError> {
        match fs::remove_file(&self.memory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failure(&self.memory, "remove file", error))
            }
            _ => Ok(()),
        }
    }

    fn path(&self) -> PathBuf {
        self.root.join(MARK_NAME)
    }

    /// The id that is remembered, and the one that is there.
    fn found(&self) -> Result<(Option<String>, Option<String>), StoreError> {
        let remembered = self.remembered()?;
        let found = content(&self.path())?.map(|content| text(&content));
        match &remembered {
            Some(expected) if found.as_ref() != Some(expected) => Err(StoreError::Elsewhere {
                directory: self.root.display().to_string(),
                found: if found.is_some() { "bears another mark" } else { "has lost its mark" },
                mark: self.path().display().to_string(),
                id: expected.clone(),
            }),
            _ => Ok((remembered, found)),
        }
    }

    /// The id that is remembered of this directory; that of another one, which was configured before, says nothing.
    fn remembered(&self) -> Result<Option<String>, StoreError> {
        let Some(content) = content(&self.memory)? else { return Ok(None) };
        let mut parts = content.splitn(2, |byte| *byte == b'\n');
        let id = parts.next().unwrap_or_default();
        let root = parts.next().map(|root| Path::new(OsStr::from_bytes(root)));
        Ok((root == Some(&self.root)).then(|| text(id)))
    }

    /// Makes the mark; the id is that of whoever was first.
    fn make(&self) -> Result<String, StoreError> {
        let id = uuid::Uuid::now_v7().to_string();
        let body = Body::Bytes(Bytes::from(format!("{id}\n")));
        if durable::write_new(&self.path(), &body, Timestamp::now())? {
            return Ok(id);
        }
        Ok(content(&self.path())?.map_or(id, |content| text(&content)))
    }
}

fn content(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failure(path, "read file", error)),
    }
}

fn text(content: &[u8]) -> String {
    String::from_utf8_lossy(content).trim().to_owned()
}
