//! Which file had which name last: `names.json` in the state directory.
//!
//! Read at a start, so that of two files that want one name the one keeps it whose backups bear it. It is advice: a file
//! that is missing or cannot be read costs nothing else.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use tracing::warn;

const FILE_NAME: &str = "names.json";

/// What an earlier run left. Blocking.
#[must_use]
pub fn read(state_dir: &Path) -> BTreeMap<String, PathBuf> {
    let path = state_dir.join(FILE_NAME);
    let read = match std::fs::read(&path) {
        Ok(content) => serde_json::from_slice(&content).map_err(anyhow::Error::from),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return BTreeMap::new(),
        Err(error) => Err(error.into()),
    };
    read.unwrap_or_else(|error| {
        warn!("read {}: {error:#}", path.display());
        BTreeMap::new()
    })
}

/// Keeps it for the next run. Blocking.
///
/// # Errors
/// Those of the file system.
pub fn write(state_dir: &Path, names: &BTreeMap<String, PathBuf>) -> anyhow::Result<()> {
    let path = state_dir.join(FILE_NAME);
    let mut file = tempfile::NamedTempFile::new_in(state_dir).context("write names")?;
    file.write_all(&serde_json::to_vec_pretty(names)?).context("write names")?;
    file.persist(&path).with_context(|| format!("write {}", path.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_written_is_read_and_anything_else_is_nothing() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(read(state.path()), BTreeMap::new());
        let names = [("app".to_owned(), PathBuf::from("/srv/app.db"))].into();
        write(state.path(), &names).unwrap();
        assert_eq!(read(state.path()), names);
        std::fs::write(state.path().join(FILE_NAME), "{").unwrap();
        assert_eq!(read(state.path()), BTreeMap::new());
    }
}
