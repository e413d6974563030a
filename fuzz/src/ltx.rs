//! The LTX codec.

use std::io::Cursor;

use replica::format::{Decoder, Encoder, FormatError, Header, Trailer, merge};

type Pages = Vec<(replica::format::PageNumber, Vec<u8>)>;

/// Reads any bytes as an LTX file. What is accepted can be written again, and then says the same.
pub(crate) fn decode(data: &[u8]) {
    let Ok((header, pages, trailer)) = read(data) else { return };
    let mut encoder = Encoder::new(Vec::new(), Cursor::new(Vec::new()), header).unwrap();
    for (number, page) in &pages {
        encoder.page(*number, page).unwrap();
    }
    let again = encoder.finish(trailer.post_apply).unwrap();
    let (header_again, pages_again, trailer_again) = read(&again.out).unwrap();
    assert_eq!(header_again.encode(), header.encode());
    assert!(pages_again == pages);
    assert_eq!(trailer_again.post_apply, trailer.post_apply);
}

/// Merges two files; what comes out is valid, and covers both.
pub(crate) fn merge_two(data: &[u8]) {
    let Some((length, rest)) = data.split_first_chunk() else { return };
    let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
    let (one, other) = rest.split_at(length);
    let (Ok(one), Ok(other)) = (Decoder::new(one), Decoder::new(other)) else { return };
    let (first, last) = (*one.header(), *other.header());
    let Ok(merged) = merge(vec![one, other], Vec::new(), Cursor::new(Vec::new())) else { return };
    let (header, _, _) = read(&merged.out).unwrap();
    assert_eq!(header.txids.min(), first.txids.min());
    assert_eq!(header.txids.max(), last.txids.max());
    assert_eq!(header.commit, last.commit);
}

fn read(data: &[u8]) -> Result<(Header, Pages, Trailer), FormatError> {
    let mut decoder = Decoder::new(data)?;
    let header = *decoder.header();
    let mut page = vec![0; header.page_size.len()];
    let mut pages = Vec::new();
    while let Some(number) = decoder.next_page(&mut page)? {
        // Highly compressed pages must not fill the fuzzer's own memory.
        if pages.len() < 256 {
            pages.push((number, page.clone()));
        } else {
            return Err(FormatError::AfterError { offset: 0 });
        }
    }
    Ok((header, pages, decoder.finish()?))
}
