//! Writes one LTX file, page by page, in constant memory.
//!
//! Promises: what it has written decodes, or it returned an error; the encoder refuses everything
//! that the decoder refuses. The bytes are reproducible for one version of the LZ4 crate.
//!
//! Does not promise durability: flush and sync are the caller's. After a crash or an error `out`
//! holds the beginning of a file, which no decoder accepts.

use std::fmt;
use std::io::{Read, Seek, SeekFrom, Write};

use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};

use crate::format::checksum::Crc;
use crate::format::decode::PAGE_FLAG_BLOCK;
use crate::format::index::IndexSum;
use crate::format::sequence::Sequence;
use crate::format::{
    Checksum, DatabaseChecksum, EncodeError, HEADER_SIZE, Header, PageNumber, Trailer,
    page_checksum,
};

/// Page number, flags and compressed length.
const FRAME_HEAD: usize = 10;
/// How much of the page index is kept before it goes to the scratch file.
const INDEX_CHUNK: usize = 16 << 10;

/// Writes one file. `scratch` holds the page index until [`Encoder::finish`]: a
/// `tempfile::SpooledTempFile` keeps memory flat whatever the file's size.
pub struct Encoder<W: Write, S: Read + Write + Seek> {
    out: W,
    scratch: S,
    header: Header,
    sequence: Sequence,
    content: Crc,
    index: IndexSum,
    /// The end of the index, not yet in the scratch file.
    index_tail: Vec<u8>,
    /// The sum of a checksummed snapshot's pages.
    database: Option<DatabaseChecksum>,
    /// One page's frame, reused.
    frame: Vec<u8>,
    table: CompressTable,
    size: u64,
    pages: u32,
}

impl<W: Write, S: Read + Write + Seek> fmt::Debug for Encoder<W, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder")
            .field("header", &self.header)
            .field("size", &self.size)
            .field("pages", &self.pages)
            .finish_non_exhaustive()
    }
}

/// A finished file.
#[derive(Debug)]
pub struct Encoded<W> {
    /// The writer, not flushed or synced.
    pub out: W,
    /// Checksums at the end of the file.
    pub trailer: Trailer,
    /// Size of the file, bytes.
    pub size: u64,
    /// Pages in it.
    pub pages: u32,
}

impl<W: Write, S: Read + Write + Seek> Encoder<W, S> {
    /// Writes the header. `scratch` is empty.
    ///
    /// # Errors
    /// A header that breaks a rule of the format, or a failing writer.
    pub fn new(mut out: W, scratch: S, header: Header) -> Result<Self, EncodeError> {
        let bytes = header.encode();
        let header = Header::decode(&bytes).map_err(EncodeError::Header)?;
        out.write_all(&bytes)?;
        let mut content = Crc::new();
        content.update(&bytes);
        let page_length = header.page_size.len();
        let summed = header.checksummed && header.txids.is_snapshot();
        Ok(Self {
            out,
            scratch,
            sequence: Sequence::new(&header),
            content,
            index: IndexSum::new(),
            index_tail: Vec::with_capacity(INDEX_CHUNK),
            database: summed.then(DatabaseChecksum::default),
            frame: vec![0; FRAME_HEAD + get_maximum_output_size(page_length)],
            table: CompressTable::default(),
            header,
            size: HEADER_SIZE as u64,
            pages: 0,
        })
    }

    /// The header, with the timestamp as it was written (milliseconds).
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Adds a page, LZ4-compressed. Pages come in ascending order, the lock page never.
    ///
    /// # Errors
    /// Wrong order, wrong size, a number beyond the commit, the lock page, or a failing writer.
    pub fn page(&mut self, number: PageNumber, page: &[u8]) -> Result<(), EncodeError> {
        let expected = self.header.page_size.len();
        if page.len() != expected {
            return Err(EncodeError::PageLength { expected, actual: page.len() });
        }
        self.sequence.next(number.get())?;
        let compressed =
            compress_into_with_table(page, &mut self.frame[FRAME_HEAD..], &mut self.table)?;
        // At most 72,110 bytes: `frame` is no longer.
        let length = u32::try_from(compressed).unwrap_or(u32::MAX);
        self.frame[..4].copy_from_slice(&number.get().to_be_bytes());
        self.frame[4..6].copy_from_slice(&PAGE_FLAG_BLOCK.to_be_bytes());
        self.frame[6..FRAME_HEAD].copy_from_slice(&length.to_be_bytes());
        let frame = &self.frame[..FRAME_HEAD + compressed];
        self.out.write_all(frame)?;
        self.content.update(&frame[..FRAME_HEAD]);
        self.content.update(page);
        if let Some(database) = &mut self.database {
            database.toggle(page_checksum(number, page));
        }
        let frame_length = frame.len() as u64;
        let entry = self.index.page(number.get(), self.size, frame_length);
        self.index_tail.extend_from_slice(entry);
        if self.index_tail.len() > INDEX_CHUNK - 64 {
            self.scratch.write_all(&self.index_tail)?;
            self.index_tail.clear();
        }
        self.size += frame_length;
        self.pages += 1;
        Ok(())
    }

    /// Writes index and trailer. `post_apply` is given exactly for a checksummed file; for a
    /// snapshot it must be the sum of its pages.
    ///
    /// # Errors
    /// An incomplete snapshot, a missing, superfluous or wrong `post_apply`, or a failing writer.
    pub fn finish(mut self, post_apply: Option<Checksum>) -> Result<Encoded<W>, EncodeError> {
        self.sequence.end()?;
        self.check_post_apply(post_apply)?;
        self.emit(&[0; 6])?;
        self.copy_index()?;
        self.emit(&post_apply.map_or(0, Checksum::raw).to_be_bytes())?;
        let file = self.content.checksum();
        self.out.write_all(&file.raw().to_be_bytes())?;
        self.size += 8;
        Ok(Encoded {
            out: self.out,
            trailer: Trailer { post_apply, file },
            size: self.size,
            pages: self.pages,
        })
    }

    /// Writes bytes that the file checksum covers as they are.
    fn emit(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.out.write_all(bytes)?;
        self.content.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    fn copy_index(&mut self) -> Result<(), EncodeError> {
        let mut tail = std::mem::take(&mut self.index_tail);
        tail.extend_from_slice(self.index.end());
        let mut read_back = Crc::new();
        let mut left = self.index.length() - tail.len() as u64;
        if left > 0 {
            self.scratch.seek(SeekFrom::Start(0))?;
        }
        let mut chunk = [0; 4096];
        while left > 0 {
            let length = usize::try_from(left).map_or(chunk.len(), |left| left.min(chunk.len()));
            self.scratch.read_exact(&mut chunk[..length])?;
            read_back.update(&chunk[..length]);
            self.emit(&chunk[..length])?;
            left -= length as u64;
        }
        read_back.update(&tail);
        self.emit(&tail)?;
        if !self.index.equals(&read_back) {
            return Err(EncodeError::Scratch);
        }
        let length = self.index.length();
        self.emit(&length.to_be_bytes())
    }

    fn check_post_apply(&self, post_apply: Option<Checksum>) -> Result<(), EncodeError> {
        match (post_apply, self.header.checksummed) {
            (None, false) => Ok(()),
            (None, true) => Err(EncodeError::PostApplyMissing),
            (Some(actual), false) => Err(EncodeError::PostApplyNotAllowed { actual }),
            (Some(actual), true) => {
                let empty = (self.header.commit == 0).then(DatabaseChecksum::default);
                match self.database.or(empty).map(DatabaseChecksum::value) {
                    Some(expected) if expected != actual => {
                        Err(EncodeError::PostApplyMismatch { expected, actual })
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}
