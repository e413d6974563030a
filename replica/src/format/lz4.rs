//! The compressed bytes of one page: block or frame, decoded to exactly one page.
//!
//! Nothing here allocates; the caller bounds the compressed length.

use lz4_flex::block::decompress_into;

use crate::format::FormatError;

/// Frame magic, version 1 with independent blocks and content checksum, 64 KiB blocks, checksum of
/// these two bytes: what Litestream wrote before it used blocks. A page fits into one such block.
pub(super) const FRAME_HEADER: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x64, 0x40, 0xa7];
/// Set in a frame's block size where the block is stored as it is.
pub(super) const FRAME_STORED: u32 = 1 << 31;

/// The most bytes that LZ4 makes of `length` bytes.
pub(super) const fn worst_case(length: usize) -> usize {
    length + length / 255 + 16
}

/// Where a page's compressed bytes are, for messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    pub(super) offset: u64,
    pub(super) page: u32,
}

/// Decodes one LZ4 block into `page`.
pub(super) fn block(compressed: &[u8], page: &mut [u8], at: At) -> Result<(), FormatError> {
    let At { offset, page: number } = at;
    let actual = decompress_into(compressed, page).map_err(|source| FormatError::Lz4 {
        offset,
        page: number,
        source,
    })?;
    if actual != page.len() {
        return Err(FormatError::DecodedLength {
            offset,
            page: number,
            expected: page.len(),
            actual,
        });
    }
    Ok(())
}

/// Takes a block that a frame stores as it is.
pub(super) fn stored(bytes: &[u8], page: &mut [u8], at: At) -> Result<(), FormatError> {
    if bytes.len() != page.len() {
        return Err(FormatError::DecodedLength {
            offset: at.offset,
            page: at.page,
            expected: page.len(),
            actual: bytes.len(),
        });
    }
    page.copy_from_slice(bytes);
    Ok(())
}

/// The checksum at the end of a frame.
pub(super) fn frame_checksum(page: &[u8]) -> u32 {
    twox_hash::XxHash32::oneshot(0, page)
}
