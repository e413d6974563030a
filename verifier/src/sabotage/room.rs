//! Room for the scratch copies, told before the first byte is copied.

use std::path::Path;

use replica::format::Header;
use replica::restore::Plan;
use rustix::fs::statvfs;

/// Directories, links, documents.
const SMALL_BYTES: u64 = 16 << 20;

/// There is not enough room.
#[derive(Debug, thiserror::Error)]
#[error(
    "{directory}: sabotage needs {needed} bytes for scratch copies, {free} are free\n\
     HINT: set TMPDIR to a directory with that much room"
)]
pub struct NoRoom {
    directory: String,
    needed: u64,
    free: u64,
}

/// Bytes that scratch copies of a plan take at most: the chain, two of its largest files anew (with a page size
/// doubled), the database as it is, changed (twice, with its journal) and restored.
pub(super) fn needed(plan: &Plan, newest: &Header) -> u64 {
    let database = u64::from(newest.commit) * u64::from(newest.page_size.get());
    let largest = plan.files.iter().map(|file| file.size).max().unwrap_or(0);
    plan.bytes() + 3 * largest + 4 * database + SMALL_BYTES
}

/// Refuses to start without room for `needed` bytes.
pub(super) fn check(directory: &Path, needed: u64) -> anyhow::Result<()> {
    let system = statvfs(directory)?;
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    if free < needed {
        return Err(NoRoom { directory: directory.display().to_string(), needed, free }.into());
    }
    Ok(())
}
