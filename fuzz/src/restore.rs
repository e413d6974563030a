//! A whole restore of LTX chains: listing, choice of the chain and the point, plan, apply.
//!
//! The input is a script of objects. Most are written by the codec, with right checksums, so that the fuzzer gets behind
//! those; some are bytes as they come.

use std::io::Cursor;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use replica::format::{
    DatabaseChecksum, Encoder, Header, Level, PageNumber, PageSize, Txid, TxidRange, page_checksum,
};
use replica::restore::{Found, Target, apply, find};
use replica::store::{Chain, Key, LtxKey};

use crate::bucket::{Bucket, Script, run, scratch_file};

const OBJECTS: usize = 24;
const GENERATION: &str = "0192f0c1-2345-7abc-8def-0123456789ab";

/// Restores; a restored copy has the size that the newest file says.
pub(crate) fn restore(data: &[u8]) {
    let mut script = Script(data);
    let target = match script.byte() {
        0..=127 => Target::Latest,
        at @ 128..=191 => Target::Txid(Txid::new(u64::from(at - 127)).unwrap()),
        at => Target::AtOrBefore(Timestamp::from_second(i64::from(at)).unwrap()),
    };
    let bucket = bucket(&mut script);
    run(async {
        let bucket = Arc::new(bucket);
        let Ok(Found::Ltx(selected)) = find(&*bucket, None, target).await else { return };
        let output = scratch_file();
        let copy = output.try_clone().unwrap();
        let Ok(restored) = apply(bucket, &selected.plan, output, Arc::new(())).await else {
            return;
        };
        assert_eq!(restored.txid, selected.plan.txid);
        let size = u64::from(restored.page_count) * u64::from(restored.page_size.get());
        assert_eq!(copy.metadata().unwrap().len(), size);
    });
}

fn bucket(script: &mut Script<'_>) -> Bucket {
    let mut bucket = Bucket::default();
    let mut database: Vec<u8> = Vec::new();
    for _ in 0..OBJECTS {
        if script.is_empty() {
            break;
        }
        let kind = script.byte();
        let level = Level::new(kind & 0x0f).unwrap_or(Level::SYNC);
        let (min, more) = (u64::from(script.byte() & 0x1f), u64::from(script.byte() & 0x07));
        let Ok(min) = Txid::new(min) else {
            bucket.0.insert(Key::Heartbeat, Bytes::copy_from_slice(script.bytes()));
            continue;
        };
        let txids = TxidRange::new(min, Txid::new(min.get() + more).unwrap()).unwrap();
        let chain = if kind & 0x10 == 0 {
            Chain::Generation(GENERATION.parse().unwrap())
        } else {
            Chain::Root
        };
        let content = if kind & 0x80 == 0 {
            written(script, txids, kind & 0x20 == 0, &mut database)
        } else {
            Some(script.bytes().to_vec())
        };
        if let Some(content) = content {
            bucket.0.insert(Key::Ltx(LtxKey { chain, level, txids }), Bytes::from(content));
        }
    }
    bucket
}

/// A file of the codec's; one byte a page stands for its content. `None` where the codec refuses to write it.
fn written(
    script: &mut Script<'_>,
    txids: TxidRange,
    checksummed: bool,
    database: &mut Vec<u8>,
) -> Option<Vec<u8>> {
    let page_size = PageSize::new(512).unwrap();
    let pre_apply = sum(database, page_size);
    let commit = script.byte() & 0x3f;
    database.resize(usize::from(commit), 0);
    let mut pages: Vec<u32> = if txids.is_snapshot() {
        database.fill(script.byte());
        (1..=u32::from(commit)).collect()
    } else {
        let count = usize::from(script.byte() & 0x0f);
        script.take(count).iter().map(|number| u32::from(number & 0x3f)).collect()
    };
    pages.sort_unstable();
    for number in &pages {
        let content = script.byte();
        let at = usize::try_from(*number).unwrap().checked_sub(1)?;
        *database.get_mut(at)? = content;
    }
    let header = Header {
        page_size,
        commit: u32::from(commit),
        txids,
        timestamp: Timestamp::from_second(i64::from(script.byte())).unwrap(),
        checksummed,
        pre_apply: (checksummed && !txids.is_snapshot()).then(|| pre_apply.value()),
        wal: None,
        node_id: 0,
    };
    let mut encoder = Encoder::new(Vec::new(), Cursor::new(Vec::new()), header).ok()?;
    for number in pages {
        let at = usize::try_from(number).unwrap() - 1;
        encoder.page(PageNumber::new(number).ok()?, &[database[at]; 512]).ok()?;
    }
    let post_apply = checksummed.then(|| sum(database, page_size).value());
    Some(encoder.finish(post_apply).ok()?.out)
}

fn sum(database: &[u8], page_size: PageSize) -> DatabaseChecksum {
    let mut sum = DatabaseChecksum::default();
    for (number, content) in (1..).zip(database) {
        sum.toggle(page_checksum(
            PageNumber::new(number).unwrap(),
            &vec![*content; page_size.len()],
        ));
    }
    sum
}
