//! The page index: where each page's frame is. Per page varint(number) varint(offset)
//! varint(length), then varint 0; varints are unsigned LEB128 in their shortest form.
//!
//! Nobody holds an index in memory: the writer keeps it in its scratch file; the reader makes the
//! bytes again from the frames that it sees, and compares length and CRC.

use crate::format::checksum::Crc;

/// Three varints of at most 10 bytes.
const ENTRY_MAX: usize = 30;

/// The length and checksum of an index that grows entry by entry.
#[derive(Debug)]
pub(super) struct IndexSum {
    crc: Crc,
    length: u64,
    entry: [u8; ENTRY_MAX],
}

impl IndexSum {
    pub(super) fn new() -> Self {
        Self { crc: Crc::new(), length: 0, entry: [0; ENTRY_MAX] }
    }

    /// Adds a page, whose frame begins at `offset`; returns the entry's bytes.
    pub(super) fn page(&mut self, number: u32, offset: u64, frame_length: u64) -> &[u8] {
        let mut end = 0;
        for value in [u64::from(number), offset, frame_length] {
            end += put_varint(&mut self.entry[end..], value);
        }
        self.add(end)
    }

    /// Ends the index; returns the bytes of its end mark.
    pub(super) fn end(&mut self) -> &[u8] {
        self.entry[0] = 0;
        self.add(1)
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Whether `crc` is that of an index of the same length with the same bytes.
    pub(super) fn equals(&self, crc: &Crc) -> bool {
        self.crc.checksum() == crc.checksum()
    }

    fn add(&mut self, end: usize) -> &[u8] {
        let bytes = &self.entry[..end];
        self.crc.update(bytes);
        self.length += end as u64;
        bytes
    }
}

/// Writes `value` to the start of `out`; returns the bytes written.
fn put_varint(out: &mut [u8], mut value: u64) -> usize {
    let mut length = 0;
    loop {
        let low = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        out[length] = if value == 0 { low } else { low | 0x80 };
        length += 1;
        if value == 0 {
            return length;
        }
    }
}
