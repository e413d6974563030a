//! What the encoder refuses to write, and the limits that it keeps.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod format_support;

use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};

use format_support::*;
use replica::format::{Checksum, Decoder, EncodeError, Encoder, Header, WalSpan};

type Memory = Encoder<Vec<u8>, Cursor<Vec<u8>>>;

fn encoder(header: Header) -> Memory {
    Encoder::new(Vec::new(), Cursor::new(Vec::new()), header).unwrap()
}

/// Why `numbers` cannot be the pages of a file with `header`.
fn refused_pages(header: Header, numbers: &[u32]) -> String {
    let mut encoder = encoder(header);
    for n in numbers {
        if let Err(error) = encoder.page(number(*n), &page(header.page_size.get(), 1)) {
            return error.to_string();
        }
    }
    encoder.finish(None).expect_err("accepted").to_string()
}

#[test]
fn pages_out_of_place() {
    let update = header(512, 9, 2, 2);
    let cases: [(Header, &[u32], &str); 8] = [
        (update, &[3, 3], "pages out of order: expected above 3, actual 3"),
        (update, &[3, 2], "pages out of order: expected above 3, actual 2"),
        (update, &[10], "page beyond the commit: expected at most 9, actual 10"),
        (header(65536, 20_000, 2, 2), &[16_385], "lock page 16385 in the file"),
        (header(512, 3, 1, 1), &[2], "page missing from a snapshot: expected 1, actual 2"),
        (header(512, 3, 1, 1), &[1, 3], "page missing from a snapshot: expected 2, actual 3"),
        (
            header(512, 3, 1, 1),
            &[1, 2],
            "snapshot incomplete: expected page 3 of 3, actual end of pages",
        ),
        (
            header(512, 1, 1, 1),
            &[],
            "snapshot incomplete: expected page 1 of 1, actual end of pages",
        ),
    ];
    for (header, numbers, message) in cases {
        assert_eq!(refused_pages(header, numbers), message);
    }
}

#[test]
fn page_of_another_length() {
    let error = encoder(header(512, 9, 2, 2)).page(number(1), &[0; 511]).unwrap_err();
    assert_eq!(error.to_string(), "page to write: expected 512 bytes, actual 511");
}

#[test]
fn header_that_breaks_a_rule() {
    let pre_apply = Checksum::from_raw(1 << 63);
    let update = header(512, 9, 2, 2);
    let cases = [
        (checksummed(update, None), "offset 40: pre-apply checksum: expected one, actual 0"),
        (
            checksummed(header(512, 9, 1, 2), pre_apply),
            "offset 40: pre-apply checksum of a snapshot: expected 0, actual 8000000000000000",
        ),
        (
            Header { pre_apply, ..update },
            "offset 40: pre-apply checksum without checksums: expected 0, actual 8000000000000000",
        ),
        (
            Header { wal: Some(WalSpan { offset: 0, size: 1, salts: (0, 0) }), ..update },
            "offset 48: WAL offset: expected one beside WAL size 1, actual 0",
        ),
        (
            Header { wal: Some(WalSpan { offset: u64::MAX, size: 1, salts: (0, 0) }), ..update },
            "offset 48: WAL offset: expected 0 or more, actual -1",
        ),
    ];
    for (header, message) in cases {
        let mut out = Vec::new();
        let error = Encoder::new(&mut out, Cursor::new(Vec::new()), header).unwrap_err();
        let EncodeError::Header(reason) = error else { panic!("{error}") };
        assert_eq!(reason.to_string(), message);
        assert!(out.is_empty(), "part of a file was written");
    }
}

#[test]
fn post_apply_given_wrongly() {
    let pages = vec![(1, page(512, 1)), (2, page(512, 2))];
    let right = database_checksum(&pages);
    let other = Checksum::from_raw(1 << 63 | 1).unwrap();
    let snapshot = header(512, 2, 1, 1);
    let finish = |header, post_apply| {
        let mut encoder = encoder(header);
        for (n, page) in &pages {
            encoder.page(number(*n), page).unwrap();
        }
        encoder.finish(post_apply).map(|_| ()).map_err(|error| error.to_string())
    };
    let refused = |message: String| Err(message);
    assert_eq!(finish(snapshot, None), Ok(()));
    assert_eq!(finish(checksummed(snapshot, None), Some(right)), Ok(()));
    assert_eq!(
        finish(checksummed(snapshot, None), None),
        refused("post-apply checksum to write: expected one, actual none".into())
    );
    assert_eq!(
        finish(snapshot, Some(right)),
        refused(format!("post-apply checksum to write: expected none, actual {right}"))
    );
    assert_eq!(
        finish(checksummed(snapshot, None), Some(other)),
        refused(format!(
            "post-apply checksum of a snapshot: expected {right} by its pages, actual {other}"
        ))
    );
}

#[test]
fn timestamp_is_cut_to_milliseconds() {
    let timestamp = "2026-11-22T20:00:00.123456789Z".parse().unwrap();
    let encoder = encoder(Header { timestamp, ..header(512, 0, 2, 2) });
    let written = encoder.header().timestamp;
    assert_eq!(written.to_string(), "2026-11-22T20:00:00.123Z");
    let file = encoder.finish(None).unwrap().out;
    assert_eq!(decode(&file[..]).unwrap().0.timestamp, written);
}

/// A database of 1 GiB and two pages: 16,384 pages before the lock page, 2 after it.
#[test]
fn snapshot_over_the_lock_page() {
    let zeros = vec![0; 65536];
    let mut encoder = encoder(header(65536, 16_387, 1, 1));
    for n in (1..=16_387).filter(|n| *n != 16_385) {
        encoder.page(number(n), &zeros).unwrap();
    }
    let encoded = encoder.finish(None).unwrap();
    assert_eq!(encoded.pages, 16_386);
    let trailer = Decoder::new(&encoded.out[..]).unwrap().finish().unwrap();
    assert_eq!(trailer, encoded.trailer);
}

/// A scratch file that tells how it is used and can lose what it was given.
#[derive(Default)]
struct Scratch {
    file: Cursor<Vec<u8>>,
    writes: usize,
    forgets: bool,
}

impl Write for Scratch {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writes += 1;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Scratch {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(bytes)?;
        if self.forgets {
            bytes[..read].fill(1);
        }
        Ok(read)
    }
}

impl Seek for Scratch {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

fn many_pages(scratch: &mut Scratch) -> Result<Vec<u8>, EncodeError> {
    let mut encoder = Encoder::new(Vec::new(), scratch, header(512, 20_000, 1, 1))?;
    let page = page(512, 1);
    for n in 1..=20_000 {
        encoder.page(number(n), &page)?;
    }
    Ok(encoder.finish(None)?.out)
}

#[test]
fn index_of_a_large_file_goes_through_the_scratch_file() {
    let mut scratch = Scratch::default();
    let file = many_pages(&mut scratch).unwrap();
    assert!(scratch.file.get_ref().len() > 100_000, "{} bytes", scratch.file.get_ref().len());
    assert!(scratch.writes < 20, "{} writes", scratch.writes);
    assert_eq!(decode(&file[..]).unwrap().1.len(), 20_000);
}

#[test]
fn scratch_file_that_gives_back_other_bytes() {
    let error = many_pages(&mut Scratch { forgets: true, ..Scratch::default() }).unwrap_err();
    assert_eq!(error.to_string(), "page index changed in the scratch file");
}
