//! The replica: its bytes, its keys, where it is stored and how a database is restored from it.
//!
//! Both binaries depend on this crate; it depends on neither.
//!
//! - [`mod@format`]: the LTX v3 codec and the identifiers in it. Pure: no async, no clock, no logging.
//! - [`store`]: the object-store seam, with S3 and file backends.
//! - [`restore`]: a pure plan and a thin apply.
//! - [`documents`]: the small JSON objects beside the generations.
//! - [`operator`]: what both programs share towards the person who runs them.
//! - [`threads`]: for work that blocks, and may hang.

pub mod documents;
pub mod format;
pub mod operator;
pub mod restore;
pub mod store;
pub mod threads;
