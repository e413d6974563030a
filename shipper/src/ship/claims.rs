//! One file is shipped once, by however many paths it can be reached.
//!
//! *Invariant*: at most one [`Claim`] on a file at any time in this process. Two shippers on one file would fight over
//! its WAL, and closing a descriptor in one would drop SQLite's locks of the other. Other processes are not kept out.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Device and inode.
type FileId = (u64, u64);

/// Which files are being shipped, and as what.
#[derive(Debug, Default)]
pub struct Claims {
    held: Mutex<BTreeMap<FileId, String>>,
}

/// The right to ship one file, until it is dropped.
#[derive(Debug)]
pub struct Claim {
    claims: Arc<Claims>,
    file: FileId,
}

/// The file is shipped already.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{path}: the same file as database {holder}, which is shipped already\n\
     HINT: remove one [[database]], or let its glob not match the link"
)]
pub struct Claimed {
    /// The path that leads to it, too.
    pub path: String,
    /// The name of the database that has it.
    pub holder: String,
}

impl Claims {
    /// Claims the file at `path` for the database `name`; `None` where there is no file.
    ///
    /// # Errors
    /// It is shipped already.
    pub fn claim(self: &Arc<Self>, path: &Path, name: &str) -> Result<Option<Claim>, Claimed> {
        let Ok(metadata) = std::fs::metadata(path) else { return Ok(None) };
        let file = (metadata.dev(), metadata.ino());
        let mut held = self.lock();
        if let Some(holder) = held.get(&file) {
            return Err(Claimed { path: path.display().to_string(), holder: holder.clone() });
        }
        held.insert(file, name.to_owned());
        Ok(Some(Claim { claims: self.clone(), file }))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<FileId, String>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.lock().remove(&self.file);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_is_claimed_once_by_whatever_path() {
        let directory = tempfile::tempdir().unwrap();
        let (file, soft) = (directory.path().join("app.db"), directory.path().join("soft.db"));
        let hard = directory.path().join("hard.db");
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &soft).unwrap();
        std::fs::hard_link(&file, &hard).unwrap();
        let claims = Arc::new(Claims::default());
        let first = claims.claim(&file, "app").unwrap().unwrap();
        for path in [&file, &soft, &hard] {
            let refused = claims.claim(path, "other").unwrap_err();
            assert!(refused.to_string().contains("database app"), "{refused}");
        }
        drop(first);
        assert!(claims.claim(&soft, "other").unwrap().is_some());
        assert!(claims.claim(&directory.path().join("none.db"), "none").unwrap().is_none());
    }
}
