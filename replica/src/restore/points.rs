//! Restore points: the states that a chain can be restored to.

use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;

use crate::format::Txid;
use crate::restore::times::{Bounds, claimed, is_prompt};
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
    Ok(points_of(store, store.chains().await?).await?.0)
}

/// The restore points of these chains, which are all there are, and what an operator should know.
pub(super) async fn points_of(
    store: &dyn Store,
    chains: Vec<Chain>,
) -> Result<(Vec<RestorePoint>, Vec<String>), RestoreError> {
    if chains.is_empty() {
        return Err(RestoreError::Chain {
            message: format!(
                "no replica at {}\nHINT: check the database's name and the URL",
                store.url()
            ),
        });
    }
    let (mut all, mut remarks) = (Vec::new(), Vec::new());
    for chain in chains {
        let inventory = Inventory::read(store, chain).await?;
        remarks.extend(inventory.remark());
        let bounds = Bounds::new(store.keeps_time(), &inventory);
        let mut claims = stream::iter(Walk::new(&inventory))
            .map(|state| claim(store, &inventory, state))
            .buffered(CONCURRENT_HEADERS);
        // Times of a chain never go back, except that a snapshot may be all that is left of an earlier state.
        let mut last = Timestamp::MIN;
        while let Some((state, claim)) = claims.try_next().await? {
            let State { txid, bytes, witness } = state;
            if claim.is_none() {
                let (chain, name) = (inventory.chain, witness.txids.file_name());
                remarks.push(format!(
                    "generation {chain}: level {} {name} is not valid: no restore point",
                    witness.level
                ));
                continue;
            }
            let mut timestamp = bounds.time(witness, claim);
            if is_prompt(chain, witness) {
                last = last.max(timestamp);
                timestamp = last;
            }
            all.push(RestorePoint { chain, txid, timestamp, bytes });
        }
    }
    // No two are alike.
    all.sort_unstable_by_key(|point| (point.timestamp, point.chain, point.txid));
    Ok((all, remarks))
}

async fn claim<'a>(
    store: &dyn Store,
    inventory: &Inventory,
    state: State<'a>,
) -> Result<(State<'a>, Option<Timestamp>), RestoreError> {
    Ok((state, claimed(store, inventory, state.witness).await?))
}
