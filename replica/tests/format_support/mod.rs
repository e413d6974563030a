//! Files made for tests: valid ones by the encoder, and wrong ones byte by byte, with every
//! checksum right unless the test wants otherwise.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{Cursor, Read};

use jiff::Timestamp;
use replica::format::{
    Checksum, DatabaseChecksum, Decoder, Encoder, FormatError, Header, PageNumber, PageSize,
    Trailer, Txid, TxidRange, page_checksum,
};

pub type Pages = Vec<(u32, Vec<u8>)>;

pub fn number(value: u32) -> PageNumber {
    PageNumber::new(value).unwrap()
}

pub fn txids(min: u64, max: u64) -> TxidRange {
    TxidRange::new(Txid::new(min).unwrap(), Txid::new(max).unwrap()).unwrap()
}

/// A header without database checksums.
pub fn header(page_size: u32, commit: u32, min: u64, max: u64) -> Header {
    Header {
        page_size: PageSize::new(page_size).unwrap(),
        commit,
        txids: txids(min, max),
        timestamp: Timestamp::from_millisecond(1_795_338_712_531).unwrap(),
        checksummed: false,
        pre_apply: None,
        wal: None,
        node_id: 0,
    }
}

/// The same, as part of a checksummed chain.
pub fn checksummed(header: Header, pre_apply: Option<Checksum>) -> Header {
    Header { checksummed: true, pre_apply, ..header }
}

/// A page that LZ4 shrinks, told apart by `seed`.
pub fn page(page_size: u32, seed: u8) -> Vec<u8> {
    let mut page = vec![seed; page_size as usize];
    page.iter_mut().zip(0_u8..=200).for_each(|(byte, i)| *byte = i.wrapping_mul(seed) % 29);
    page
}

pub fn database_checksum(pages: &[(u32, Vec<u8>)]) -> Checksum {
    let mut sum = DatabaseChecksum::default();
    for (n, page) in pages {
        sum.toggle(page_checksum(number(*n), page));
    }
    sum.value()
}

pub fn encode(header: Header, pages: &[(u32, Vec<u8>)], post_apply: Option<Checksum>) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new(), Cursor::new(Vec::new()), header).unwrap();
    for (n, page) in pages {
        encoder.page(number(*n), page).unwrap();
    }
    encoder.finish(post_apply).unwrap().out
}

/// Decodes a whole file.
pub fn decode(input: impl Read) -> Result<(Header, Pages, Trailer), FormatError> {
    let mut decoder = Decoder::new(input)?;
    let header = *decoder.header();
    let mut page = vec![0; header.page_size.len()];
    let mut pages = Vec::new();
    while let Some(n) = decoder.next_page(&mut page)? {
        pages.push((n.get(), page.clone()));
    }
    Ok((header, pages, decoder.finish()?))
}

/// A file put together by hand: nothing stops it from breaking rules.
pub struct Forge {
    bytes: Vec<u8>,
    /// What the file checksum covers.
    content: Vec<u8>,
    index: Vec<u8>,
}

impl Forge {
    pub fn new(header: &Header) -> Self {
        let bytes = header.encode().to_vec();
        Self { content: bytes.clone(), bytes, index: Vec::new() }
    }

    /// A page with its header as given; `stored` follows (a size prefix is part of it and counts
    /// for the checksum if `prefixed`), and `page` is what it decodes to.
    pub fn frame(mut self, n: u32, flags: u16, prefix: &[u8], stored: &[u8], page: &[u8]) -> Self {
        let offset = self.bytes.len();
        let head = [&n.to_be_bytes()[..], &flags.to_be_bytes()[..], prefix].concat();
        self.bytes.extend_from_slice(&head);
        self.content.extend_from_slice(&head);
        self.bytes.extend_from_slice(stored);
        self.content.extend_from_slice(page);
        for value in [n as usize, offset, self.bytes.len() - offset] {
            put_varint(&mut self.index, value);
        }
        self
    }

    /// A page as one LZ4 block.
    pub fn block(self, n: u32, page: &[u8]) -> Self {
        let block = lz4_flex::block::compress(page);
        let length = u32::try_from(block.len()).unwrap().to_be_bytes();
        self.frame(n, 1, &length, &block, page)
    }

    /// A page as one LZ4 frame.
    pub fn lz4_frame(self, n: u32, page: &[u8]) -> Self {
        self.frame(n, 0, &[], &lz4_frame(page), page)
    }

    /// The offset at which the next thing is written.
    pub fn offset(&self) -> usize {
        self.bytes.len()
    }

    /// The right index, for tests that spoil it.
    pub fn index(&self) -> Vec<u8> {
        [&self.index[..], &[0]].concat()
    }

    pub fn finish(self, post_apply: u64) -> Vec<u8> {
        let index = self.index();
        self.finish_with_index(&index, index.len() as u64, post_apply)
    }

    pub fn finish_with_index(mut self, index: &[u8], length: u64, post_apply: u64) -> Vec<u8> {
        let end = [&[0; 6][..], index, &length.to_be_bytes(), &post_apply.to_be_bytes()].concat();
        self.bytes.extend_from_slice(&end);
        self.content.extend_from_slice(&end);
        self.bytes.extend_from_slice(&(crc64_iso(&self.content) | 1 << 63).to_be_bytes());
        self.bytes
    }
}

/// The frame that the reference implementation wrote before it used blocks.
pub fn lz4_frame(page: &[u8]) -> Vec<u8> {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    use std::io::Write;
    let info = FrameInfo::new()
        .block_size(BlockSize::Max64KB)
        .block_mode(BlockMode::Independent)
        .content_checksum(true);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(page).unwrap();
    encoder.finish().unwrap()
}

fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
}

/// CRC-64/GO-ISO by its definition: independent of the crate under test.
fn crc64_iso(bytes: &[u8]) -> u64 {
    let mut crc = u64::MAX;
    for byte in bytes {
        crc ^= u64::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xd800_0000_0000_0000 } else { crc >> 1 };
        }
    }
    !crc
}
