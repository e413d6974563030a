//! When a state was committed, from the headers of the files that end at it.
//!
//! A header costs one small request, so they are read only where needed and never twice.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::format::{HEADER_SIZE, Header, Level, Txid};
use crate::restore::{Inventory, RestoreError};
use crate::store::{Key, LtxKey, LtxObject, Store};

/// Reads the header of one file.
///
/// # Errors
/// The store's, or a header that is not valid or not of this file.
pub(super) async fn read_header(
    store: &dyn Store,
    inventory: &Inventory,
    file: &LtxObject,
) -> Result<Header, RestoreError> {
    let key = Key::Ltx(LtxKey { chain: inventory.chain, level: file.level, txids: file.txids });
    let damaged = |source| RestoreError::Damaged { object: store.locate(&key), source };
    let short = |actual: u64| RestoreError::Conflict {
        object: store.locate(&key),
        what: "bytes of header",
        expected: HEADER_SIZE.to_string(),
        actual: actual.to_string(),
    };
    if file.size < HEADER_SIZE as u64 {
        // There is no such range to ask for.
        return Err(short(file.size));
    }
    let mut reader = store.get(&key, Some(0..HEADER_SIZE as u64)).await?;
    let mut bytes = Vec::with_capacity(HEADER_SIZE);
    while let Some(piece) = reader.next().await? {
        bytes.extend_from_slice(&piece);
    }
    let bytes: &[u8; HEADER_SIZE] =
        bytes.as_slice().try_into().map_err(|_| short(bytes.len() as u64))?;
    let header = Header::decode(bytes).map_err(damaged)?;
    header.check_name(file.txids).map_err(damaged)?;
    Ok(header)
}

/// Times of states, each asked for at most once.
pub(super) struct Clock<'a> {
    store: &'a dyn Store,
    inventory: &'a Inventory,
    known: HashMap<Txid, Timestamp>,
}

impl<'a> Clock<'a> {
    pub(super) fn new(store: &'a dyn Store, inventory: &'a Inventory) -> Self {
        Self { store, inventory, known: HashMap::new() }
    }

    /// When everything in the state `txid` had been committed, as exactly as any file knows.
    pub(super) async fn time(&mut self, txid: Txid) -> Result<Timestamp, RestoreError> {
        if let Some(time) = self.known.get(&txid) {
            return Ok(*time);
        }
        let file = self.inventory.witness(txid).ok_or_else(|| RestoreError::Chain {
            message: format!("generation {}: no file ends at TXID {txid}", self.inventory.chain),
        })?;
        let time = read_header(self.store, self.inventory, file).await?.timestamp;
        self.known.insert(txid, time);
        Ok(time)
    }

    /// How many of `states` (ascending, so their times are too) are at or before `limit`.
    async fn count(&mut self, states: &[Txid], limit: Timestamp) -> Result<usize, RestoreError> {
        let (mut low, mut high) = (0, states.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.time(states[middle]).await? <= limit {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// The last of `states` that is known to be at or before `limit`. A handful of requests,
    /// however many states there are.
    ///
    /// States that only a snapshot ends at are searched by themselves: their times say when the
    /// snapshot was taken, which may be after the next state was committed.
    pub(super) async fn last_at_or_before(
        &mut self,
        states: &[Txid],
        limit: Timestamp,
    ) -> Result<Option<Txid>, RestoreError> {
        let below = self.inventory.files.iter().filter(|file| file.level != Level::SNAPSHOT);
        let mut ends: Vec<Txid> = below.map(|file| file.txids.max()).collect();
        ends.sort_unstable();
        let (exact, late): (Vec<Txid>, Vec<Txid>) =
            states.iter().copied().partition(|state| ends.binary_search(state).is_ok());
        drop(ends);
        let exact_count = self.count(&exact, limit).await?;
        let late_count = self.count(&late, limit).await?;
        Ok(exact[..exact_count].last().max(late[..late_count].last()).copied())
    }
}
