//! Level-9 snapshots, made from a proven copy and from nothing else.
//!
//! A merge of the chain's files would give the same pages, but a page that is wrong in one of them would be wrong in
//! the snapshot, too, and from then on nothing would tell. A copy that a drill has just passed was restored, opened and
//! checked; on a checksummed chain the snapshot must add up to the very checksum that was proven.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use replica::format::{EncodeError, Encoder, Header, Level, PageNumber, Txid, TxidRange};
use replica::restore::{Inventory, Restored};
use replica::store::{Body, Key, LtxAttributes, LtxKey, PutOutcome, Store};
use rustix::fs::{FallocateFlags, fallocate};

use super::{CompactError, put_once};
use crate::drill::Proven;

/// The index kept in memory, bytes; a longer one goes to the temporary directory.
const INDEX_IN_MEMORY: usize = 256 << 10;
/// Bytes of the copy that are given back to the file system at once.
const GIVE_BACK: u64 = 64 << 20;

/// Whether a chain needs a new snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotState {
    /// Nothing was shipped since the newest one.
    Current,
    /// The newest one is not old enough.
    Young,
    /// It is.
    Due,
}

/// Judges the newest snapshot of a chain by the store's clock.
#[must_use]
pub fn snapshot_state(inventory: &Inventory, now: Timestamp, every: Duration) -> SnapshotState {
    let newest = inventory.files.iter().map(|file| file.txids.max()).max();
    let snapshots = inventory
        .files
        .iter()
        .filter(|file| file.level == Level::SNAPSHOT && file.txids.is_snapshot());
    let Some(snapshot) = snapshots.max_by_key(|file| file.txids.max()) else {
        return SnapshotState::Due;
    };
    if Some(snapshot.txids.max()) >= newest {
        return SnapshotState::Current;
    }
    let age = Duration::try_from(now.duration_since(snapshot.modified)).unwrap_or_default();
    if age < every { SnapshotState::Young } else { SnapshotState::Due }
}

/// A snapshot made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promoted {
    /// The state in it.
    pub txid: Txid,
    /// Its size, bytes.
    pub bytes: u64,
    /// Whether this run wrote it, or found the same bytes there.
    pub outcome: PutOutcome,
}

/// Writes the proven copy as the snapshot of its TXID. The copy is used up by it: what was read of it is given back to the
/// file system, so that both together take hardly more room than the copy alone.
///
/// # Errors
/// The copy changed since it was proven, the store's or the file system's failure.
pub async fn promote(store: &Arc<dyn Store>, proven: Proven) -> Result<Promoted, CompactError> {
    let Proven { workspace, selected, restored } = proven;
    let txid = restored.txid;
    let txids = TxidRange::new(Txid::FIRST, txid).unwrap_or(TxidRange::single(txid));
    let key = LtxKey { chain: selected.plan.chain, level: Level::SNAPSHOT, txids };
    let object = store.locate(&Key::Ltx(key));
    let (copy, path) = (workspace.copy(), workspace.copy().with_extension("ltx"));
    let (timestamp, spool) = (selected.timestamp, path.clone());
    let encoding = tokio::task::spawn_blocking(move || {
        let header = header(&restored, txids, timestamp);
        encode(&copy, &spool, header, &restored, object)
    });
    let encoded = encoding.await;
    let (len, attributes) = encoded.unwrap_or_else(|error| {
        Err(CompactError::io("run encoder")(std::io::Error::other(error)))
    })?;
    let outcome = put_once(&**store, &key, Body::File { path, len }, attributes).await?;
    // Until here: the file that was uploaded is in it.
    drop(workspace);
    Ok(Promoted { txid, bytes: len, outcome })
}

fn header(restored: &Restored, txids: TxidRange, timestamp: Timestamp) -> Header {
    Header {
        page_size: restored.page_size,
        commit: restored.page_count,
        txids,
        timestamp,
        checksummed: restored.post_apply.is_some(),
        pre_apply: None,
        wal: None,
        node_id: 0,
    }
}

fn encode(
    copy: &Path,
    path: &Path,
    header: Header,
    restored: &Restored,
    object: String,
) -> Result<(u64, LtxAttributes), CompactError> {
    let fail = |source| match source {
        EncodeError::Write(source) => CompactError::io("write snapshot")(source),
        source => CompactError::Copy { object: object.clone(), source },
    };
    let input = File::options().read(true).write(true).open(copy);
    let input = input.map_err(CompactError::io("open proven copy"))?;
    let file = File::create_new(path).map_err(CompactError::io("create file"))?;
    let scratch = tempfile::spooled_tempfile_in(INDEX_IN_MEMORY, path.parent().unwrap_or(path));
    let out = BufWriter::with_capacity(256 << 10, file);
    let mut encoder = Encoder::new(out, scratch, header).map_err(fail)?;
    let mut pages = BufReader::with_capacity(256 << 10, &input);
    let mut page = vec![0; header.page_size.len()];
    let mut given_back = 0;
    for number in 1..=header.commit {
        pages.read_exact(&mut page).map_err(CompactError::io("read proven copy"))?;
        let Ok(number) = PageNumber::new(number) else { continue };
        if number == header.page_size.lock_page() {
            continue;
        }
        encoder.page(number, &page).map_err(fail)?;
        let read = u64::from(number.get()) * u64::from(header.page_size.get());
        if read - given_back >= GIVE_BACK {
            // A file system that cannot do this needs the room for both.
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let _ = fallocate(&input, flags, given_back, read - given_back);
            given_back = read;
        }
    }
    let mut encoded = encoder.finish(restored.post_apply).map_err(fail)?;
    encoded.out.flush().map_err(CompactError::io("write snapshot"))?;
    let attributes = LtxAttributes { timestamp: header.timestamp, checksum: encoded.trailer.file };
    Ok((encoded.size, attributes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use replica::store::{Chain, LtxObject};

    use super::*;

    #[test]
    fn a_snapshot_is_due_when_it_is_old_and_something_came_after_it() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let file = |level, min, max, second| LtxObject {
            level: Level::new(level).unwrap(),
            txids: TxidRange::new(Txid::new(min).unwrap(), Txid::new(max).unwrap()).unwrap(),
            size: 1,
            modified: at(second),
        };
        let state = |files: &[LtxObject], now| {
            let inventory = Inventory::new(Chain::Root, files.to_vec());
            snapshot_state(&inventory, at(now), Duration::from_secs(100))
        };
        let first = file(9, 1, 1, 1000);
        assert_eq!(state(&[first], 9000), SnapshotState::Current);
        assert_eq!(state(&[first, file(0, 2, 2, 1010)], 1099), SnapshotState::Young);
        assert_eq!(state(&[first, file(0, 2, 2, 1010)], 1100), SnapshotState::Due);
        assert_eq!(
            state(&[first, file(0, 2, 2, 1010)], 900),
            SnapshotState::Young,
            "a clock behind"
        );
        let newer = [first, file(0, 2, 2, 1010), file(9, 1, 2, 1050)];
        assert_eq!(state(&newer, 9000), SnapshotState::Current);
        assert_eq!(state(&[file(0, 1, 1, 1000)], 1001), SnapshotState::Due, "none at all");
    }
}
