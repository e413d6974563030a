//! The reader of Litestream v0.3 replicas: LZ4 frames, and the WALs in them.
//!
//! The input is a script of objects, with right checksums (of frames, of WALs) where it asks for them.

use std::sync::Arc;

use bytes::Bytes;
use replica::format::FrameReader;
use replica::format::PageSize;
use replica::format::wal::{ByteOrder, WalChecksum};
use replica::restore::{Found, Target, apply_v03, find};
use replica::store::{Key, V03Key, V03Part};

use crate::bucket::{Bucket, Script, run, scratch_file};

const OBJECTS: usize = 16;
/// Far above what an input can hold, far below what it could claim.
const MOST_BYTES: u64 = 256 << 20;

/// Restores what the script makes, and reads the script as a frame.
pub(crate) fn restore(data: &[u8]) {
    if let Ok(mut frame) = FrameReader::new(data) {
        let mut length = 0;
        while let Ok(Some(block)) = frame.next_block() {
            assert!(block.len() <= 4 << 20, "a block of {} bytes", block.len());
            length += block.len() as u64;
            assert!(length <= MOST_BYTES, "{length} bytes from {}", data.len());
        }
    }
    let mut script = Script(data);
    let mut bucket = Bucket::default();
    for _ in 0..OBJECTS {
        if script.is_empty() {
            break;
        }
        let kind = script.byte();
        let index = u32::from(kind & 0x03);
        let part = if kind & 0x04 == 0 {
            V03Part::Snapshot { index }
        } else {
            let offset = u64::from(script.byte()) * 8;
            V03Part::Segment { index, offset, digits: 8 }
        };
        let content = match kind & 0x30 {
            0x00 => frame(script.bytes()),
            0x10 => frame(&wal(&mut script)),
            0x20 => frame(&vec![script.byte(); usize::from(script.byte()) * 512]),
            _ => script.bytes().to_vec(),
        };
        let generation = "0123456789abcdef".parse().unwrap();
        bucket.0.insert(Key::V03(V03Key { generation, part }), Bytes::from(content));
    }
    run(async {
        let bucket = Arc::new(bucket);
        let Ok(Found::V03(selected)) = find(&*bucket, None, Target::Latest).await else { return };
        let output = scratch_file();
        let copy = output.try_clone().unwrap();
        if apply_v03(bucket, &selected.plan, output, Arc::new(())).await.is_ok() {
            assert!(copy.metadata().unwrap().len() <= MOST_BYTES);
        }
    });
}

/// One LZ4 frame of stored blocks.
fn frame(content: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x04, 0x22, 0x4d, 0x18, 0x64, 0x40, 0xa7];
    for block in content.chunks(64 << 10) {
        let length = u32::try_from(block.len()).unwrap() | 1 << 31;
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(block);
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(&twox_hash::XxHash32::oneshot(0, content).to_le_bytes());
    frame
}

/// A WAL of valid frames; what is in them, the script says.
fn wal(script: &mut Script<'_>) -> Vec<u8> {
    let flags = script.byte();
    let order = if flags & 1 == 0 { ByteOrder::Little } else { ByteOrder::Big };
    let page_size = PageSize::new(512 << (flags >> 1 & 1)).unwrap();
    let mut wal = Vec::new();
    wal.extend_from_slice(&(0x377f_0682_u32 | u32::from(flags & 1)).to_be_bytes());
    wal.extend_from_slice(&3_007_000_u32.to_be_bytes());
    wal.extend_from_slice(&page_size.get().to_be_bytes());
    wal.extend_from_slice(&[0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8]);
    let mut sum = WalChecksum::default().extend(order, &wal);
    put(&mut wal, sum);
    for _ in 0..script.byte() & 0x07 {
        let (page, commit, fill) = (script.byte(), script.byte(), script.byte());
        let mut head = Vec::new();
        head.extend_from_slice(&u32::from(page).to_be_bytes());
        head.extend_from_slice(&u32::from(commit).to_be_bytes());
        let content = vec![fill; page_size.len()];
        sum = sum.extend(order, &head).extend(order, &content);
        wal.extend_from_slice(&head);
        wal.extend_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
        put(&mut wal, sum);
        wal.extend_from_slice(&content);
    }
    wal
}

fn put(wal: &mut Vec<u8>, sum: WalChecksum) {
    wal.extend_from_slice(&sum.0.to_be_bytes());
    wal.extend_from_slice(&sum.1.to_be_bytes());
}
