//! Runs the checks on a restored copy, off the async threads.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use crate::checks;
use crate::record::{Check, Status};

/// Every check that needs the copy, in the record's order, and its row counts.
pub async fn inspect(
    copy: PathBuf,
    deadline: Option<Instant>,
) -> (Vec<Check>, BTreeMap<String, u64>) {
    let work = tokio::task::spawn_blocking(move || run(&copy, deadline));
    work.await.unwrap_or_else(|_panic| {
        let detail = "a check itself failed (panicked)\nHINT: the verifier's log says where; please report it";
        (vec![Check::new("integrity_check", Status::Error, detail)], BTreeMap::new())
    })
}

fn run(copy: &std::path::Path, deadline: Option<Instant>) -> (Vec<Check>, BTreeMap<String, u64>) {
    match checks::open(copy, deadline) {
        Ok(copy) => {
            let integrity = checks::integrity(&copy);
            let foreign_keys = checks::foreign_keys(&copy);
            let (tables, counts) = checks::tables(&copy);
            (vec![integrity, foreign_keys, tables], counts)
        }
        Err(error) => (vec![checks::not_opened(&error)], BTreeMap::new()),
    }
}
