//! A small document that proves itself: its length, its checksum, then its bytes.

use replica::format::{PageNumber, page_checksum};

/// Length (u32) and checksum (u64), little-endian.
pub const HEAD: usize = 12;

/// The document with its head.
#[must_use]
pub fn encode(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEAD + content.len());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&sum(content).to_le_bytes());
    bytes.extend_from_slice(content);
    bytes
}

/// The document at the start of `bytes`; `None` where there is no whole one.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (stored, rest) = rest.split_first_chunk::<8>()?;
    let content = rest.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    (u64::from_le_bytes(*stored) == sum(content)).then_some(content)
}

/// CRC-64 as the replica's files have it. The length of a document is in its sum.
fn sum(content: &[u8]) -> u64 {
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
    PageNumber::new(length).map_or(0, |length| page_checksum(length, content).raw())
}
