//! What is restored where a replica of Litestream v0.3 stands, alone or beside LTX chains.
//!
//! An LTX chain wins over a v0.3 replica in the same place: Litestream 0.5 goes on where 0.3 ended and never the other way
//! round, a chain says itself when its data was committed, and a v0.3 replica has nothing but its objects' modification times,
//! which any copy renews. (`litestream restore` looks at those times alone, and restores old data without a word.) What was
//! before the chain's first state is looked for in the v0.3 replica.

use crate::restore::points::points_of;
use crate::restore::refusal::too_early;
use crate::restore::select::reach;
use crate::restore::{
    RestoreError, RestorePoint, Selected, Target, V03Inventory, V03Point, V03Selected, select, v03,
};
use crate::store::{Chain, Store, V03Generation};

/// What was found for the point asked for.
#[derive(Debug, Clone)]
pub enum Found {
    /// A chain of LTX files.
    Ltx(Selected),
    /// A replica that Litestream v0.3 wrote.
    V03(V03Selected),
}

/// Finds what to restore, as [`select()`] does, also in a replica that Litestream v0.3 wrote.
///
/// # Errors
/// Those of [`select()`].
pub async fn find(
    store: &dyn Store,
    chain: Option<Chain>,
    target: Target,
) -> Result<Found, RestoreError> {
    if chain.is_some() {
        return select(store, chain, target).await.map(Found::Ltx);
    }
    let old = v03::inventories(store).await?;
    let updated = old.iter().filter_map(V03Inventory::last_write).max();
    let Some(updated) = updated else {
        return select(store, None, target).await.map(Found::Ltx);
    };
    let chains = store.chains().await?;
    if !chains.is_empty()
        && let Some(mut selected) = reach(store, None, target).await?
    {
        if updated > selected.timestamp {
            selected.remarks.push(format!(
                "a Litestream v0.3 replica stands beside the chain, and its newest object was written later ({updated}) than what is restored was committed ({}): it is left alone, but `litestream restore` would restore it",
                selected.timestamp
            ));
        }
        return Ok(Found::Ltx(selected));
    }
    let mut selected = v03::select(&old, target)?.ok_or_else(|| too_early(target))?;
    if !chains.is_empty() {
        selected.remarks.push(
            "no chain reaches back to the time asked for; restoring from the Litestream v0.3 replica beside them"
                .to_owned(),
        );
    }
    Ok(Found::V03(selected))
}

/// Finds the point in this generation of a replica that Litestream v0.3 wrote.
///
/// # Errors
/// No such generation, nothing in it as old, a TXID asked for, or the store's errors.
pub async fn find_v03(
    store: &dyn Store,
    generation: V03Generation,
    target: Target,
) -> Result<V03Selected, RestoreError> {
    let known = store.v03_generations().await?;
    if !known.contains(&generation) {
        let hint = match known.last() {
            Some(last) => format!("there is {last}; `shipper points` lists them all"),
            None => "no Litestream v0.3 replica stands there; a generation of ours is a UUID, as \
                     `shipper points` lists them"
                .to_owned(),
        };
        let url = store.url();
        let message = format!("no Litestream v0.3 generation {generation} at {url}\nHINT: {hint}");
        return Err(RestoreError::Chain { message });
    }
    let objects = store.list_v03(generation).await?;
    let inventory = V03Inventory { generation, objects };
    v03::select(&[inventory], target)?.ok_or_else(|| too_early(target))
}

/// Every state that can be asked for.
#[derive(Debug, Clone, Default)]
pub struct Points {
    /// Of chains of LTX files, oldest first.
    pub ltx: Vec<RestorePoint>,
    /// Of a replica that Litestream v0.3 wrote, oldest first; not those that a chain hides.
    pub v03: Vec<V03Point>,
    /// What an operator should know.
    pub remarks: Vec<String>,
}

/// Every restore point. Costs one small request for each state of an LTX chain.
///
/// # Errors
/// The store's, a damaged header, or nothing there at all.
pub async fn all_points(store: &dyn Store) -> Result<Points, RestoreError> {
    let mut v03 = v03::states(&v03::inventories(store).await?);
    let chains = store.chains().await?;
    if chains.is_empty() && !v03.is_empty() {
        return Ok(Points { v03, ..Points::default() });
    }
    let (ltx, remarks) = points_of(store, chains).await?;
    if let Some(first) = ltx.first() {
        v03.retain(|point| point.timestamp < first.timestamp);
    }
    Ok(Points { ltx, v03, remarks })
}
