//! The machine: room for the state, and open files.

use std::path::{Path, PathBuf};

use super::findings::Findings;
use crate::commands::readable_bytes;
use crate::config::{Config, Match};
use crate::control::StatusReply;
use crate::ship::limits;

/// Below this nothing can be spooled, bytes.
const LEAST_ROOM: u64 = 64 << 20;
/// A page index: 8 bytes for each page, of 4 KiB as a rule, twice.
const INDEX_SHARE: u64 = 256;

pub(super) fn examine(
    config: &Config,
    found: &[Match],
    running: Option<&StatusReply>,
    findings: &mut Findings,
) {
    room(&config.state_dir, found, findings);
    open_files(found.len(), running, findings);
}

/// A snapshot needs a compressed copy of its database, twice for a moment; one is taken at a time or two.
fn room(state_dir: &Path, found: &[Match], findings: &mut Findings) {
    let sizes =
        found.iter().map(|found| std::fs::metadata(&found.path).map_or(0, |file| file.len()));
    let sizes: Vec<u64> = sizes.collect();
    let largest = sizes.iter().copied().max().unwrap_or(0);
    let needed = LEAST_ROOM + 2 * largest + sizes.iter().sum::<u64>() / INDEX_SHARE;
    let at = existing(state_dir);
    let free = match rustix::fs::statvfs(&at) {
        Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
        Err(error) => {
            findings.fail(format!(
                "state_dir {}: {error}\nHINT: set state_dir, or StateDirectory= in the unit",
                state_dir.display()
            ));
            return;
        }
    };
    let said = format!("{} free for state_dir {}", readable_bytes(free), state_dir.display());
    if free < LEAST_ROOM {
        findings.fail(format!("{said}\nHINT: make room: what waits for the bucket is kept there"));
    } else if free < needed {
        findings.warn(format!(
            "{said}, and the first snapshot of the largest database may need {}\n\
             HINT: make room; a compressed copy of a database is kept there, twice for a moment, until it is in the bucket",
            readable_bytes(needed)
        ));
    } else {
        findings.ok(said);
    }
}

/// The nearest directory above that is there: the state directory itself may be made at the first start.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

fn open_files(databases: usize, running: Option<&StatusReply>, findings: &mut Findings) {
    let (whose, limit) = match running.and_then(|running| limit_of(running.pid)) {
        Some(limit) => ("the running shipper", limit),
        None => ("a shipper started from here", limits::hard()),
    };
    match limits::shortage(databases, limit) {
        Some(shortage) => findings.warn(format!("{whose}: {shortage}")),
        None => findings.ok(format!("{whose} may open files enough for {databases} databases")),
    }
}

/// The soft limit of another process, which it has raised to its hard one.
fn limit_of(process: u32) -> Option<u64> {
    let limits = std::fs::read_to_string(format!("/proc/{process}/limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let soft = line.split_whitespace().next()?;
    if soft == "unlimited" { Some(u64::MAX) } else { soft.parse().ok() }
}
