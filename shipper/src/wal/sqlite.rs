//! The few things asked of SQLite: connections that never write, positions, raw pages, checkpoints.
//!
//! The position comes from `sqlite3_snapshot_get`, which copies the wal-index header that a read
//! transaction sees (`WalIndexHdr` in SQLite's `wal.c`). It bounds every read of the WAL: a commit frame
//! whose writer died (or failed) before it published the frame in the wal-index was never committed,
//! although the file holds it with a good checksum.

use std::path::Path;
use std::time::{Duration, Instant};

use replica::format::PageSize;
use replica::format::wal::{Position, Salts, WalChecksum};
use rusqlite::{Connection, OpenFlags, config::DbConfig, ffi};

/// What a read transaction sees of the WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The end of the last committed transaction.
    pub position: Position,
    /// Pages in the file there once all is backfilled: the pager's count, which is what a checkpoint sizes the file to. The
    /// database may end before (an older file copied over a longer one, `SQLITE_FCNTL_CHUNK_SIZE`); then the rest is zeros.
    pub page_count: u32,
}

/// How a checkpoint ended, in frames of the WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointResult {
    /// Another connection was checkpointing.
    pub busy: bool,
    /// Frames in the WAL.
    pub log: u32,
    /// Frames of those that are in the database file by now.
    pub backfilled: u32,
}

impl CheckpointResult {
    /// Everything in the WAL is in the database file too.
    #[must_use]
    pub fn is_complete(self) -> bool {
        !self.busy && self.backfilled == self.log
    }
}

/// Checks that the SQLite in this program is one that the engine can stand on.
///
/// # Errors
/// It has the WAL-reset bug, or lacks `sqlite_dbpage` or snapshots: a wrong build.
pub fn assert_capabilities() -> anyhow::Result<()> {
    let version = rusqlite::version_number();
    anyhow::ensure!(
        !has_wal_reset_bug(version),
        "this program was built with SQLite {}, which has the WAL-reset bug",
        rusqlite::version()
    );
    let db = Connection::open_in_memory()?;
    for option in ["ENABLE_DBPAGE_VTAB", "ENABLE_SNAPSHOT"] {
        let used: bool =
            db.query_row("SELECT sqlite_compileoption_used(?1)", [option], |row| row.get(0))?;
        anyhow::ensure!(
            used,
            "this program was built without SQLITE_{option}\n\
             HINT: build it in its checkout, where .cargo/config.toml sets LIBSQLITE3_FLAGS"
        );
    }
    Ok(())
}

/// SQLite 3.7.0 to 3.51.2 can lose committed pages when a checkpoint races a writer that restarts the
/// WAL; fixed in 3.51.3, 3.50.7 and 3.44.6 (<https://www.sqlite.org/wal.html>).
#[must_use]
pub fn has_wal_reset_bug(version_number: i32) -> bool {
    (3_007_000..3_051_003).contains(&version_number)
        && !(3_050_007..3_051_000).contains(&version_number)
        && !(3_044_006..3_045_000).contains(&version_number)
}

/// Opens a connection that creates nothing, keeps almost no memory and, at its end, neither
/// checkpoints nor deletes the WAL.
///
/// # Errors
/// Those of SQLite.
pub fn open(path: &Path) -> rusqlite::Result<Connection> {
    // Read-write: a reader must be able to write the wal-index, and a checkpoint the database.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    without_lookaside(&db)?;
    // SQLite's own handler sleeps between tries, so that a busy writer never lets it in.
    db.busy_timeout(Duration::ZERO)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    db.execute_batch(
        "PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = 8; PRAGMA synchronous = NORMAL;",
    )?;
    Ok(db)
}

/// Closes a connection as any other program does: if it is the last one, it backfills what is left and removes the WAL.
///
/// # Errors
/// Those of SQLite.
pub fn close_and_remove_wal(db: Connection) -> rusqlite::Result<()> {
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    db.close().map_err(|(_, error)| error)
}

/// Gives back the 48 KiB that a connection keeps for small allocations: ours make few, and there are five to a database.
#[allow(unsafe_code)]
fn without_lookaside(db: &Connection) -> rusqlite::Result<()> {
    // SAFETY: the handle is valid while `db` is borrowed; the arguments are those that the API names for this verb, and a
    // null buffer of no slots is its way to say "none".
    let code = unsafe {
        ffi::sqlite3_db_config(
            db.handle(),
            ffi::SQLITE_DBCONFIG_LOOKASIDE,
            std::ptr::null_mut::<std::ffi::c_void>(),
            0 as std::ffi::c_int,
            0 as std::ffi::c_int,
        )
    };
    match code {
        // Busy: some of it is in use, so it stays.
        ffi::SQLITE_OK | ffi::SQLITE_BUSY => Ok(()),
        other => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(other), None)),
    }
}

/// Begins a read transaction and returns what it sees.
///
/// # Errors
/// Those of SQLite.
pub fn begin_read(db: &Connection, fallback_page_size: PageSize) -> rusqlite::Result<Mark> {
    db.execute_batch("BEGIN")?;
    // The cheapest statement that opens the transaction: it reads no schema.
    let opened = db
        .pragma_query_value(None, "schema_version", |row| row.get::<_, i64>(0))
        .and_then(|_| mark(db, fallback_page_size));
    if opened.is_err() {
        // The first error is the one to tell.
        let _ = end_read(db);
    }
    opened
}

/// Ends a read transaction.
///
/// # Errors
/// Those of SQLite.
pub fn end_read(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch("COMMIT")
}

/// Takes the write lock, trying without a pause that a busy writer could use to starve us, for at most
/// `bound`. Nothing is ever written under it.
///
/// # Errors
/// Those of SQLite; `Ok(false)` where the lock was not to be had.
pub fn begin_locked(db: &Connection, bound: Duration) -> rusqlite::Result<bool> {
    let deadline = Instant::now() + bound;
    loop {
        match db.execute_batch("BEGIN IMMEDIATE") {
            Ok(()) => return Ok(true),
            Err(error) if is_busy(&error) => {
                if Instant::now() >= deadline {
                    return Ok(false);
                }
                for _ in 0..40 {
                    std::hint::spin_loop();
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Lets go of the write lock.
///
/// # Errors
/// Those of SQLite.
pub fn end_locked(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch("ROLLBACK")
}

/// Copies what it can from the WAL to the database without waiting for anybody.
///
/// # Errors
/// Those of SQLite.
pub fn checkpoint_passive(db: &Connection) -> rusqlite::Result<CheckpointResult> {
    db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        Ok(CheckpointResult {
            busy: row.get::<_, i64>(0)? != 0,
            log: row.get::<_, i64>(1)?.try_into().unwrap_or(0),
            backfilled: row.get::<_, i64>(2)?.try_into().unwrap_or(0),
        })
    })
}

/// The database is locked for what was tried; trying again may help.
#[must_use]
pub fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy))
}

/// The file does not hold what the connection believes of it.
#[must_use]
pub fn is_another_file(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
}

/// `WalIndexHdr`, 48 bytes in native byte order, as 12 words.
const HEADER_WORDS: usize = 12;

/// What the read transaction that is open on `db` sees. `page_size` is told only by a WAL that has
/// frames, so the caller's knowledge is checked against it.
fn mark(db: &Connection, page_size: PageSize) -> rusqlite::Result<Mark> {
    let Some(words) = wal_index_header(db)? else {
        let position =
            Position { salts: Salts::default(), frame: 0, checksum: WalChecksum::default() };
        return Ok(Mark { position, page_count: file_pages(db, page_size)? });
    };
    let [_version, _unused, _change, packed, frame, page_count, sum_a, sum_b, salt_a, salt_b, ..] =
        words;
    let [_init, _big_endian, size_a, size_b] = packed.to_ne_bytes();
    let raw_size = u32::from(u16::from_ne_bytes([size_a, size_b]));
    // 64 KiB does not fit 16 bits: SQLite stores 1.
    let found = if raw_size == 1 { 65536 } else { raw_size };
    if frame > 0 && found != page_size.get() {
        return Err(rusqlite::Error::SqliteFailure(
            ffi::Error::new(ffi::SQLITE_SCHEMA),
            Some(format!("page size changed from {page_size} to {found}")),
        ));
    }
    let position = Position {
        // The salts are copied from the WAL's header byte for byte, so they are big-endian words.
        salts: Salts(u32::from_be(salt_a), u32::from_be(salt_b)),
        frame,
        checksum: WalChecksum(sum_a, sum_b),
    };
    let page_count = if page_count == 0 { file_pages(db, page_size)? } else { page_count };
    Ok(Mark { position, page_count })
}

/// Pages in the file itself, counted as SQLite's `pagerPagecount` does where the WAL says nothing of it.
#[allow(unsafe_code)]
fn file_pages(db: &Connection, page_size: PageSize) -> rusqlite::Result<u32> {
    let mut file: *mut ffi::sqlite3_file = std::ptr::null_mut();
    let mut bytes: ffi::sqlite3_int64 = 0;
    // SAFETY: the handle is valid while `db` is borrowed, and so is the file that this verb gives: the one of "main", whose
    // methods are set while the connection is in a transaction.
    let code = unsafe {
        let verb = ffi::SQLITE_FCNTL_FILE_POINTER;
        match ffi::sqlite3_file_control(db.handle(), c"main".as_ptr(), verb, (&raw mut file).cast())
        {
            ffi::SQLITE_OK => match (*(*file).pMethods).xFileSize {
                Some(size) => size(file, &raw mut bytes),
                None => ffi::SQLITE_MISUSE,
            },
            other => other,
        }
    };
    let pages = bytes.cast_unsigned().div_ceil(u64::from(page_size.get()));
    match (code, u32::try_from(pages)) {
        (ffi::SQLITE_OK, Ok(pages)) => Ok(pages),
        (code, _) => Err(rusqlite::Error::SqliteFailure(
            ffi::Error::new(code),
            Some("read the database file's size".to_owned()),
        )),
    }
}

/// `None` where no frame was ever written to the WAL since it was created.
#[allow(unsafe_code)]
fn wal_index_header(db: &Connection) -> rusqlite::Result<Option<[u32; HEADER_WORDS]>> {
    let mut snapshot: *mut ffi::sqlite3_snapshot = std::ptr::null_mut();
    // SAFETY: the handle is valid while `db` is borrowed; on SQLITE_OK the out-pointer is an allocation of
    // sizeof(WalIndexHdr) = 48 bytes (asserted by SQLite's own sqlite3_snapshot type, `hidden[48]`), read
    // before it is freed with the function that the API names for it.
    unsafe {
        let code = ffi::sqlite3_snapshot_get(db.handle(), c"main".as_ptr(), &raw mut snapshot);
        match code {
            ffi::SQLITE_OK => {
                let words = snapshot.cast::<[u32; HEADER_WORDS]>().read_unaligned();
                ffi::sqlite3_snapshot_free(snapshot);
                Ok(Some(words))
            }
            // "One or more transactions must have been written to the current wal file."
            ffi::SQLITE_ERROR => Ok(None),
            other => Err(rusqlite::Error::SqliteFailure(
                ffi::Error::new(other),
                Some("read WAL position".to_owned()),
            )),
        }
    }
}
