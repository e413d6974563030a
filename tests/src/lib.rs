//! The harness of the end-to-end suites: servers to talk to, databases to ship, comparisons.

pub mod litestream;
pub mod process;
pub mod systemd;
pub mod writer;
