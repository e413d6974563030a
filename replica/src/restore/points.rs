//! Restore points: the states that a chain can be restored to.

use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;

use crate::format::Txid;
use crate::restore::plan::{Planner, reachable};
use crate::restore::times::read_header;
use crate::restore::{Inventory, RestoreError};
use crate::store::{Chain, LtxObject, Store};

/// Headers read at once: each is one small request.
const CONCURRENT_HEADERS: usize = 16;

/// One state that can be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePoint {
    /// Its chain.
    pub chain: Chain,
    /// Its TXID.
    pub txid: Txid,
    /// A `--timestamp` that is safe to ask for to get it.
    pub timestamp: Timestamp,
    /// Bytes to fetch for it.
    pub bytes: u64,
}

/// Every restore point of every chain, oldest first. Costs one small request for each.
///
/// # Errors
/// The store's, a damaged header, or no chain at all.
pub async fn points(store: &dyn Store) -> Result<Vec<RestorePoint>, RestoreError> {
    points_of(store, store.chains().await?).await
}

/// The restore points of these chains, which are all there are.
pub(super) async fn points_of(
    store: &dyn Store,
    chains: Vec<Chain>,
) -> Result<Vec<RestorePoint>, RestoreError> {
    if chains.is_empty() {
        return Err(RestoreError::Chain {
            message: format!(
                "no replica at {}\nHINT: check the database's name and the URL",
                store.url()
            ),
        });
    }
    let mut all = Vec::new();
    for chain in chains {
        let inventory = Inventory::read(store, chain).await?;
        let states = reachable(&inventory);
        let planner = Planner::new(&inventory);
        let points: Vec<RestorePoint> = stream::iter(states)
            .map(|txid| point(store, &inventory, &planner, txid))
            .buffered(CONCURRENT_HEADERS)
            .try_collect()
            .await?;
        all.extend(points);
    }
    all.sort_by_key(|point| (point.timestamp, point.chain, point.txid));
    Ok(all)
}

async fn point(
    store: &dyn Store,
    inventory: &Inventory,
    planner: &Planner<'_>,
    txid: Txid,
) -> Result<RestorePoint, RestoreError> {
    let file: &LtxObject = inventory.witness(txid).ok_or_else(|| RestoreError::Chain {
        message: format!("generation {}: no file ends at TXID {txid}", inventory.chain),
    })?;
    let timestamp = read_header(store, inventory, file).await?.timestamp;
    let bytes = planner.files_to(txid).iter().map(|file| file.size).sum();
    Ok(RestorePoint { chain: inventory.chain, txid, timestamp, bytes })
}
