//! Files that a plan does not need: whether they are sound, and what could not be restored without them.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::format::{Decoder, PageSize, Txid};
use crate::restore::fetch::{Feed, fetch_into};
use crate::restore::walk::reachable;
use crate::restore::{Inventory, RestoreError};
use crate::store::{Chain, Key, LtxKey, LtxObject, Store};

/// Reads one file to its end and checks everything that it says of itself, in bounded memory; with `page_size`
/// (of a restored copy) also that it fits its chain.
///
/// # Errors
/// A damaged file ([`RestoreError::is_replica_fault`]), or the store's.
pub async fn verify(
    store: Arc<dyn Store>,
    chain: Chain,
    file: LtxObject,
    page_size: Option<PageSize>,
) -> Result<(), RestoreError> {
    let key = Key::Ltx(LtxKey { chain, level: file.level, txids: file.txids });
    let object = store.locate(&key);
    let decoding = fetch_into(store, vec![(key, file.size)], Arc::new(()), move |mut feed| {
        let decoded = decode(&mut feed, &file);
        // What the store said instead of bytes tells more than the decoder's failed read.
        let header = match (feed.error.take(), decoded) {
            (Some(error), _) => return Err(error),
            (None, Err(source)) => return Err(RestoreError::Damaged { object, source }),
            (None, Ok(header)) => header,
        };
        match page_size {
            Some(expected) if expected != header.page_size => Err(RestoreError::Conflict {
                object,
                what: "page size",
                expected: expected.to_string(),
                actual: header.page_size.to_string(),
            }),
            _ => Ok(()),
        }
    });
    decoding.await
}

fn decode(
    feed: &mut Feed,
    file: &LtxObject,
) -> Result<crate::format::Header, crate::format::FormatError> {
    let decoder = Decoder::new(feed.object(file.size))?;
    let header = *decoder.header();
    header.check_name(file.txids)?;
    decoder.finish()?;
    Ok(header)
}

/// Whether the files that `lost` names are the end of the chain: what can be restored without them ends where everything else does.
#[must_use]
pub fn is_end(inventory: &Inventory, lost: impl Fn(&LtxObject) -> bool) -> bool {
    let files = inventory.files.iter().filter(|file| !lost(file)).copied().collect();
    let left = Inventory::new(inventory.chain, files);
    let newest = reachable(&left).last().copied();
    newest.is_some_and(|newest| left.files.iter().all(|file| file.txids.max() <= newest))
}

/// The states, ascending, that nothing leads to without the files that `lost` names.
#[must_use]
pub fn spoiled(inventory: &Inventory, lost: impl Fn(&LtxObject) -> bool) -> Vec<Txid> {
    let files = inventory.files.iter().filter(|file| !lost(file)).copied().collect();
    let left = reachable(&Inventory::new(inventory.chain, files));
    let left: BTreeSet<Txid> = left.into_iter().collect();
    reachable(inventory).into_iter().filter(|state| !left.contains(state)).collect()
}
