//! What must hold of a restored copy: one file a check.
//!
//! Each check reads the hardened, immutable connection of [`mod@open`] and answers with a
//! [`Check`]. Damage is `fail`; what this build of SQLite cannot evaluate (an unknown module, collation
//! or function) is `unchecked`; a deadline or local trouble is `error`. Checks never write and keep only
//! a bounded number of findings in memory.
//!
//! What changed is judged against the record of the last PASS of the newest state, where there is one, and only for the
//! newest state: a past point may well have had fewer tables and rows. Likewise the operator's rules are written of the
//! newest state: what does not hold at a past point leaves its check `unchecked`.

mod assertion;
mod budget;
mod chain;
mod clauses;
mod constraints;
mod durable_point;
mod foreign_keys;
mod integrity;
mod open;
mod other_files;
mod point;
mod rivals;
mod schema;
mod size;
mod source_match;
mod table_rule;
mod tables;
mod v03;

pub use assertion::assertion;
pub use budget::{Lag, budgets};
pub use chain::{chain, chain_failed, vanished};
pub use constraints::constraints;
pub use durable_point::{DurablePoint, durable_point};
pub use foreign_keys::foreign_keys;
pub use integrity::integrity;
pub use open::{ends_at, open};
pub use other_files::{Share, other_files};
pub use point::point;
pub use rivals::rivals;
pub use schema::schema;
pub use size::size;
pub use source_match::{SourceMatch, source_match};
pub use table_rule::table_rule;
pub(crate) use tables::MANY_ROWS;
pub use tables::tables;
pub use v03::{v03_chain, v03_durable_point};

use replica::format::{Checksum, PageSize, Txid};
use replica::store::Chain;
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode};

use crate::record::{Check, Status};

/// What a chain of LTX files says of the copy that was restored from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// The chain.
    pub chain: Chain,
    /// The state restored.
    pub txid: Txid,
    /// Bytes in a page.
    pub page_size: PageSize,
    /// Pages in the database.
    pub page_count: u32,
    /// The database's checksum at `txid`; `None`: the chain has none.
    pub checksum: Option<Checksum>,
}

/// Findings that a detail lists before it only counts.
const LISTED: usize = 20;

/// The check's answer where SQLite itself refused to carry it out.
fn refused(name: &str, error: &rusqlite::Error) -> Check {
    let message = error.to_string();
    let status = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Status::Fail,
        Some(ErrorCode::OperationInterrupted) => return out_of_time(name),
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

/// What to do about a deadline.
pub(crate) const LATE: &str = "give the drill more time (in Lambda the function's timeout, else [drill] deadline), \
    or drill one database a run";

/// The check was stopped by the drill's deadline.
#[must_use]
pub fn out_of_time(name: &str) -> Check {
    Check::new(name, Status::Error, format!("deadline reached\nHINT: {LATE}"))
}

/// There is a `drill.toml` that cannot be used: what it asks for is not proven.
#[must_use]
pub fn no_rules(error: &str) -> Check {
    let hint = "\nHINT: correct it in the bucket; until then no drill of this database passes";
    let hint = if error.contains("HINT: ") { "" } else { hint };
    Check::new("drill.toml", Status::Error, format!("{error}{hint}"))
}

/// What a rule of the operator's comes to: written of the newest state, it fails nothing at a past point.
fn broken(name: &str, latest: bool, words: impl Into<String>) -> Check {
    let words = words.into();
    if latest {
        return Check::new(name, Status::Fail, words);
    }
    let words = format!("{words} (the rule is written of the newest state; this is a past point)");
    Check::new(name, Status::Unchecked, words)
}

/// Runs `work` without the bound on the length of a value: the heap's limit holds alone.
fn with_long_values<T>(copy: &Connection, work: impl FnOnce() -> T) -> rusqlite::Result<T> {
    let bound = copy.set_limit(Limit::SQLITE_LIMIT_LENGTH, i32::MAX)?;
    let outcome = work();
    copy.set_limit(Limit::SQLITE_LIMIT_LENGTH, bound)?;
    Ok(outcome)
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
        "unknown function",
        "no such tokenizer",
        "unsafe use of",
        "unknown tokenizer",
        "error in tokenizer constructor",
    ]
    .iter()
    .any(|known| message.contains(known))
}

/// `"name"`, for SQL.
pub(crate) fn quoted(name: &str) -> String {
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
            (sqlite(ffi::SQLITE_ERROR, "unknown function: appfn()"), Status::Unchecked),
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
