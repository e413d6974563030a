//! Reading a live database's WAL without losing a commit and without getting in the application's way.
//!
//! - [`sqlite`]: the few things asked of SQLite itself; with `index_file` the only `unsafe` code.
//! - [`attach`]: what must hold of a database before we touch it.
//! - [`hold`]: the read transaction that is never let go of, hand over hand.
//! - [`reader`]: from a position to a mark, every frame verified.
//! - [`files`]: whether the files are still those that we have open.
//! - [`openers`]: who else has them open.
//! - [`index_file`]: an index that is cut short under us ends an attachment, not the process.
//! - [`rest`]: what the database was when nobody had it open.
//! - [`checkpoint`]: how the WAL is kept small.
//!
//! *Invariant*: while a [`hold::Hold`] exists, no frame after the captured [position](replica::format::wal::Position) can be overwritten.
//! Nothing here writes to the database or its WAL; only SQLite's own checkpoint does.

pub mod attach;
pub mod checkpoint;
pub mod files;
pub mod hold;
pub mod index_file;
pub mod openers;
pub mod reader;
pub mod rest;
pub mod sqlite;
