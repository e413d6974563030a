//! The end of a generation of ours, and what the heartbeat vouches for.
//!
//! Whoever holds the server's key may put files behind the newest one, and a process that is killed in the middle of an upload
//! leaves half an object on a store that keeps what it got. Neither may stand in the way of what was durable before. Only the
//! heartbeat says how far that is.

use crate::documents::Heartbeat;
use crate::format::Txid;
use crate::restore::walk::reachable;
use crate::restore::{Inventory, Plan, RestoreError, plan};
use crate::store::{Chain, Key, Store, read_all};

/// Largest heartbeat that is read, bytes.
const HEARTBEAT_LIMIT: usize = 64 << 10;

/// Plans the newest state; where files behind a gap are in the way that the heartbeat does not vouch for, the newest before it.
///
/// # Errors
/// Those of [`plan()`].
pub(super) async fn plan_newest(
    store: &dyn Store,
    inventory: &Inventory,
    remarks: &mut Vec<String>,
) -> Result<Plan, RestoreError> {
    let error = match plan(inventory, None) {
        Ok(plan) => return Ok(plan),
        Err(error) => error,
    };
    let (Some(reached), Some(durable)) =
        (reachable(inventory).pop(), vouched(store, inventory).await)
    else {
        return Err(error);
    };
    if reached < durable {
        return Err(error);
    }
    let text = error.to_string();
    remarks.push(format!(
        "{}: left out, since the heartbeat vouches for no TXID after {durable}",
        text.lines().next().unwrap_or_default()
    ));
    plan(inventory, Some(reached))
}

/// Whether what `inventory` has behind `txid`, the newest state of what is `left` of it, may be left out: the heartbeat vouches for
/// less, or it says nothing of this generation, and nothing but files at fault is there.
pub(super) async fn may_be_left_out(
    store: &dyn Store,
    inventory: &Inventory,
    left: &Inventory,
    txid: Txid,
) -> Result<bool, RestoreError> {
    if inventory.chain == Chain::Root {
        return Ok(false);
    }
    Ok(match vouched(store, inventory).await {
        Some(durable) => txid >= durable,
        None => left.files.iter().all(|file| file.txids.max() <= txid),
    })
}

/// The last TXID that the heartbeat calls durable, if it names this generation.
async fn vouched(store: &dyn Store, inventory: &Inventory) -> Option<Txid> {
    let bytes = read_all(store, &Key::Heartbeat, HEARTBEAT_LIMIT).await.ok()?;
    let beat: Heartbeat = serde_json::from_slice(&bytes).ok()?;
    (Chain::Generation(beat.generation) == inventory.chain).then_some(beat.txid).flatten()
}
