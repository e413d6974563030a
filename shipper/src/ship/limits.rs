//! How many files the process may have open, and how many it needs.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors of one attached database, at most: five connections' worth of database and WAL files, the wal-index,
/// the spool.
const FOR_EACH_DATABASE: u64 = 14;
/// Everything else: the runtime, connections to the store, clients, merges of spooled files.
const FOR_THE_PROCESS: u64 = 256;

/// Raises the soft limit of open files to the hard one, and returns it.
pub fn raise() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // Where it is forbidden the present limit stays, and is checked like any other.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The most files that this process could ever open.
#[must_use]
pub fn hard() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// Says what to do where `limit` open files will not do for so many databases.
#[must_use]
pub fn shortage(databases: usize, limit: u64) -> Option<String> {
    let needed = FOR_THE_PROCESS + FOR_EACH_DATABASE * databases as u64;
    (needed > limit).then(|| {
        format!(
            "{databases} databases may need {needed} open files, and {limit} are allowed\n\
             HINT: raise LimitNOFILE= in the unit (or ulimit -Hn)"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_s_limit_does_for_thousands_and_a_shell_s_does_not() {
        assert_eq!(shortage(4_000, 65_536), None);
        assert_eq!(shortage(10, 1_024), None);
        let said = shortage(100, 1_024).unwrap_or_default();
        assert!(said.contains("1656") && said.contains("\nHINT: "), "{said}");
    }
}
