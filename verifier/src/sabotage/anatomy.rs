//! Where the parts of a (sound) LTX file are, so that damage can be aimed.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use replica::format::{HEADER_SIZE, TRAILER_SIZE};

/// Page number and flags.
const PAGE_HEAD_LENGTH: usize = 6;
const PAGE_HEAD: u64 = PAGE_HEAD_LENGTH as u64;
/// What stands before the LZ4 data of a page in block form: its length.
const BLOCK_PREFIX: u64 = 4;
/// … and in frame form: magic, descriptor, block size.
const FRAME_PREFIX: u64 = 11;

/// Byte offsets in a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Anatomy {
    /// The first page's length field (block form) or block size (frame form).
    pub(super) first_size: u64,
    /// The first literal byte of the first page: a change here always changes the page.
    pub(super) first_literal: u64,
    /// Six zero bytes that end the pages.
    pub(super) pages_end: u64,
    /// The page index.
    pub(super) index: u64,
    /// Post-apply and file checksum.
    pub(super) trailer: u64,
    /// The file's length.
    pub(super) length: u64,
}

impl Anatomy {
    /// Looks into a file; `None` where it has no page.
    pub(super) fn of(path: &Path) -> io::Result<Option<Self>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let trailer = length.saturating_sub(TRAILER_SIZE as u64);
        let index_length = u64::from_be_bytes(bytes(&mut file, trailer.saturating_sub(8))?);
        // The length of the index stands behind it and does not count itself.
        let index = trailer.saturating_sub(8).saturating_sub(index_length);
        let first = HEADER_SIZE as u64;
        let head: [u8; PAGE_HEAD_LENGTH] = bytes(&mut file, first)?;
        if head == [0; PAGE_HEAD_LENGTH] {
            return Ok(None);
        }
        let block = head[5] & 1 == 1;
        let data = first + PAGE_HEAD + if block { BLOCK_PREFIX } else { FRAME_PREFIX };
        let first_size = if block { first + PAGE_HEAD } else { data - 4 };
        Ok(Some(Self {
            first_size,
            first_literal: first_literal(&mut file, data)?,
            pages_end: index.saturating_sub(PAGE_HEAD),
            index,
            trailer,
            length,
        }))
    }
}

/// A block begins with a token whose upper half counts literals (there is at least one: nothing could be matched
/// yet); 15 there goes on in bytes of 255.
fn first_literal(file: &mut File, data: u64) -> io::Result<u64> {
    let [token]: [u8; 1] = bytes(file, data)?;
    let mut at = data + 1;
    if token >> 4 == 15 {
        while bytes::<1>(file, at)? == [255] {
            at += 1;
        }
        at += 1;
    }
    Ok(at)
}

fn bytes<const N: usize>(file: &mut File, offset: u64) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}
