//! A directory as a store.

/// One database's directory.
#[derive(Debug)]
pub struct FileStore {}
