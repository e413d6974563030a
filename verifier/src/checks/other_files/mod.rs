//! `other_files`: the files that the newest state does not need, a share of them in each drill of the newest state.
//!
//! Earlier restore points need them, and nobody else ever reads them. A damaged one makes the check `fail` where a point
//! that is advertised has no other way to it; where all have (an overlapping level, a later snapshot), the check passes with
//! a loud note, since everything that was promised can still be had, once the damaged object is out of the way.
//! A deadline only ends the reading: what was not read is left to later drills.
//!
//! Each file is checked by itself; that neighbours of a checksummed chain fit each other is only checked where a restore
//! reads both. Objects of a Litestream v0.3 replica are not read here.

mod share;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use futures_util::stream::{self, StreamExt};
use replica::format::Txid;
use replica::restore::{Inventory, RestoreError, Restored, Selected, is_end, spoiled, verify};
use replica::store::{Chain, Key, LtxKey, LtxObject, Store};

use crate::checks::{LISTED, vanished};
use crate::record::{Check, DamagedFile, OtherFiles, Status};
use crate::words::in_words;

pub use share::Share;

const NAME: &str = "other_files";
/// Small files read at once: each is one request, and has one piece in memory.
const CONCURRENT_FILES: usize = 16;
/// Above this a file is read alone, bytes: it takes several requests at once by itself.
const SMALL: u64 = 1 << 20;

/// What was found in one file.
type Found = (Chain, LtxObject, Result<(), RestoreError>);

/// Reads a share of the other files: the one that is due on the day of `at`, or everything.
pub async fn other_files(
    store: &Arc<dyn Store>,
    selected: &Selected,
    restored: &Restored,
    (share, at): (Share, jiff::Timestamp),
    deadline: Option<Instant>,
) -> (Check, Option<OtherFiles>) {
    let inventories = match inventories(store, selected).await {
        Ok(inventories) => inventories,
        Err(error) => return (trouble(error), None),
    };
    // Each file of a plan ends after the one before it.
    let needed = |file: &LtxObject| {
        let files = &selected.plan.files;
        files
            .binary_search_by_key(&file.txids.max(), |needed| needed.txids.max())
            .is_ok_and(|at| (files[at].level, files[at].txids) == (file.level, file.txids))
    };
    let others = inventories
        .iter()
        .flat_map(|inventory| inventory.files.iter().map(|file| (inventory.chain, *file)))
        .filter(|(chain, file)| *chain != selected.plan.chain || !needed(file));
    let mut found = OtherFiles { of: others.clone().count(), ..OtherFiles::default() };
    let (due, whole) = match share {
        Share::OfTheDay => share::due(others, at),
        Share::Everything => (others.collect(), true),
    };
    let (small, large): (Vec<_>, Vec<_>) =
        due.into_iter().partition(|(_, file)| file.size <= SMALL);
    let read = |(chain, file): (Chain, LtxObject)| {
        let page_size = (chain == selected.plan.chain).then_some(restored.page_size);
        let store = Arc::clone(store);
        async move { (chain, file, verify(store, chain, file, page_size).await) }
    };
    let small = stream::iter(small).map(read).buffer_unordered(CONCURRENT_FILES);
    let mut reading = std::pin::pin!(small.chain(stream::iter(large).then(read)));
    let mut damaged: Vec<(Chain, LtxObject, String)> = Vec::new();
    let mut in_time = true;
    loop {
        let next = match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline.into(), reading.next()).await,
            None => Ok(reading.next().await),
        };
        let Ok(next) = next else {
            in_time = false;
            break;
        };
        let Some((chain, file, outcome)): Option<Found> = next else { break };
        match outcome {
            Ok(()) => {}
            Err(error) if vanished(&error) => continue,
            Err(error) if error.is_replica_fault() => damaged.push((chain, file, in_words(error))),
            Err(error) => return (trouble(error), Some(found)),
        }
        found.verified += 1;
        found.bytes += file.size;
    }
    let rest = match (in_time, whole) {
        (false, _) => "; the deadline ended the reading, the rest is left to later drills",
        (_, false) => "; the share is above what one drill reads, the rest is left to later drills",
        _ => "",
    };
    let read = format!(
        "{} of {} file(s) that the newest state does not need were read, {} bytes{rest}",
        found.verified, found.of, found.bytes
    );
    if damaged.is_empty() {
        let status = if found.verified == 0 && !in_time { Status::Unchecked } else { Status::Pass };
        return (Check::new(NAME, status, read), Some(found));
    }
    damaged.sort_by_key(|(chain, file, _)| (*chain, file.txids, file.level));
    let check = judge(store.as_ref(), &inventories, &damaged, &read, &mut found);
    (check, Some(found))
}

/// Every chain's files: the restored one's as the plan saw them, the others' as they are now.
async fn inventories<'a>(
    store: &Arc<dyn Store>,
    selected: &'a Selected,
) -> Result<Vec<Cow<'a, Inventory>>, RestoreError> {
    let mut inventories = vec![Cow::Borrowed(&selected.inventory)];
    for chain in store.chains().await? {
        if chain != selected.plan.chain {
            inventories.push(Cow::Owned(Inventory::read(store.as_ref(), chain).await?));
        }
    }
    Ok(inventories)
}

/// What could not be found out, for reasons around the drill.
fn trouble(error: RestoreError) -> Check {
    let detail = format!(
        "{}\nHINT: check the store's address and network, then drill again",
        in_words(error)
    );
    Check::new(NAME, Status::Error, detail)
}

/// What the damage means for the restore points.
fn judge(
    store: &dyn Store,
    inventories: &[Cow<'_, Inventory>],
    damaged: &[(Chain, LtxObject, String)],
    read: &str,
    found: &mut OtherFiles,
) -> Check {
    let mut lost = Vec::new();
    for inventory in inventories {
        let of_chain: Vec<&LtxObject> = damaged
            .iter()
            .filter(|(chain, ..)| *chain == inventory.chain)
            .map(|(_, file, _)| file)
            .collect();
        // The end of a generation that is not the latest: perhaps cut short while it was written, by a process that died. Where
        // it was acknowledged, the generation went on, or the drill of its newest state told.
        let ended = inventory.chain != inventories[0].chain
            && inventory.chain != Chain::Root
            && is_end(inventory, |file| of_chain.contains(&file));
        if !of_chain.is_empty() && !ended {
            lost.extend(spoiled(inventory, |file| of_chain.contains(&file)));
        }
    }
    let mut detail = format!("{} damaged: {read}", damaged.len());
    for (chain, file, problem) in damaged.iter().take(LISTED) {
        let inventory = inventories.iter().find(|inventory| inventory.chain == *chain);
        let points = inventory.map(|all| spoiled(all, |other| other == file)).unwrap_or_default();
        let key = Key::Ltx(LtxKey { chain: *chain, level: file.level, txids: file.txids });
        let spoils = match (points.first(), points.last()) {
            (Some(first), Some(last)) if first == last => format!("spoils TXID {first}"),
            (Some(first), Some(last)) => {
                format!("spoils {} restore point(s), TXIDs {first} to {last}", points.len())
            }
            _ => "every restore point has another way".to_owned(),
        };
        detail.push_str(&format!("\n{problem}\n  {spoils}"));
        found.damaged.push(DamagedFile {
            object: store.locate(&key),
            problem: problem.clone(),
            spoiled_points: points.len(),
            first: points.first().copied(),
            last: points.last().copied(),
        });
    }
    verdict(&lost, detail)
}

fn verdict(lost: &[Txid], detail: String) -> Check {
    if lost.is_empty() {
        let note = "note: no restore point is lost that was durable: a restore passes a damaged object over\n\
                    HINT: find out what damaged it";
        return Check::new(NAME, Status::Pass, format!("{detail}\n{note}"));
    }
    let hint = format!(
        "HINT: {} restore point(s) cannot be had any more unless the object comes back (an older version of it in the \
         bucket, another copy); newer points are not touched. Find out what damaged it",
        lost.len()
    );
    Check::new(NAME, Status::Fail, format!("{detail}\n{hint}"))
}
