//! Reads one LTX file, page by page, in constant memory, and believes nothing it reads.
//!
//! Promises: every page handed out is one page long, in order, within the commit and not the lock
//! page. After [`Decoder::finish`] returned `Ok`, the file had every page that it must have, its
//! index, trailer and checksums agree with its pages, and nothing follows it.
//!
//! Does not promise: that two files that decode alike are equal byte for byte. The file checksum
//! covers the *uncompressed* pages, so other LZ4 bytes of the same length that decode to the same
//! page are accepted, as in the reference implementation. The meaning is the same; whoever wants
//! the bytes proven compares the object's own checksum. (An LZ4 frame brings its own checksum, but
//! of the same uncompressed bytes.)
//!
//! Bounds: one buffer of 64 KiB (or one compressed page, where that is more), whatever the file says.

use std::io::Read;

use crate::format::checksum::Crc;
use crate::format::index::IndexSum;
use crate::format::lz4::{self, At};
use crate::format::sequence::Sequence;
use crate::format::source::Source;
use crate::format::{
    Checksum, DatabaseChecksum, FormatError, HEADER_SIZE, Header, PageNumber, Trailer,
    page_checksum,
};

/// Flag of a page that is one LZ4 block with its length before it; without it, one LZ4 frame.
pub(super) const PAGE_FLAG_BLOCK: u16 = 1;
/// The first half of an LZ4 frame's magic: what follows the page number in LTX version 2.
const LZ4_MAGIC_START: u16 = 0x0422;
/// How much of the page index is read at once.
const INDEX_CHUNK: u64 = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Pages,
    Index,
    Failed,
}

/// Reads one file. Only after [`Decoder::finish`] returned `Ok` is any of its pages proven.
#[derive(Debug)]
pub struct Decoder<R: Read> {
    source: Source<R>,
    header: Header,
    state: State,
    sequence: Sequence,
    content: Crc,
    index: IndexSum,
    /// The sum of the pages, where the trailer must equal it.
    database: Option<DatabaseChecksum>,
}

impl<R: Read> Decoder<R> {
    /// Reads and checks the header. Reads `input` in large pieces and beyond the header; an
    /// `input` without a buffer of its own is as good.
    ///
    /// # Errors
    /// Not a valid header, or a failing reader.
    pub fn new(input: R) -> Result<Self, FormatError> {
        let mut source = Source::new(input);
        let bytes = source.array::<HEADER_SIZE>("header")?;
        let header = Header::decode(&bytes)?;
        source.reserve(lz4::worst_case(header.page_size.len()));
        let mut content = Crc::new();
        content.update(&bytes);
        let summed = header.checksummed && header.txids.is_snapshot();
        Ok(Self {
            source,
            state: State::Pages,
            sequence: Sequence::new(&header),
            content,
            index: IndexSum::new(),
            database: summed.then(DatabaseChecksum::default),
            header,
        })
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Reads the next page into `page` (exactly one page long); `None` after the last one.
    /// After an error `page` may hold anything, and the decoder cannot go on.
    ///
    /// # Errors
    /// A page that breaks a rule of the format, or a failing reader.
    pub fn next_page(&mut self, page: &mut [u8]) -> Result<Option<PageNumber>, FormatError> {
        let expected = self.header.page_size.len();
        if page.len() != expected {
            return Err(FormatError::PageBuffer { expected, actual: page.len() });
        }
        match self.state {
            State::Pages => {}
            State::Index => return Ok(None),
            State::Failed => return Err(FormatError::AfterError { offset: self.source.offset() }),
        }
        let next = self.read_page(page);
        match next {
            Ok(Some(_)) => {}
            Ok(None) => self.state = State::Index,
            Err(_) => self.state = State::Failed,
        }
        next
    }

    /// Skips (but checks) what is left of the pages, then checks index, trailer and end of file.
    ///
    /// # Errors
    /// Anything that is not as it must be, or a failing reader.
    pub fn finish(mut self) -> Result<Trailer, FormatError> {
        if self.state != State::Index {
            let mut page = vec![0; self.header.page_size.len()];
            while self.next_page(&mut page)?.is_some() {}
        }
        self.read_index()?;
        let trailer = self.read_trailer()?;
        if !self.source.at_end()? {
            return Err(FormatError::TrailingBytes { offset: self.source.offset() });
        }
        Ok(trailer)
    }

    fn read_page(&mut self, page: &mut [u8]) -> Result<Option<PageNumber>, FormatError> {
        let offset = self.source.offset();
        let head = self.source.array::<6>("page header")?;
        let [n0, n1, n2, n3, f0, f1] = head;
        let number = u32::from_be_bytes([n0, n1, n2, n3]);
        let flags = u16::from_be_bytes([f0, f1]);
        let Ok(page_number) = PageNumber::new(number) else {
            if flags != 0 {
                return Err(FormatError::PageNumberZero { offset, flags });
            }
            self.sequence.end().map_err(|fault| FormatError::Page { offset, fault })?;
            self.content.update(&head);
            return Ok(None);
        };
        if flags == LZ4_MAGIC_START {
            return Err(FormatError::OlderFormat { offset, what: "page header of 4 bytes" });
        }
        if flags & !PAGE_FLAG_BLOCK != 0 {
            return Err(FormatError::PageFlags { offset, page: number, actual: flags });
        }
        self.sequence.next(number).map_err(|fault| FormatError::Page { offset, fault })?;
        self.content.update(&head);
        if flags == PAGE_FLAG_BLOCK {
            self.read_block(number, page)?;
        } else {
            self.read_frame(number, page)?;
        }
        self.content.update(page);
        if let Some(database) = &mut self.database {
            database.toggle(page_checksum(page_number, page));
        }
        self.index.page(number, offset, self.source.offset() - offset);
        Ok(Some(page_number))
    }

    /// One LZ4 block with its length before it.
    fn read_block(&mut self, number: u32, page: &mut [u8]) -> Result<(), FormatError> {
        let offset = self.source.offset();
        let prefix = self.source.array::<4>("compressed size of a page")?;
        self.content.update(&prefix);
        let length =
            compressed_length(u32::from_be_bytes(prefix), page.len(), At { offset, page: number })?;
        let at = At { offset: offset + 4, page: number };
        lz4::block(self.source.take(length, "compressed page")?, page, at)
    }

    /// One LZ4 frame with one block: the older form, which tells its length only by its content.
    fn read_frame(&mut self, number: u32, page: &mut [u8]) -> Result<(), FormatError> {
        let offset = self.source.offset();
        let actual = self.source.array::<7>("LZ4 frame header")?;
        if actual != lz4::FRAME_HEADER {
            let expected = lz4::FRAME_HEADER;
            return Err(FormatError::FrameHeader { offset, page: number, expected, actual });
        }
        let offset = self.source.offset();
        let size = u32::from_le_bytes(self.source.array("LZ4 frame block size")?);
        let length =
            compressed_length(size & !lz4::FRAME_STORED, page.len(), At { offset, page: number })?;
        let at = At { offset: offset + 4, page: number };
        let block = self.source.take(length, "compressed page")?;
        if size & lz4::FRAME_STORED == 0 {
            lz4::block(block, page, at)?;
        } else {
            lz4::stored(block, page, at)?;
        }
        let offset = self.source.offset();
        let end = u32::from_le_bytes(self.source.array("LZ4 frame end mark")?);
        if end != 0 {
            return Err(FormatError::FrameEnd { offset, page: number, actual: end });
        }
        let offset = self.source.offset();
        let actual = u32::from_le_bytes(self.source.array("LZ4 frame checksum")?);
        let expected = lz4::frame_checksum(page);
        if actual != expected {
            return Err(FormatError::FrameChecksum { offset, page: number, expected, actual });
        }
        Ok(())
    }

    /// The index must be, byte for byte, the one that the pages before it give.
    fn read_index(&mut self) -> Result<(), FormatError> {
        self.index.end();
        let (offset, length) = (self.source.offset(), self.index.length());
        let mut index = Crc::new();
        let mut left = length;
        while left > 0 {
            let chunk = left.min(INDEX_CHUNK);
            left -= chunk;
            let bytes = self.source.take(usize::try_from(chunk).unwrap_or(0), "page index")?;
            index.update(bytes);
            self.content.update(bytes);
        }
        if !self.index.equals(&index) {
            return Err(FormatError::Index { offset, length });
        }
        let offset = self.source.offset();
        let bytes = self.source.array::<8>("length of the page index")?;
        let actual = u64::from_be_bytes(bytes);
        if actual != length {
            return Err(FormatError::IndexLength { offset, expected: length, actual });
        }
        self.content.update(&bytes);
        Ok(())
    }

    fn read_trailer(&mut self) -> Result<Trailer, FormatError> {
        let offset = self.source.offset();
        let bytes = self.source.array::<8>("post-apply checksum")?;
        self.content.update(&bytes);
        let post_apply = self.post_apply(u64::from_be_bytes(bytes), offset)?;

        let offset = self.source.offset();
        let actual = u64::from_be_bytes(self.source.array("file checksum")?);
        let actual = Checksum::from_raw(actual)
            .ok_or(FormatError::FileChecksumMalformed { offset, actual })?;
        let expected = self.content.checksum();
        if actual != expected {
            return Err(FormatError::FileChecksumMismatch { offset, expected, actual });
        }
        // Only now: damage to a page is better told by the file checksum.
        if let (Some(actual), Some(expected)) = (post_apply, self.expected_post_apply())
            && actual != expected
        {
            let offset = offset - 8;
            return Err(FormatError::PostApplyMismatch { offset, expected, actual });
        }
        Ok(Trailer { post_apply, file: actual })
    }

    fn post_apply(&self, raw: u64, offset: u64) -> Result<Option<Checksum>, FormatError> {
        match (raw, self.header.checksummed) {
            (0, false) => Ok(None),
            (actual, false) => Err(FormatError::PostApplyNotAllowed { offset, actual }),
            (0, true) => Err(FormatError::PostApplyMissing { offset }),
            (actual, true) => Checksum::from_raw(actual)
                .map(Some)
                .ok_or(FormatError::PostApplyMalformed { offset, actual }),
        }
    }

    /// What is known of the database after this file: the sum of a snapshot's pages, or that it is
    /// empty.
    fn expected_post_apply(&self) -> Option<Checksum> {
        let empty = (self.header.commit == 0).then(DatabaseChecksum::default);
        self.database.or(empty).map(DatabaseChecksum::value)
    }
}

fn compressed_length(actual: u32, page_length: usize, at: At) -> Result<usize, FormatError> {
    let max = lz4::worst_case(page_length);
    usize::try_from(actual)
        .ok()
        .filter(|length| (1..=max).contains(length))
        .ok_or(FormatError::CompressedSize { offset: at.offset, page: at.page, max, actual })
}
