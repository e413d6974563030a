//! Every state that can be restored, from listings alone: for whoever wants one without its time.

use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::format::Txid;
use crate::restore::times::CommitTimes;
use crate::restore::walk::reachable;
use crate::restore::{Inventory, RestoreError, Target, v03};
use crate::store::{Chain, Store};

/// Chains listed at once.
const CONCURRENT_CHAINS: usize = 4;

/// The states of a replica, oldest first: of a Litestream v0.3 replica, then of chain after chain.
#[derive(Debug, Clone, Default)]
pub struct States {
    v03: Vec<v03::V03Point>,
    chains: Vec<(Chain, Vec<Txid>)>,
}

impl States {
    /// Lists what is there. One small request for each chain beside the listings, and only beside a v0.3 replica.
    ///
    /// # Errors
    /// The store's, or a damaged header.
    pub async fn read(store: &dyn Store) -> Result<Self, RestoreError> {
        let mut v03 = v03::states(&v03::inventories(store).await?);
        let inventories: Vec<Inventory> = stream::iter(store.chains().await?)
            .map(|chain| Inventory::read(store, chain))
            .buffered(CONCURRENT_CHAINS)
            .try_collect()
            .await?;
        let mut chains = Vec::new();
        for inventory in inventories {
            let states = reachable(&inventory);
            if let Some(first) = states.first().filter(|_| !v03.is_empty()) {
                // What a chain has too is restored from the chain.
                let began = CommitTimes::new(store, &inventory).time(*first).await?;
                v03.retain(|point| point.timestamp < began);
            }
            chains.push((inventory.chain, states));
        }
        Ok(Self { v03, chains })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.v03.len() + self.chains.iter().map(|(_, states)| states.len()).sum::<usize>()
    }

    /// Whether nothing can be restored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What to ask [`find()`](crate::restore::find()) for to get the state `number` (from 0, the oldest).
    #[must_use]
    pub fn get(&self, number: usize) -> Option<(Option<Chain>, Target)> {
        if let Some(point) = self.v03.get(number) {
            return Some((None, Target::AtOrBefore(point.timestamp)));
        }
        let mut left = number - self.v03.len();
        for (chain, states) in &self.chains {
            if let Some(txid) = states.get(left) {
                return Some((Some(*chain), Target::Txid(*txid)));
            }
            left -= states.len();
        }
        None
    }
}
