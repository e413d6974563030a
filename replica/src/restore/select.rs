//! Which chain, and which point in it.
//!
//! The latest chain is the one that the heartbeat names if it has files; else the most recently updated
//! one that does. A new generation that has none yet is no failure: its first upload, the snapshot, is
//! still on its way, and the one before it is still the latest. A chain with a hole, or with files but
//! without a snapshot, is *not* passed over in favour of an older one: that would be old data without a word.

use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;

use crate::documents::Heartbeat;
use crate::format::Txid;
use crate::restore::plan::gap_after;
use crate::restore::times::{Clock, read_header};
use crate::restore::walk::reachable;
use crate::restore::{Inventory, Plan, RestoreError, plan};
use crate::store::{Chain, Key, Store, read_all};

/// Largest heartbeat that is read, bytes.
const HEARTBEAT_LIMIT: usize = 64 << 10;
/// Chains listed at once.
const CONCURRENT_CHAINS: usize = 4;

/// The point asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The newest.
    Latest,
    /// The newest at or before.
    AtOrBefore(Timestamp),
    /// Exactly this one.
    Txid(crate::format::Txid),
}

/// A chain, what it has, and the plan that reaches the point asked for.
#[derive(Debug, Clone)]
pub struct Selected {
    /// The plan.
    pub plan: Plan,
    /// Everything the chain has.
    pub inventory: Inventory,
    /// When the state was read from the source: everything in the copy was committed then. From the
    /// header of the file that knows best (a snapshot may be taken later than its data).
    pub timestamp: Timestamp,
    /// What an operator should know (heartbeat and files disagree on the latest chain, …).
    pub remarks: Vec<String>,
}

/// Finds the chain (the one asked for; else the one the heartbeat names if it has files; else the most
/// recently updated one that does) and plans the restore.
///
/// For a timestamp without a chain, chains older than the latest are looked at until one reaches
/// back to it.
///
/// # Errors
/// Nothing restorable, the point not reachable, the latest chain damaged, or the store's errors.
pub async fn select(
    store: &dyn Store,
    chain: Option<Chain>,
    target: Target,
) -> Result<Selected, RestoreError> {
    reach(store, chain, target).await?.ok_or_else(|| too_early(target))
}

/// As [`select()`]; `None` where no chain reaches back to the time asked for.
pub(super) async fn reach(
    store: &dyn Store,
    chain: Option<Chain>,
    target: Target,
) -> Result<Option<Selected>, RestoreError> {
    if let Some(chain) = chain {
        let chains = store.chains().await?;
        if !chains.contains(&chain) {
            return Err(unknown_chain(store, chain, &chains));
        }
        let inventory = Inventory::read(store, chain).await?;
        return resolve(store, inventory, target, Vec::new()).await;
    }
    let mut remarks = Vec::new();
    // Before the listing, so that what it vouches for must be in the listing.
    let beat = heartbeat(store, &mut remarks).await?;
    let chains = store.chains().await?;
    let inventories = by_age(store, &chains, beat, target, &mut remarks).await?;
    if inventories.is_empty() {
        return Err(nothing(store, &chains));
    }
    for inventory in inventories {
        if let Some(selected) = resolve(store, inventory, target, remarks.clone()).await? {
            return Ok(Some(selected));
        }
    }
    Ok(None)
}

/// The chains that have files, the latest first.
async fn by_age(
    store: &dyn Store,
    chains: &[Chain],
    beat: Option<Heartbeat>,
    target: Target,
    remarks: &mut Vec<String>,
) -> Result<Vec<Inventory>, RestoreError> {
    let mut inventories: Vec<Inventory> = stream::iter(chains.to_vec())
        .map(|chain| Inventory::read(store, chain))
        .buffered(CONCURRENT_CHAINS)
        .try_collect()
        .await?;
    inventories.retain(|inventory| !inventory.files.is_empty());
    inventories.sort_by_key(|inventory| std::cmp::Reverse((inventory.updated(), inventory.chain)));
    let Some(beat) = beat else { return Ok(inventories) };
    let named = Chain::Generation(beat.generation);
    match inventories.iter().position(|inventory| inventory.chain == named) {
        Some(0) => {}
        Some(position) => {
            let newest = inventories[0].chain;
            remarks.push(format!(
                "the heartbeat names generation {named}, but {newest} was written to later; restoring the heartbeat's (choose with --generation)"
            ));
            let latest = inventories.remove(position);
            inventories.insert(0, latest);
        }
        None if beat.txid.is_some() && !begun_after(&beat, target) => {
            return Err(all_lost(store, &beat));
        }
        None => remarks.push(format!(
            "the heartbeat names generation {named}, which has no complete snapshot yet"
        )),
    }
    Ok(inventories)
}

/// A missing or unreadable heartbeat never stops a restore.
async fn heartbeat(
    store: &dyn Store,
    remarks: &mut Vec<String>,
) -> Result<Option<Heartbeat>, RestoreError> {
    let bytes = match read_all(store, &Key::Heartbeat, HEARTBEAT_LIMIT).await {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) if error.is_denied() => {
            remarks.push("the heartbeat may not be read; going by the files alone".to_owned());
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    match serde_json::from_slice(&bytes) {
        Ok(heartbeat) => Ok(Some(heartbeat)),
        Err(error) => {
            remarks
                .push(format!("the heartbeat cannot be read ({error}); going by the files alone"));
            Ok(None)
        }
    }
}

/// Plans for one chain; `None` where it does not reach back to the timestamp asked for.
async fn resolve(
    store: &dyn Store,
    inventory: Inventory,
    target: Target,
    remarks: Vec<String>,
) -> Result<Option<Selected>, RestoreError> {
    let headless = !inventory.files.is_empty() && !inventory.has_snapshot();
    if headless && !began_after(store, &inventory, target).await? {
        return Err(no_snapshot(store, &inventory));
    }
    let mut clock = Clock::new(store, &inventory);
    let plan = match target {
        Target::Latest => plan(&inventory, None)?,
        Target::Txid(txid) => plan(&inventory, Some(txid))?,
        Target::AtOrBefore(limit) => {
            let states = reachable(&inventory);
            let Some(txid) = clock.last_at_or_before(&states, limit).await? else {
                return Ok(None);
            };
            refuse_gap(&inventory, &mut clock, txid, limit).await?;
            plan(&inventory, Some(txid))?
        }
    };
    let timestamp = clock.time(plan.txid).await?;
    Ok(Some(Selected { plan, inventory, timestamp, remarks }))
}

/// Whether even the oldest file there is came after the time asked for.
async fn began_after(
    store: &dyn Store,
    inventory: &Inventory,
    target: Target,
) -> Result<bool, RestoreError> {
    let (Target::AtOrBefore(limit), Some(first)) = (target, inventory.first()) else {
        return Ok(false);
    };
    Ok(read_header(store, inventory, first).await?.timestamp > limit)
}

/// Whether the heartbeat's generation was made after the time asked for, as far as its name tells.
fn begun_after(beat: &Heartbeat, target: Target) -> bool {
    let Target::AtOrBefore(limit) = target else { return false };
    let made = beat.generation.uuid().get_timestamp().map(|time| time.to_unix().0);
    let made = made.and_then(|seconds| Timestamp::from_second(i64::try_from(seconds).ok()?).ok());
    made.unwrap_or(beat.written_at) > limit
}

/// Rounding down must not hide a hole: a later state that was committed by then, but cannot be
/// reached because files before it are lost, is a refusal, not older data.
async fn refuse_gap(
    inventory: &Inventory,
    clock: &mut Clock<'_>,
    reached: Txid,
    limit: Timestamp,
) -> Result<(), RestoreError> {
    let Some(gap) = gap_after(inventory, Some(reached)) else { return Ok(()) };
    let mut beyond: Vec<Txid> =
        inventory.files.iter().map(|file| file.txids.max()).filter(|end| *end > reached).collect();
    beyond.sort_unstable();
    beyond.dedup();
    if clock.last_at_or_before(&beyond, limit).await?.is_some() {
        return Err(gap.refusal(inventory, Some(reached)));
    }
    Ok(())
}

pub(super) fn too_early(target: Target) -> RestoreError {
    let what = match target {
        Target::AtOrBefore(limit) => format!("no restore point at or before {limit}"),
        Target::Latest | Target::Txid(_) => "no restore point".to_owned(),
    };
    RestoreError::Chain {
        message: format!("{what}\nHINT: `shipper points` lists the times that can be asked for"),
    }
}

fn nothing(store: &dyn Store, chains: &[Chain]) -> RestoreError {
    let url = store.url();
    let message = if chains.is_empty() {
        format!(
            "no replica at {url}\nHINT: check the database's name and the URL; it is the directory that holds the generations"
        )
    } else {
        format!(
            "no files in any of the {} generations at {url}\nHINT: the first snapshot may still be on its way; otherwise its files are lost",
            chains.len()
        )
    };
    RestoreError::Chain { message }
}

/// The snapshot is a generation's first upload, so where there is anything else, it was there.
fn no_snapshot(store: &dyn Store, inventory: &Inventory) -> RestoreError {
    RestoreError::Chain {
        message: format!(
            "generation {} at {}: no snapshot (no file starts at TXID {}), although later files are there\nHINT: its snapshot is lost; for the older data of another generation, name it: --generation <id> (`shipper points` lists them)",
            inventory.chain,
            store.url(),
            Txid::FIRST
        ),
    }
}

fn all_lost(store: &dyn Store, beat: &Heartbeat) -> RestoreError {
    let (generation, url) = (beat.generation, store.url());
    RestoreError::Chain {
        message: format!(
            "generation {generation} at {url}: no files, although the heartbeat of {} says that it was shipped\nHINT: its files are lost; for the older data of another generation, name it: --generation <id> (`shipper points` lists them)",
            beat.written_at
        ),
    }
}

fn unknown_chain(store: &dyn Store, chain: Chain, chains: &[Chain]) -> RestoreError {
    let known: Vec<String> = chains.iter().rev().take(5).map(ToString::to_string).collect();
    let url = store.url();
    let hint = if known.is_empty() {
        "there is none; check the URL".to_owned()
    } else {
        format!("the newest there are {}", known.join(", "))
    };
    RestoreError::Chain { message: format!("no generation {chain} at {url}\nHINT: {hint}") }
}
