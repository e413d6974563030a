//! Writes LTX files that break rules, with every checksum of the file right: what an attacker with our tools, or a
//! defect in them, would write. The codec's own encoder refuses to.

use std::hash::Hasher;
use std::io::Write;

use crc_fast::{CrcAlgorithm, Digest};
use lz4_flex::block::compress;
use replica::format::Checksum;

/// Bit 63 tells a checksum from none.
const BIT_63: u64 = 1 << 63;
/// LZ4 frame: magic, version 1 with independent blocks and content checksum, 64 KiB blocks, checksum of that.
const FRAME_HEADER: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x64, 0x40, 0xa7];
/// A block of a frame that is stored as it is.
const STORED: u32 = 1 << 31;

/// How a page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One LZ4 block behind its length.
    Block,
    /// One LZ4 frame, as older writers did.
    Frame,
    /// One LZ4 frame whose block is not compressed.
    StoredFrame,
}

/// What the page index says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Index {
    /// Where the pages are.
    Right,
    /// One byte further.
    Wrong,
}

/// One file being written. Its index is kept in memory: a dozen bytes a page.
#[derive(Debug)]
pub(super) struct Forge<W: Write> {
    out: W,
    content: Digest,
    index: Vec<u8>,
    offset: u64,
}

impl<W: Write> Forge<W> {
    pub(super) fn new(out: W, header: &[u8]) -> std::io::Result<Self> {
        let content = Digest::new(CrcAlgorithm::Crc64GoIso);
        let mut forge = Self { out, content, index: Vec::new(), offset: 0 };
        forge.covered(header)?;
        Ok(forge)
    }

    /// Adds a page of whatever length.
    pub(super) fn page(
        &mut self,
        number: u32,
        page: &[u8],
        form: Form,
        index: Index,
    ) -> std::io::Result<()> {
        let start = self.offset;
        self.covered(&number.to_be_bytes())?;
        self.covered(&u16::from(form == Form::Block).to_be_bytes())?;
        match form {
            Form::Block => {
                let block = compress(page);
                self.covered(&length(&block).to_be_bytes())?;
                self.uncovered(&block)?;
            }
            Form::Frame | Form::StoredFrame => {
                let packed = compress(page);
                let (block, flag) =
                    if form == Form::Frame { (&packed[..], 0) } else { (page, STORED) };
                self.uncovered(&FRAME_HEADER)?;
                self.uncovered(&(length(block) | flag).to_le_bytes())?;
                self.uncovered(block)?;
                self.uncovered(&[0; 4])?;
                self.uncovered(&twox_hash::XxHash32::oneshot(0, page).to_le_bytes())?;
            }
        }
        self.content.update(page);
        let shift = u64::from(index == Index::Wrong);
        for value in [u64::from(number), start + shift, self.offset - start] {
            varint(&mut self.index, value);
        }
        Ok(())
    }

    /// Ends the pages, and writes index and trailer.
    pub(super) fn finish(mut self, post_apply: Option<Checksum>) -> std::io::Result<W> {
        self.covered(&[0; 6])?;
        let mut index = std::mem::take(&mut self.index);
        varint(&mut index, 0);
        self.covered(&index)?;
        self.covered(&(index.len() as u64).to_be_bytes())?;
        self.covered(&post_apply.map_or(0, Checksum::raw).to_be_bytes())?;
        let file = self.content.finalize() | BIT_63;
        self.uncovered(&file.to_be_bytes())?;
        Ok(self.out)
    }

    /// Writes what the file checksum covers as it is.
    fn covered(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.content.update(bytes);
        self.uncovered(bytes)
    }

    fn uncovered(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.offset += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// At most some 70,000: a page and LZ4's overhead.
fn length(block: &[u8]) -> u32 {
    u32::try_from(block.len()).unwrap_or(u32::MAX)
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Writes one LZ4 frame of stored blocks, as long as `next` fills them.
pub(super) fn lz4_frame(
    out: &mut impl Write,
    mut next: impl FnMut(&mut [u8]) -> std::io::Result<usize>,
) -> std::io::Result<()> {
    let mut content = twox_hash::XxHash32::with_seed(0);
    let mut block = vec![0; 64 << 10];
    out.write_all(&FRAME_HEADER)?;
    loop {
        let filled = next(&mut block)?;
        let bytes = block.get(..filled).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        out.write_all(&(length(bytes) | STORED).to_le_bytes())?;
        out.write_all(bytes)?;
        content.write(bytes);
    }
    out.write_all(&[0; 4])?;
    out.write_all(&content.finish_32().to_le_bytes())
}
