//! What must hold of a restored copy: one file a check.
//!
//! Each check reads the hardened, immutable connection of [`mod@open`] and answers with a
//! [`Check`]. Damage is `fail`; what this build of SQLite cannot evaluate (an unknown module, collation
//! or function) is `unchecked`; a deadline or local trouble is `error`. Checks never write and keep only
//! a bounded number of findings in memory.

mod chain;
mod durable_point;
mod foreign_keys;
mod integrity;
mod open;
mod tables;
mod v03;

pub use chain::{chain, chain_failed, vanished};
pub use durable_point::{DurablePoint, durable_point};
pub use foreign_keys::foreign_keys;
pub use integrity::integrity;
pub use open::{ends_at, open};
pub use tables::tables;
pub use v03::{v03_chain, v03_durable_point};

use rusqlite::ErrorCode;

use crate::record::{Check, Status};

/// Findings that a detail lists before it only counts.
const LISTED: usize = 20;

/// The check's answer where SQLite itself refused to carry it out.
fn refused(name: &str, error: &rusqlite::Error) -> Check {
    let message = error.to_string();
    let status = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Status::Fail,
        Some(ErrorCode::OperationInterrupted) => {
            return Check::new(
                name,
                Status::Error,
                "deadline reached before the check ended\n\
                 HINT: give the drill more time, or drill fewer databases in one run",
            );
        }
        Some(ErrorCode::TooBig) => {
            return Check::new(
                name,
                Status::Unchecked,
                format!("{message}: a value is longer than a drill reads in its bounded memory"),
            );
        }
        Some(ErrorCode::OutOfMemory) => {
            let hint = "a drill's memory is bounded: what sorts or groups many rows needs an index";
            return Check::new(name, Status::Error, format!("{message}\nHINT: {hint}"));
        }
        _ if is_unknown(&message) => Status::Unchecked,
        _ => Status::Error,
    };
    Check::new(name, status, message)
}

/// The copy cannot be opened: the `integrity_check` it will never pass.
#[must_use]
pub fn not_opened(error: &rusqlite::Error) -> Check {
    let check = refused("integrity_check", error);
    Check { detail: format!("open restored copy: {}", check.detail), ..check }
}

/// Names something that the application's SQLite had and this one has not (or does not trust).
fn is_unknown(message: &str) -> bool {
    [
        "no such module",
        "no such collation",
        "no such function",
        "unsafe use of",
        "unknown tokenizer",
    ]
    .iter()
    .any(|known| message.contains(known))
}

/// `"name"`, for SQL.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn sqlite(code: i32, message: &str) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), Some(message.to_owned()))
    }

    #[test]
    fn refusals_tell_damage_from_ignorance_from_surroundings() {
        use rusqlite::ffi;
        for (error, status) in [
            (sqlite(ffi::SQLITE_CORRUPT, "database disk image is malformed"), Status::Fail),
            (sqlite(ffi::SQLITE_NOTADB, "file is not a database"), Status::Fail),
            (sqlite(ffi::SQLITE_ERROR, "no such module: geopoly9"), Status::Unchecked),
            (sqlite(ffi::SQLITE_ERROR, "no such collation sequence: ICU"), Status::Unchecked),
            (sqlite(ffi::SQLITE_TOOBIG, "string or blob too big"), Status::Unchecked),
            (sqlite(ffi::SQLITE_IOERR, "disk I/O error"), Status::Error),
            (sqlite(ffi::SQLITE_NOMEM, "out of memory"), Status::Error),
            (sqlite(ffi::SQLITE_INTERRUPT, "interrupted"), Status::Error),
        ] {
            assert_eq!(refused("x", &error).status, status, "{error}");
        }
    }

    #[test]
    fn names_are_quoted_for_sql() {
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
    }
}
