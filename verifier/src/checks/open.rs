//! Opens a restored copy so that nothing in it, and nothing asked of it, can do more than read.
//!
//! The copy is somebody's data, possibly damaged or made to harm: it is opened immutable (no `-wal` or `-shm` appears
//! beside it), read-only, defensive, with the schema untrusted, without memory mapping or extensions. An authorizer
//! refuses everything that reaches beyond the copy. What sorts or materializes stays in memory, below a limit for all of
//! SQLite in this process, so that neither memory nor the disk can be filled. Every statement ends at its deadline.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags};

use crate::drill::alive;

/// SQLite instructions between two looks at the clock: well below a millisecond of work.
const INSTRUCTIONS_PER_LOOK: i32 = 2_000;

/// All of SQLite's memory in this process, bytes: more is refused (`out of memory`).
const HEAP_LIMIT_BYTES: i64 = 48 << 20;
/// Of it, pages of the copy, KiB.
const PAGE_CACHE_KIB: i64 = 8 << 10;

/// What is far above any honest schema or rule, and far below what exhausts this process.
const LIMITS: [(Limit, i32); 12] = [
    // One string, blob or row, bytes: above, the check is `unchecked`.
    (Limit::SQLITE_LIMIT_LENGTH, 16 << 20),
    (Limit::SQLITE_LIMIT_SQL_LENGTH, 1 << 20),
    (Limit::SQLITE_LIMIT_COLUMN, 2000),
    (Limit::SQLITE_LIMIT_EXPR_DEPTH, 500),
    (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 500),
    (Limit::SQLITE_LIMIT_VDBE_OP, 2_000_000),
    (Limit::SQLITE_LIMIT_FUNCTION_ARG, 127),
    (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1000),
    (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 1000),
    (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 1),
    (Limit::SQLITE_LIMIT_ATTACHED, 0),
    (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
];

/// Pragmas that only read; the checks, SQLite's own virtual tables and assertions may use them.
const READING_PRAGMAS: [&str; 19] = [
    "application_id",
    "collation_list",
    "compile_options",
    "data_version",
    "encoding",
    "foreign_key_check",
    "foreign_key_list",
    "freelist_count",
    "function_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "page_count",
    "page_size",
    "quick_check",
    "table_info",
    "table_list",
    "table_xinfo",
];
/// Pragmas that would set something where they have a value.
const READING_WITHOUT_VALUE: [&str; 4] =
    ["application_id", "encoding", "page_size", "user_version"];

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
    for (limit, value) in LIMITS {
        copy.set_limit(limit, value)?;
    }
    ends_at(&mut copy, deadline)?;
    // A limit for the process: it can only be lowered, so that it holds from the first copy on.
    copy.pragma_update(None, "hard_heap_limit", HEAP_LIMIT_BYTES)?;
    copy.pragma_update(None, "cache_size", -PAGE_CACHE_KIB)?;
    copy.pragma_update(None, "temp_store", "MEMORY")?;
    copy.pragma_update(None, "query_only", true)?;
    copy.pragma_update(None, "cell_size_check", true)?;
    copy.pragma_update(None, "mmap_size", 0)?;
    copy.authorizer(Some(permitted))?;
    Ok(copy)
}

/// From now on, statements are interrupted once `deadline` has passed.
///
/// # Errors
/// SQLite's.
pub fn ends_at(copy: &mut Connection, deadline: Option<Instant>) -> rusqlite::Result<()> {
    let passed = move || {
        alive();
        deadline.is_some_and(|deadline| Instant::now() >= deadline)
    };
    copy.progress_handler(INSTRUCTIONS_PER_LOOK, Some(passed))
}

/// Whether a statement may be prepared that does this. Virtual tables prepare their own writing statements, which
/// nothing here ever runs (and the read-only file would refuse).
fn permitted(context: AuthContext<'_>) -> Authorization {
    let is_one_of = |name: &str, known: &[&str]| known.iter().any(|k| name.eq_ignore_ascii_case(k));
    match context.action {
        AuthAction::Pragma { pragma_name, pragma_value: Some(_) }
            if is_one_of(pragma_name, &READING_WITHOUT_VALUE) =>
        {
            Authorization::Deny
        }
        AuthAction::Pragma { pragma_name, .. }
            if is_one_of(pragma_name, &READING_PRAGMAS)
                || is_one_of(pragma_name, &READING_WITHOUT_VALUE) =>
        {
            Authorization::Allow
        }
        AuthAction::Function { function_name }
            if is_one_of(function_name, &["load_extension", "fts3_tokenizer"]) =>
        {
            Authorization::Deny
        }
        AuthAction::Pragma { .. }
        | AuthAction::Attach { .. }
        | AuthAction::Detach { .. }
        | AuthAction::Transaction { .. }
        | AuthAction::Savepoint { .. }
        | AuthAction::Unknown { .. } => Authorization::Deny,
        _ => Authorization::Allow,
    }
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
        for refused in [
            "INSERT INTO t VALUES (1)",
            "CREATE TABLE u(x)",
            "CREATE TEMP TABLE u(x)",
            "ATTACH ':memory:' AS other",
            "VACUUM INTO 'elsewhere.db'",
            "PRAGMA query_only = 0",
            "PRAGMA user_version = 1",
            "PRAGMA temp_store_directory = '/'",
            "PRAGMA writable_schema = 1",
            "BEGIN",
            "SELECT load_extension('x')",
            "SELECT fts3_tokenizer('simple')",
        ] {
            assert!(copy.execute_batch(refused).is_err(), "{refused}");
        }
        for allowed in ["PRAGMA user_version", "SELECT * FROM pragma_table_info('t')", "SELECT 1"] {
            assert!(copy.prepare(allowed).unwrap().exists(()).unwrap(), "{allowed}");
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

    #[test]
    fn a_value_that_is_too_long_is_refused_before_it_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("copy.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE t(x)").unwrap();
        let copy = open(&path, None).unwrap();
        let long = copy.query_row("SELECT length(zeroblob(100000000) || 'x')", (), |_| Ok(()));
        let code = long.unwrap_err().sqlite_error_code();
        assert_eq!(code, Some(rusqlite::ErrorCode::TooBig));
    }
}
