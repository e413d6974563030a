//! When a state was committed.
//!
//! The header of the file that ends at it says so, and whoever wrote the file chose it. A store that [keeps time](Store::keeps_time)
//! bounds what a header can claim: what a shipper put arrived when the store says, to the second, and the header counts
//! within that second only. So neither a wrong clock nor a forged header moves a state in time, and the times of a chain never
//! go back. What was written later than its data (a compaction, a snapshot of the verifier's, anything of Litestream's) is
//! bounded from above.
//!
//! A header costs one small request, so they are read only where needed and never twice.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

use crate::format::{HEADER_SIZE, Header, Level, Txid};
use crate::restore::{Inventory, RestoreError};
use crate::store::{Chain, Key, LtxKey, LtxObject, Store};

/// The store's word is true to the second: the last millisecond of it.
const SECOND: SignedDuration = SignedDuration::from_millis(999);

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

/// The time in a file's header; `None` where it has no valid one.
///
/// # Errors
/// The store's.
pub(super) async fn claimed(
    store: &dyn Store,
    inventory: &Inventory,
    file: &LtxObject,
) -> Result<Option<Timestamp>, RestoreError> {
    match read_header(store, inventory, file).await {
        Ok(header) => Ok(Some(header.timestamp)),
        Err(error) if error.is_replica_fault() => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the listing of a chain says about the times of its states. Pure.
#[derive(Debug)]
pub(super) struct Bounds {
    /// The store's word counts.
    kept: bool,
    chain: Chain,
    /// For each state that a shipper put: the last arrival up to it. Ascending in both.
    arrivals: Vec<(Txid, Timestamp)>,
}

impl Bounds {
    /// Those of a chain in a store that keeps time, or does not.
    pub(super) fn new(kept: bool, inventory: &Inventory) -> Self {
        let chain = inventory.chain;
        let mut arrivals = Vec::new();
        if kept {
            let shipped = inventory.files.iter().filter(|file| is_shipped(chain, file));
            arrivals.extend(shipped.map(|file| (file.txids.max(), file.modified)));
            arrivals.sort_unstable();
            let mut last = Timestamp::MIN;
            for (_, arrival) in &mut arrivals {
                last = last.max(*arrival);
                *arrival = last;
            }
        }
        Self { kept, chain, arrivals }
    }

    /// The earliest and the latest that `file` can be of, whatever its header says.
    pub(super) fn of(&self, file: &LtxObject) -> (Timestamp, Timestamp) {
        if !self.kept {
            return (Timestamp::MIN, Timestamp::MAX);
        }
        if !is_shipped(self.chain, file) {
            return (Timestamp::MIN, end_of_second(file.modified));
        }
        let end = file.txids.max();
        let at = self.arrivals.partition_point(|(txid, _)| *txid < end);
        let arrival = self.arrivals.get(at).map_or(file.modified, |(_, arrival)| *arrival);
        (arrival, end_of_second(arrival))
    }

    /// The time of the state that `file` ends at.
    pub(super) fn time(&self, file: &LtxObject, claimed: Option<Timestamp>) -> Timestamp {
        let (earliest, latest) = self.of(file);
        claimed.unwrap_or(file.modified).clamp(earliest, latest)
    }
}

fn end_of_second(arrival: Timestamp) -> Timestamp {
    arrival.checked_add(SECOND).unwrap_or(Timestamp::MAX)
}

/// Whether a shipper of ours put it, so that it arrived soon after its state was committed.
pub(super) fn is_shipped(chain: Chain, file: &LtxObject) -> bool {
    let first = file.txids.is_snapshot() && file.txids.max() == Txid::FIRST;
    chain != Chain::Root && (file.level == Level::SYNC || (file.level == Level::SNAPSHOT && first))
}

/// Whether its time is that of its state: a snapshot may be taken long after.
pub(super) fn is_prompt(chain: Chain, file: &LtxObject) -> bool {
    file.level != Level::SNAPSHOT || is_shipped(chain, file)
}

/// Times of a chain's states, each header asked for at most once.
pub(super) struct CommitTimes<'a> {
    store: &'a dyn Store,
    inventory: &'a Inventory,
    bounds: Bounds,
    claims: HashMap<Txid, Option<Timestamp>>,
}

impl<'a> CommitTimes<'a> {
    pub(super) fn new(store: &'a dyn Store, inventory: &'a Inventory) -> Self {
        Self::kept(store, inventory, store.keeps_time())
    }

    /// With (`kept`) or without the store's word.
    pub(super) fn kept(store: &'a dyn Store, inventory: &'a Inventory, kept: bool) -> Self {
        let bounds = Bounds::new(kept, inventory);
        Self { store, inventory, bounds, claims: HashMap::new() }
    }

    fn witness(&self, txid: Txid) -> Result<&'a LtxObject, RestoreError> {
        self.inventory.witness(txid).ok_or_else(|| RestoreError::Chain {
            message: format!("generation {}: no file ends at TXID {txid}", self.inventory.chain),
        })
    }

    /// When everything in the state `txid` had been committed, as exactly as any file knows.
    pub(super) async fn time(&mut self, txid: Txid) -> Result<Timestamp, RestoreError> {
        let file = self.witness(txid)?;
        let claim = match self.claims.get(&txid) {
            Some(claim) => *claim,
            None => claimed(self.store, self.inventory, file).await?,
        };
        self.claims.insert(txid, claim);
        Ok(self.bounds.time(file, claim))
    }

    async fn is_by(&mut self, txid: Txid, limit: Timestamp) -> Result<bool, RestoreError> {
        let (earliest, latest) = self.bounds.of(self.witness(txid)?);
        if latest <= limit || limit < earliest {
            return Ok(latest <= limit);
        }
        Ok(self.time(txid).await? <= limit)
    }

    /// How many of `states` (ascending, so their times are too) are at or before `limit`.
    async fn count(&mut self, states: &[Txid], limit: Timestamp) -> Result<usize, RestoreError> {
        let (mut low, mut high) = (0, states.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.is_by(states[middle], limit).await? {
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
        let chain = self.inventory.chain;
        let exact = |file: &&LtxObject| is_prompt(chain, file);
        let mut ends: Vec<Txid> =
            self.inventory.files.iter().filter(exact).map(|file| file.txids.max()).collect();
        ends.sort_unstable();
        let (exact, late): (Vec<Txid>, Vec<Txid>) =
            states.iter().copied().partition(|state| ends.binary_search(state).is_ok());
        drop(ends);
        let exact_count = self.count(&exact, limit).await?;
        let late_count = self.count(&late, limit).await?;
        Ok(exact[..exact_count].last().max(late[..late_count].last()).copied())
    }
}
