//! What a v0.3 replica has, and which of it is restored.

use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::restore::v03::plan::{V03Inventory, V03Plan, plan};
use crate::restore::{RestoreError, Target};
use crate::store::Store;

/// Generations listed at once.
const CONCURRENT_GENERATIONS: usize = 4;

/// The plan for the point asked for, of a replica without TXIDs.
#[derive(Debug, Clone)]
pub struct V03Selected {
    /// The plan.
    pub plan: V03Plan,
    /// What an operator should know.
    pub remarks: Vec<String>,
}

/// Lists every generation.
pub(in crate::restore) async fn inventories(
    store: &dyn Store,
) -> Result<Vec<V03Inventory>, RestoreError> {
    stream::iter(store.v03_generations().await?)
        .map(|generation| async move {
            let objects = store.list_v03(generation).await?;
            Ok(V03Inventory { generation, objects })
        })
        .buffered(CONCURRENT_GENERATIONS)
        .try_collect()
        .await
}

/// Plans for the point asked for; `None` where nothing is as old.
pub(in crate::restore) fn select(
    inventories: &[V03Inventory],
    target: Target,
) -> Result<Option<V03Selected>, RestoreError> {
    let limit = match target {
        Target::Latest => None,
        Target::AtOrBefore(limit) => Some(limit),
        Target::Txid(txid) => {
            return Err(RestoreError::Chain {
                message: format!(
                    "TXID {txid}: a Litestream v0.3 replica has none\nHINT: ask for a time; `shipper points` lists them"
                ),
            });
        }
    };
    let planned = plan(inventories, limit)?;
    Ok(planned.map(|plan| V03Selected { plan, remarks: Vec::new() }))
}
