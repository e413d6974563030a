//! One generation: its windows, level by level.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future;
use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use replica::documents::Heartbeat;
use replica::format::{Level, Txid};
use replica::restore::{Inventory, doubts};
use replica::store::{Chain, LtxObject, Store, StoreError};
use tokio::sync::Semaphore;

use super::{CompactError, DEADLINE, Gap, LEVELS, Merged, Report, Window, merge_window, windows};
use crate::checks::out_of_time;
use crate::drill::within;
use crate::record::Status;
use crate::words::in_words;

/// Requests under way at once.
const REQUESTS: usize = 32;
/// Windows of few bytes made at once: small objects cost waiting, not work.
const SMALL_AT_ONCE: usize = 3;
/// How few, bytes.
const SMALL_BYTES: u64 = 4 << 20;

/// Where one database's compaction works, and until when.
#[derive(Debug)]
pub struct Bench<'a> {
    /// The database.
    pub store: Arc<dyn Store>,
    /// Where results wait for their upload.
    pub directory: &'a Path,
    /// When it must have ended.
    pub deadline: Option<Instant>,
}

/// The last TXID that may be compacted: the newest listed, and in the generation that the heartbeat names none after
/// what the shipper calls durable. `None`: nothing may.
#[must_use]
pub fn limit(inventory: &Inventory, heartbeat: Option<&Heartbeat>) -> Option<Txid> {
    let newest = inventory.files.iter().map(|file| file.txids.max()).max()?;
    match heartbeat {
        Some(beat) if Chain::Generation(beat.generation) == inventory.chain => {
            beat.txid.map(|durable| durable.min(newest))
        }
        _ => Some(newest),
    }
}

/// Makes every window up to `limit` that is not there yet; what is made is added to the inventory, what is not to the
/// report.
pub async fn compact_chain(
    bench: &Bench<'_>,
    inventory: &mut Inventory,
    limit: Txid,
    report: &mut Report,
) {
    let permits = Semaphore::new(REQUESTS);
    for level in LEVELS.into_iter().filter_map(|level| Level::new(level).ok()) {
        let planned = windows(inventory, level, limit);
        // Above level 1, what is missing is what was not made, or not told, below.
        for gap in planned.gaps.iter().filter(|_| level.get() == LEVELS[0]) {
            report.windows_left += 1;
            report.find("chain", Status::Fail, missing(inventory, gap));
        }
        let (small, large): (Vec<Window<'_>>, Vec<Window<'_>>) =
            planned.windows.into_iter().partition(|window| window.bytes() <= SMALL_BYTES);
        let (mut made, mut goes_on) = (Vec::new(), true);
        for (windows, at_once) in [(small, SMALL_AT_ONCE), (large, 1)] {
            goes_on = goes_on
                && make(bench, inventory, windows, at_once, &permits, &mut made, report).await;
        }
        inventory.files.extend(made);
        if !goes_on {
            return;
        }
    }
}

/// Makes windows of one level; `false` where it makes no sense to go on. Those that are under way are ended then, not
/// dropped.
async fn make(
    bench: &Bench<'_>,
    inventory: &Inventory,
    windows: Vec<Window<'_>>,
    at_once: usize,
    permits: &Semaphore,
    objects: &mut Vec<LtxObject>,
    report: &mut Report,
) -> bool {
    let mut left = windows.len() as u64;
    let stopped = Cell::new(false);
    let mut made = stream::iter(windows)
        .take_while(|_| future::ready(!stopped.get()))
        .map(|window| async move {
            // A timer alone is too coarse for a window that is made at once.
            if bench.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return (Err(out_of_time(DEADLINE)), window);
            }
            let merging = async {
                refuse_doubtful(bench, inventory, &window).await?;
                let chain = inventory.chain;
                merge_window(&bench.store, chain, &window, bench.directory, permits).await
            };
            (within(bench.deadline, merging).await, window)
        })
        .buffer_unordered(at_once);
    while let Some((outcome, window)) = made.next().await {
        match outcome {
            Ok(Ok(merged)) => {
                left -= 1;
                objects.push(object(&window, merged));
                report.made(&window, merged);
                tracing::debug!(level = window.level.get(), txids = %window.txids, "compacted");
            }
            Ok(Err(error)) => {
                let status = if error.is_replica_fault() { Status::Fail } else { Status::Error };
                let name = format!("window: level {} {}", window.level, window.txids);
                stopped.set(stopped.get() || !concerns_one_window(&error));
                report.find(&name, status, in_words(error));
            }
            Err(_out_of_time) if stopped.get() => {}
            Err(_out_of_time) => {
                stopped.set(true);
                let detail = format!(
                    "deadline reached with {left} windows of level {} left\nHINT: the next run goes on from here; give it more time, or run it more often",
                    window.level
                );
                report.find(DEADLINE, Status::Error, detail);
            }
        }
    }
    report.windows_left += left;
    !stopped.get()
}

/// Merging checks that inputs fit each other. Here: the first one goes on from the file before the window, and those that
/// were made by a compaction are what level 0 says.
async fn refuse_doubtful(
    bench: &Bench<'_>,
    inventory: &Inventory,
    window: &Window<'_>,
) -> Result<(), CompactError> {
    let made = window.inputs.iter().skip(1).filter(|file| file.level != Level::SYNC);
    let files = window.inputs.iter().take(1).chain(made).map(|file| **file).collect();
    match doubts(&*bench.store, inventory, files).await?.into_iter().next() {
        Some(doubt) => Err(doubt.problem.into()),
        None => Ok(()),
    }
}

/// Whether the other windows are worth trying.
fn concerns_one_window(error: &CompactError) -> bool {
    match error {
        CompactError::Store(error) => matches!(
            error,
            StoreError::NotFound { .. }
                | StoreError::Precondition { .. }
                | StoreError::Changed { .. }
        ),
        CompactError::Io { .. } => false,
        _ => true,
    }
}

fn object(window: &Window<'_>, merged: Merged) -> LtxObject {
    LtxObject {
        level: window.level,
        txids: window.txids,
        size: merged.bytes,
        modified: Timestamp::now(),
    }
}

fn missing(inventory: &Inventory, gap: &Gap) -> String {
    let Gap { txids, missing } = gap;
    let holds = |file: &&LtxObject| {
        file.level != Level::SNAPSHOT
            && file.txids.min() <= *missing
            && *missing <= file.txids.max()
    };
    let what = match inventory.files.iter().find(holds) {
        Some(file) => format!(
            "is only in level {} file {}, which reaches beyond the window",
            file.level, file.txids
        ),
        None => "is in no file: a gap".to_owned(),
    };
    format!(
        "generation {}: TXID {missing} {what}; the window {txids} is left as it is",
        inventory.chain
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use replica::format::TxidRange;

    use super::*;

    #[test]
    fn nothing_after_what_the_shipper_calls_durable_is_merged() {
        let generation = |last| format!("0192f0c1-2345-7abc-8def-01234567890{last}");
        let txid = |number| Txid::new(number).unwrap();
        let file = |number| LtxObject {
            level: Level::SYNC,
            txids: TxidRange::single(txid(number)),
            size: 1,
            modified: Timestamp::UNIX_EPOCH,
        };
        let chain = Chain::Generation(generation(1).parse().unwrap());
        let inventory = Inventory::new(chain, (2..=9).map(file).collect());
        let beat = |last, durable: Option<u64>| -> Heartbeat {
            serde_json::from_value(serde_json::json!({
                "version": 1, "generation": generation(last), "page_size": 4096, "page_count": 1,
                "txid": durable.map(txid),
                "written_at": "2026-11-22T09:00:00Z", "synced_at": null,
                "last_transaction_at": null, "wal_bytes": 0, "last_error": null,
                "shipper_version": "0.1.0", "sqlite_version": "3", "host": "web-1",
            }))
            .unwrap()
        };
        assert_eq!(limit(&inventory, None), Some(txid(9)));
        assert_eq!(limit(&inventory, Some(&beat(1, Some(7)))), Some(txid(7)));
        assert_eq!(limit(&inventory, Some(&beat(1, Some(12)))), Some(txid(9)));
        assert_eq!(limit(&inventory, Some(&beat(1, None))), None);
        assert_eq!(limit(&inventory, Some(&beat(2, Some(7)))), Some(txid(9)), "of another one");
        assert_eq!(limit(&Inventory::new(chain, Vec::new()), None), None);
    }
}
