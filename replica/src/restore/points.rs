//! Restore points: the states that a chain can be restored to.

use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;

use crate::format::Txid;
use crate::restore::times::read_header;
use crate::restore::walk::{State, Walk};
use crate::restore::{Inventory, RestoreError};
use crate::store::{Chain, Store};

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
        let mut points = stream::iter(Walk::new(&inventory))
            .map(|state| point(store, &inventory, state))
            .buffered(CONCURRENT_HEADERS);
        while let Some(point) = points.try_next().await? {
            all.push(point);
        }
    }
    // No two are alike.
    all.sort_unstable_by_key(|point| (point.timestamp, point.chain, point.txid));
    Ok(all)
}

async fn point(
    store: &dyn Store,
    inventory: &Inventory,
    state: State<'_>,
) -> Result<RestorePoint, RestoreError> {
    let State { txid, bytes, witness } = state;
    let timestamp = read_header(store, inventory, witness).await?.timestamp;
    Ok(RestorePoint { chain: inventory.chain, txid, timestamp, bytes })
}
