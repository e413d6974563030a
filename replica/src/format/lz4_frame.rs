//! A whole object that is one LZ4 frame, block by block: what Litestream v0.3 keeps its bytes in.
//!
//! Invariants: memory is two blocks of at most 4 MiB, whatever the frame says; a frame that ends early or is
//! followed by anything is refused (a reader that takes the end of the input for the end of the frame would
//! accept a file cut between two blocks); every checksum that the frame has is compared.
//!
//! Does not read linked blocks, dictionaries or the legacy format: Litestream never wrote them.

use std::hash::Hasher;
use std::io::Read;

use lz4_flex::block::decompress_into;
use twox_hash::XxHash32;

use crate::format::FormatError;
use crate::format::source::Source;

const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
/// How an object begins that was encrypted with age, binary or armored; longer than what is read to tell.
const AGE: [&[u8]; 2] = [b"age-encryption.org/", b"-----BEGIN AGE ENCRYPTED"];
/// In FLG: version (two bits), independent blocks, checksums of blocks, content size, content checksum,
/// a reserved bit, dictionary.
const VERSION: u8 = 0b0100_0000;
const INDEPENDENT: u8 = 1 << 5;
const BLOCK_CHECKSUM: u8 = 1 << 4;
const CONTENT_SIZE: u8 = 1 << 3;
const CONTENT_CHECKSUM: u8 = 1 << 2;
const REFUSED: u8 = 0b11;
/// Set in a block's size where it is stored as it is.
const STORED: u32 = 1 << 31;

/// Why bytes are not one whole LZ4 frame. `offset` is in bytes from the start of the object.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "offset, expected and actual are what they say")]
pub enum FrameError {
    /// The bytes could not be read, or end too early.
    #[error(transparent)]
    Bytes(#[from] FormatError),
    /// Encrypted with age.
    #[error("offset 0: encrypted with age")]
    Encrypted,
    /// Not a frame.
    #[error(
        "offset 0: not an LZ4 frame: expected magic 04224d18, actual {:08x}",
        u32::from_be_bytes(*actual)
    )]
    Magic { actual: [u8; 4] },
    /// A frame of a kind that Litestream does not write.
    #[error("offset 4: LZ4 frame descriptor {actual:02x?}: {what}")]
    Descriptor { actual: [u8; 2], what: &'static str },
    /// A checksum that does not hold.
    #[error(
        "offset {offset}: checksum of the LZ4 {what}: expected {expected:08x}, actual {actual:08x}"
    )]
    Checksum { offset: u64, what: &'static str, expected: u32, actual: u32 },
    /// A block above the frame's own limit.
    #[error("offset {offset}: LZ4 block: expected at most {limit} bytes, actual {actual}")]
    BlockSize { offset: u64, limit: usize, actual: usize },
    /// A block that is no LZ4.
    #[error("offset {offset}: LZ4 block: {source}")]
    Block { offset: u64, source: lz4_flex::block::DecompressError },
    /// The frame holds more or less than it says.
    #[error(
        "offset {offset}: content of the LZ4 frame: expected {expected} bytes, actual {actual}"
    )]
    ContentSize { offset: u64, expected: u64, actual: u64 },
    /// Something follows the frame.
    #[error("offset {offset}: bytes after the end of the LZ4 frame")]
    Trailing { offset: u64 },
}

/// What a frame says of itself.
#[derive(Debug, Clone, Copy)]
struct Descriptor {
    block_limit: usize,
    block_checksums: bool,
    content_size: Option<u64>,
    content_checksum: bool,
}

/// Reads one frame.
#[derive(Debug)]
pub struct FrameReader<R> {
    input: Source<R>,
    descriptor: Descriptor,
    /// The present block's content.
    block: Vec<u8>,
    hasher: XxHash32,
    length: u64,
    ended: bool,
}

impl<R: Read> FrameReader<R> {
    /// Reads the frame's header.
    ///
    /// # Errors
    /// [`FrameError::Encrypted`], or anything that is not the header of a frame of independent blocks.
    pub fn new(input: R) -> Result<Self, FrameError> {
        let mut input = Source::new(input);
        let magic = input.array::<4>("LZ4 frame")?;
        if magic != MAGIC {
            // Long enough to tell, or not worth telling apart.
            let more = input.array::<12>("LZ4 frame").unwrap_or_default();
            let start = [magic.as_slice(), &more].concat();
            if AGE.iter().any(|age| age.starts_with(&start)) {
                return Err(FrameError::Encrypted);
            }
            return Err(FrameError::Magic { actual: magic });
        }
        let descriptor = read_descriptor(&mut input)?;
        input.reserve(descriptor.block_limit);
        let block = Vec::new();
        let hasher = XxHash32::with_seed(0);
        Ok(Self { input, descriptor, block, hasher, length: 0, ended: false })
    }

    /// The content of the next block, at most 4 MiB; `None` after the last, when the whole frame was found
    /// to be right.
    ///
    /// # Errors
    /// What is wrong with the frame. Nothing can be read after it.
    pub fn next_block(&mut self) -> Result<Option<&[u8]>, FrameError> {
        if self.ended {
            return Ok(None);
        }
        let offset = self.input.offset();
        let word = u32::from_le_bytes(self.input.array("LZ4 block size")?);
        if word == 0 {
            self.ended = true;
            return self.finish().map(|()| None);
        }
        let limit = self.descriptor.block_limit;
        let size = (word & !STORED) as usize;
        if size > limit {
            return Err(FrameError::BlockSize { offset, limit, actual: size });
        }
        let bytes = self.input.take(size, "LZ4 block")?;
        let checksum = self.descriptor.block_checksums.then(|| XxHash32::oneshot(0, bytes));
        if word & STORED != 0 {
            self.block.clear();
            self.block.extend_from_slice(bytes);
        } else {
            self.block.resize(limit, 0);
            let length = decompress_into(bytes, &mut self.block)
                .map_err(|source| FrameError::Block { offset, source })?;
            self.block.truncate(length);
        }
        if let Some(actual) = checksum {
            compare(&mut self.input, "block", actual)?;
        }
        self.hasher.write(&self.block);
        self.length += self.block.len() as u64;
        Ok(Some(&self.block))
    }

    fn finish(&mut self) -> Result<(), FrameError> {
        if self.descriptor.content_checksum {
            compare(&mut self.input, "content", self.hasher.finish_32())?;
        }
        let offset = self.input.offset();
        if let Some(expected) = self.descriptor.content_size
            && expected != self.length
        {
            return Err(FrameError::ContentSize { offset, expected, actual: self.length });
        }
        if !self.input.at_end()? {
            return Err(FrameError::Trailing { offset });
        }
        Ok(())
    }
}

fn read_descriptor<R: Read>(input: &mut Source<R>) -> Result<Descriptor, FrameError> {
    const WHAT: &str = "LZ4 frame descriptor";
    let actual = input.array::<2>(WHAT)?;
    let refuse = |what| Err(FrameError::Descriptor { actual, what });
    let [flags, block] = actual;
    if flags & 0b1100_0000 != VERSION {
        return refuse("not version 1");
    }
    if flags & INDEPENDENT == 0 {
        return refuse("linked blocks");
    }
    if flags & REFUSED != 0 {
        return refuse("a dictionary, or a reserved flag");
    }
    // 64 KiB, 256 KiB, 1 MiB, 4 MiB.
    let block_limit = match block {
        0x40 | 0x50 | 0x60 | 0x70 => 64 << (10 + 2 * (usize::from(block >> 4) - 4)),
        _ => return refuse("no block size"),
    };
    let mut covered = actual.to_vec();
    let mut content_size = None;
    if flags & CONTENT_SIZE != 0 {
        let bytes = input.array::<8>(WHAT)?;
        covered.extend_from_slice(&bytes);
        content_size = Some(u64::from_le_bytes(bytes));
    }
    let offset = input.offset();
    let [expected] = input.array::<1>(WHAT)?.map(u32::from);
    let found = XxHash32::oneshot(0, &covered) >> 8 & 0xff;
    if expected != found {
        return Err(FrameError::Checksum { offset, what: "descriptor", expected, actual: found });
    }
    Ok(Descriptor {
        block_limit,
        block_checksums: flags & BLOCK_CHECKSUM != 0,
        content_size,
        content_checksum: flags & CONTENT_CHECKSUM != 0,
    })
}

/// Compares a checksum that follows with the one that was computed.
fn compare<R: Read>(
    input: &mut Source<R>,
    what: &'static str,
    actual: u32,
) -> Result<(), FrameError> {
    let offset = input.offset();
    let expected = u32::from_le_bytes(input.array("LZ4 checksum")?);
    if expected == actual {
        return Ok(());
    }
    Err(FrameError::Checksum { offset, what, expected, actual })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write;

    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

    use super::*;

    fn framed(content: &[u8], info: FrameInfo) -> Vec<u8> {
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn info() -> FrameInfo {
        FrameInfo::new().block_size(BlockSize::Max64KB).content_checksum(true)
    }

    fn content() -> Vec<u8> {
        // Compresses in part, and takes several blocks.
        (0..200_000_u32).flat_map(|n| [n.wrapping_mul(2_654_435_761).to_le_bytes()[3], 7]).collect()
    }

    fn read(frame: &[u8]) -> Result<Vec<u8>, FrameError> {
        let mut reader = FrameReader::new(frame)?;
        let mut content = Vec::new();
        while let Some(block) = reader.next_block()? {
            content.extend_from_slice(block);
        }
        Ok(content)
    }

    #[test]
    fn frames_of_every_kind_are_read() {
        for size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB]
        {
            for all in [false, true] {
                let length = all.then_some(content().len() as u64);
                let info = FrameInfo::new()
                    .block_size(size)
                    .content_checksum(all)
                    .block_checksums(all)
                    .content_size(length);
                assert_eq!(read(&framed(&content(), info)).unwrap(), content());
            }
        }
        assert!(read(&framed(&[], info())).unwrap().is_empty());
    }

    #[test]
    fn a_frame_cut_anywhere_is_refused() {
        let frame = framed(&content(), info());
        let blocks = (0..frame.len()).filter(|at| at % 997 == 0 || frame.len() - at < 20);
        let mut boundary = 7;
        let mut cuts: Vec<usize> = blocks.collect();
        while boundary < frame.len() - 8 {
            // Between two blocks, too, where nothing but the missing end mark tells.
            cuts.push(boundary);
            let size = u32::from_le_bytes(frame[boundary..boundary + 4].try_into().unwrap());
            boundary += 4 + (size & !STORED) as usize;
        }
        for cut in cuts {
            assert!(read(&frame[..cut]).is_err(), "cut at {cut}");
        }
        let longer = [frame.as_slice(), &[0]].concat();
        assert!(matches!(read(&longer), Err(FrameError::Trailing { .. })));
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let frame = framed(&content()[..3000], info());
        for at in 0..frame.len() {
            let mut damaged = frame.clone();
            damaged[at] ^= 0x10;
            assert!(read(&damaged).is_err(), "byte {at} is not checked");
        }
    }

    #[test]
    fn what_litestream_does_not_write_is_named() {
        let linked = framed(&content(), info().block_mode(BlockMode::Linked));
        assert!(read(&linked).unwrap_err().to_string().contains("linked blocks"));
        let age = b"age-encryption.org/v1\n-> X25519 abc";
        assert!(matches!(read(age), Err(FrameError::Encrypted)));
        assert!(matches!(
            read(b"-----BEGIN AGE ENCRYPTED FILE-----\n"),
            Err(FrameError::Encrypted)
        ));
        assert!(matches!(read(b"LTX1aaaaaaaaaaaaaaa"), Err(FrameError::Magic { .. })));
        for short in [b"".as_slice(), b"age-", b"\x04\x22"] {
            let error = read(short).unwrap_err();
            assert!(!matches!(error, FrameError::Encrypted), "{short:?}: {error}");
        }
    }
}
