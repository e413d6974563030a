//! Whether a file of ours says what the chain says that it stands for.
//!
//! A file of levels 1 to 9 is a second telling of states that level 0 has: at its end it must have the database checksum,
//! page size and page count of the level-0 file that ends there, and it must begin at the checksum of the file before it. Where
//! those files are, it is held against them before it is used, which costs a few small requests. What this cannot find: a file
//! whose pages were made to add up to the checksum (CRC-64 is no signature). That nobody but the verifier may write these
//! levels is the store's policy, and the first line.

use futures_util::future::try_join;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::format::{Checksum, Header, Level, TRAILER_SIZE, Txid};
use crate::restore::times::read_header;
use crate::restore::{Inventory, RestoreError};
use crate::store::{Chain, Key, LtxKey, LtxObject, Store};

/// Files looked at together: each takes a few small requests.
const CONCURRENT_FILES: usize = 16;

/// A file that is not what its chain says.
#[derive(Debug)]
pub struct Doubt {
    /// The file.
    pub file: LtxObject,
    /// What does not fit.
    pub problem: RestoreError,
}

/// What a file says of the database.
#[derive(Debug, Clone, Copy)]
struct Told {
    header: Header,
    post_apply: Option<Checksum>,
}

/// Those of `files` that do not fit level 0 of their chain. A neighbour that is not there, or is itself no LTX file, says nothing;
/// nor is anything known of a replica that Litestream wrote.
///
/// # Errors
/// The store's.
pub async fn doubts(
    store: &dyn Store,
    inventory: &Inventory,
    files: Vec<LtxObject>,
) -> Result<Vec<Doubt>, RestoreError> {
    if inventory.chain == Chain::Root {
        return Ok(Vec::new());
    }
    stream::iter(files)
        .map(|file| async move {
            let problem = problem(store, inventory, &file).await?;
            Ok(problem.map(|problem| Doubt { file, problem }))
        })
        .buffered(CONCURRENT_FILES)
        .try_filter_map(|doubt| async move { Ok(doubt) })
        .try_collect()
        .await
}

async fn problem(
    store: &dyn Store,
    inventory: &Inventory,
    file: &LtxObject,
) -> Result<Option<RestoreError>, RestoreError> {
    let txids = file.txids;
    let end = inventory.origin(txids.max()).filter(|end| *end != file);
    let before = Txid::new(txids.min().get() - 1).ok().and_then(|txid| inventory.origin(txid));
    if end.is_none() && before.is_none() {
        return Ok(None);
    }
    let told = match told(store, inventory, file).await {
        Ok(told) => told,
        Err(error) if error.is_replica_fault() => return Ok(Some(error)),
        // Whoever reads it says so.
        Err(RestoreError::Store(error)) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let neighbours =
        try_join(neighbour(store, inventory, end), neighbour(store, inventory, before));
    let (end, before) = neighbours.await?;
    let words = |checksum: Option<Checksum>| {
        checksum.map_or_else(|| "none".to_owned(), |checksum| checksum.to_string())
    };
    let mut compared = Vec::new();
    if let Some(end) = end {
        let pages = |told: &Told| format!("{} of {}", told.header.commit, told.header.page_size);
        compared.push(("pages of the database", pages(&end), pages(&told)));
        compared.push(("post-apply checksum", words(end.post_apply), words(told.post_apply)));
    }
    if let Some(before) = before {
        compared.push((
            "pre-apply checksum",
            words(before.post_apply),
            words(told.header.pre_apply),
        ));
    }
    let differs = compared.into_iter().find(|(_, expected, actual)| expected != actual);
    Ok(differs.map(|(what, expected, actual)| RestoreError::Conflict {
        object: store.locate(&key(inventory, file)),
        what,
        expected,
        actual,
    }))
}

/// What a neighbour says, as far as it can be read.
async fn neighbour(
    store: &dyn Store,
    inventory: &Inventory,
    file: Option<&LtxObject>,
) -> Result<Option<Told>, RestoreError> {
    let Some(file) = file else { return Ok(None) };
    match told(store, inventory, file).await {
        Ok(told) => Ok(Some(told)),
        Err(error) if error.is_replica_fault() => Ok(None),
        Err(RestoreError::Store(error)) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

async fn told(
    store: &dyn Store,
    inventory: &Inventory,
    file: &LtxObject,
) -> Result<Told, RestoreError> {
    let header = read_header(store, inventory, file).await?;
    let key = key(inventory, file);
    let start = file.size.saturating_sub(TRAILER_SIZE as u64);
    let mut reader = store.get(&key, Some(start..file.size)).await?;
    let mut bytes = Vec::with_capacity(TRAILER_SIZE);
    while let Some(piece) = reader.next().await? {
        bytes.extend_from_slice(&piece);
    }
    let Some(raw) = bytes.first_chunk().filter(|_| bytes.len() == TRAILER_SIZE) else {
        return Err(RestoreError::Conflict {
            object: store.locate(&key),
            what: "bytes of trailer",
            expected: TRAILER_SIZE.to_string(),
            actual: bytes.len().to_string(),
        });
    };
    Ok(Told { header, post_apply: Checksum::from_raw(u64::from_be_bytes(*raw)) })
}

fn key(inventory: &Inventory, file: &LtxObject) -> Key {
    Key::Ltx(LtxKey { chain: inventory.chain, level: file.level, txids: file.txids })
}

/// Whether a file tells again what level 0 (with the snapshot that it goes on from) has told.
pub(super) fn is_told_again(file: &LtxObject) -> bool {
    file.level != Level::SYNC && file.txids.max() != Txid::FIRST
}
