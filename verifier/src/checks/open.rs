//! Opens a restored copy so that nothing in it can do more than be read.
//!
//! The copy is somebody's data and possibly damaged: it is opened immutable (no `-wal` or `-shm` appears
//! beside it), read-only, defensive, with the schema untrusted, without memory mapping, and every
//! statement ends at the deadline.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags};

/// SQLite instructions between two looks at the clock: well below a millisecond of work.
const INSTRUCTIONS_PER_LOOK: i32 = 10_000;

/// Opens `path`; statements are interrupted once `deadline` has passed.
///
/// # Errors
/// SQLite's: the file cannot be opened, or is no database.
pub fn open(path: &Path, deadline: Option<Instant>) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut copy = Connection::open_with_flags(uri(path), flags)?;
    copy.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    copy.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    copy.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    copy.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    copy.set_limit(Limit::SQLITE_LIMIT_WORKER_THREADS, 0)?;
    if let Some(deadline) = deadline {
        copy.progress_handler(INSTRUCTIONS_PER_LOOK, Some(move || Instant::now() >= deadline))?;
    }
    copy.pragma_update(None, "query_only", true)?;
    copy.pragma_update(None, "cell_size_check", true)?;
    copy.pragma_update(None, "mmap_size", 0)?;
    Ok(copy)
}

/// The path as an SQLite URI. Everything but unreserved characters is percent-encoded, so that no
/// `?`, `#` or `%` in it is taken for the URI's own.
fn uri(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri.push_str("?immutable=1&mode=ro");
    uri
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn strange_paths_open_and_nothing_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a b?mode=rwc#%41é.db");
        Connection::open(&path)
            .unwrap()
            .execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t(x)")
            .unwrap();
        let copy = open(&path, None).unwrap();
        assert_eq!(
            copy.query_row("SELECT count(*) FROM t", (), |row| row.get::<_, i64>(0)).unwrap(),
            0
        );
        for refused in
            ["INSERT INTO t VALUES (1)", "CREATE TABLE u(x)", "ATTACH ':memory:' AS other"]
        {
            assert!(copy.execute_batch(refused).is_err(), "{refused}");
        }
        let names: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, [path.file_name().unwrap()], "the copy stands alone");
    }

    #[test]
    fn a_statement_ends_at_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("copy.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE t(x)").unwrap();
        let copy = open(&path, Some(Instant::now())).unwrap();
        let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
        let error = copy.query_row(endless, (), |row| row.get::<_, i64>(0)).unwrap_err();
        assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::OperationInterrupted));
    }
}
