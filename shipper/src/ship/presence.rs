//! Whether the bucket still holds what a restore needs: the generation's snapshot, and its newest file.
//!
//! Asked at each start, before a sync is acknowledged, after an outage, once an hour while anything is shipped and once a day
//! while nothing is. That costs two HEADs (one for a chain of one file), and where nobody waits one GET of the receipt; never
//! a LIST.
//!
//! *Invariant*: a store that cannot be reached, refuses, or is not the place it was (an unmounted disk) says nothing about the
//! chain. Without the right to list, S3 answers 403 for what is not there: that counts only beside an answer that shows
//! that the key may read.

use std::sync::{Mutex, MutexGuard, PoisonError};

use replica::documents::{ReceiptDocument, RepairWanted};
use replica::format::{GenerationId, Txid};
use replica::store::{Key, Store, StoreError, read_all};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::chain::LocalChain;
use crate::chain::keys::ltx_key;

/// A receipt is far smaller.
const RECEIPT_LIMIT: usize = 64 << 10;

/// Why the chain is not vouched for.
#[derive(Debug)]
pub enum Absent {
    /// An object of it is not in the bucket.
    Gone(StoreError),
    /// Nothing was learned.
    Unknown(StoreError),
}

impl From<StoreError> for Absent {
    fn from(error: StoreError) -> Self {
        Self::Unknown(error)
    }
}

/// Looks for the chain in the bucket; `false` where it has nothing there yet.
///
/// # Errors
/// [`Absent`].
pub async fn look(store: &dyn Store, chain: &LocalChain) -> Result<bool, Absent> {
    let (Some(generation), Some(durable)) = (chain.generation(), chain.durable_state()) else {
        return Ok(false);
    };
    store.is_here().await?;
    let head = async |txid: Txid| match store.head(&ltx_key(generation, txid).into()).await {
        Ok(_) => Ok(None),
        Err(error) if error.is_not_found() || error.is_denied() => Ok(Some(error)),
        Err(error) => Err(Absent::Unknown(error)),
    };
    let (snapshot, tip) = if durable.txid == Txid::FIRST {
        (head(Txid::FIRST).await?, None)
    } else {
        let (snapshot, tip) = tokio::join!(head(Txid::FIRST), head(durable.txid));
        (snapshot?, tip?)
    };
    let one_is_there = durable.txid != Txid::FIRST && (snapshot.is_none() || tip.is_none());
    let Some(error) = snapshot.or(tip) else { return Ok(true) };
    if error.is_not_found() || one_is_there {
        return Err(Absent::Gone(error));
    }
    // All of it is refused. A key that found it before, and may read what stands beside it, would have found it now.
    match chain.was_found() {
        true if store.head(&Key::Heartbeat).await.is_ok() => Err(Absent::Gone(error)),
        _ => Err(Absent::Unknown(error)),
    }
}

/// What a failed drill asks of this generation.
pub async fn repair_wanted(store: &dyn Store, generation: GenerationId) -> Option<RepairWanted> {
    let content = read_all(store, &Key::Receipt, RECEIPT_LIMIT).await.ok()?;
    let document: ReceiptDocument = serde_json::from_slice(&content).ok()?;
    document.repair_wanted.filter(|wanted| wanted.generation == generation)
}

/// Who wants the chain to be looked for, when it was found, and whether an operator asked for a new generation.
#[derive(Debug, Default)]
pub struct Looks {
    state: Mutex<State>,
    wanted: Notify,
}

#[derive(Debug, Default)]
struct State {
    wanted: Option<Instant>,
    found: Option<Instant>,
    reset: Option<String>,
    repaired: Option<Instant>,
}

impl Looks {
    /// Somebody who asked at `since` waits for a look that begins no earlier.
    pub fn want(&self, since: Instant) {
        let mut state = self.lock();
        if state.wanted < Some(since) {
            state.wanted = Some(since);
            self.wanted.notify_one();
        }
    }

    /// Waits until somebody wants one. For one waiter: the uploader.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Whether nobody looked since the last who wanted it.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        let state = self.lock();
        state.wanted.is_some() && state.found < state.wanted
    }

    /// A look that began at `began` found the chain.
    pub fn found(&self, began: Instant) {
        let mut state = self.lock();
        state.found = state.found.max(Some(began));
    }

    /// When the last look began that found the chain.
    #[must_use]
    pub fn found_at(&self) -> Option<Instant> {
        self.lock().found
    }

    /// Another chain begins: nothing is known of it.
    pub fn forget(&self) {
        self.lock().found = None;
    }

    /// An operator asks for a new generation.
    pub fn ask_reset(&self, why: String) {
        self.lock().reset = Some(why);
    }

    /// What an operator asked for, once.
    #[must_use]
    pub fn take_reset(&self) -> Option<String> {
        self.lock().reset.take()
    }

    /// Whether a repair may begin now: one in `every` at most, whatever receipts say.
    #[must_use]
    pub fn may_repair(&self, now: Instant, every: std::time::Duration) -> bool {
        let mut state = self.lock();
        let may = state.repaired.is_none_or(|last| now.duration_since(last) >= every);
        if may {
            state.repaired = Some(now);
        }
        may
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
