//! The keys of a chain in the bucket, and whether one is free.

use replica::format::{GenerationId, Level, Txid, TxidRange};
use replica::store::{Chain, LtxKey, Store, StoreError};

/// The level of a TXID: the first is a snapshot, the others are syncs.
#[must_use]
pub fn level(txid: Txid) -> Level {
    if txid == Txid::FIRST { Level::SNAPSHOT } else { Level::SYNC }
}

/// The key of a TXID.
#[must_use]
pub fn ltx_key(generation: GenerationId, txid: Txid) -> LtxKey {
    LtxKey {
        chain: Chain::Generation(generation),
        level: level(txid),
        txids: TxidRange::single(txid),
    }
}

/// Whether `error`, which a key above `last` answered, says that the key is free. Without the right to list that is a
/// 403, as with credentials that do not work: those are told by the key that is known to be there.
///
/// # Errors
/// The key may or may not be free.
pub async fn free(
    store: &dyn Store,
    error: StoreError,
    generation: GenerationId,
    last: Txid,
) -> Result<(), StoreError> {
    if error.is_not_found() {
        return Ok(());
    }
    if !error.is_denied() {
        return Err(error);
    }
    store.head(&ltx_key(generation, last).into()).await.map(|_| ())
}
