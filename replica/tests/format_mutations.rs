//! A decoder fed damaged files: it never panics, never allocates without bound, never accepts.
//!
//! The one exception is proven harmless: LZ4 has several ways to write the same page, so a changed
//! byte within compressed data may decode to the same page. Such a file must equal the original in
//! everything that it says.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod format_support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::{self, Read};

use format_support::{Forge, Pages, checksummed, database_checksum, encode, header, page};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use replica::format::{Checksum, Decoder, FormatError, Header, Trailer};

/// More than any file here needs, less than most lengths that a damaged one may claim.
const LARGEST_ALLOCATION: usize = 1 << 20;

thread_local! {
    /// The largest allocation of this thread since it was last set.
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

/// Notes the size of every allocation.
struct Noting;

#[global_allocator]
static NOTING: Noting = Noting;

#[allow(unsafe_code, reason = "the only way to see allocations")]
// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Noting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }

    /// Not left to `alloc`, which would touch (and so really take) the memory.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as the caller's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn note(size: usize) {
    // Fails only while a thread ends.
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
}

/// Decodes a whole file, in bounded memory.
fn decode(input: impl Read) -> Result<(Header, Pages, Trailer), FormatError> {
    LARGEST.set(0);
    let decoded = format_support::decode(input);
    let largest = LARGEST.get();
    assert!(largest <= LARGEST_ALLOCATION, "{largest} bytes allocated at once");
    decoded
}

/// A small file of each kind.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let mut random = StdRng::seed_from_u64(1);
    let mut noise = vec![0; 512];
    random.fill(&mut noise[..]);
    let pages = vec![(1, page(512, 1)), (2, noise), (3, page(512, 3))];
    let snapshot = header(512, 3, 1, 4);
    let update = header(512, 9, 5, 7);
    let sum = database_checksum(&pages);
    let pre_apply = Checksum::from_raw(1 << 63 | 99);
    let mut frames = Forge::new(&update);
    for (n, page) in &pages {
        frames = frames.lz4_frame(*n, page);
    }
    vec![
        ("snapshot", encode(snapshot, &pages, None)),
        ("checksummed snapshot", encode(checksummed(snapshot, None), &pages, Some(sum))),
        ("update", encode(update, &pages, None)),
        ("checksummed update", encode(checksummed(update, pre_apply), &pages, Some(sum))),
        ("frames", frames.finish(0)),
        ("update without pages", encode(update, &[], None)),
    ]
}

/// Whether damaged `bytes` were refused; if not, they must say the same as the file.
fn refused(bytes: &[u8], original: &[u8], what: &str) -> bool {
    let Ok(decoded) = decode(bytes) else { return true };
    let expected = decode(original).unwrap();
    assert_eq!(decoded.0.encode(), expected.0.encode(), "{what}: other header accepted");
    assert!(decoded.1 == expected.1, "{what}: other pages accepted");
    assert_eq!(decoded.2, expected.2, "{what}: other trailer accepted");
    false
}

/// The bytes of LZ4 data: between the frame heads, before the index.
fn compressed_bytes(file: &[u8]) -> BTreeSet<usize> {
    let mut compressed = BTreeSet::new();
    let mut at = 100;
    while file[at..at + 6] != [0; 6] {
        let block = file[at + 5] == 1;
        let length = |range: std::ops::Range<usize>| file[range].try_into().unwrap();
        let (start, length, end) = if block {
            (at + 10, u32::from_be_bytes(length(at + 6..at + 10)), 0)
        } else {
            (at + 17, u32::from_le_bytes(length(at + 13..at + 17)) & !(1 << 31), 8)
        };
        let length = length as usize;
        compressed.extend(start..start + length);
        at = start + length + end;
    }
    compressed
}

#[test]
fn every_flipped_bit_is_refused() {
    for (kind, file) in files() {
        assert!(!refused(&file, &file, kind));
        let compressed = compressed_bytes(&file);
        let (mut flips, mut same_meaning) = (0, 0);
        for at in 0..file.len() {
            for bit in 0..8 {
                let mut damaged = file.clone();
                damaged[at] ^= 1 << bit;
                flips += 1;
                if !refused(&damaged, &file, &format!("{kind}: bit {bit} of byte {at}")) {
                    assert!(compressed.contains(&at), "{kind}: bit {bit} of byte {at} accepted");
                    same_meaning += 1;
                }
            }
        }
        assert!(same_meaning * 50 < flips, "{kind}: {same_meaning} of {flips} accepted");
    }
}

#[test]
fn every_prefix_is_refused() {
    for (kind, file) in files() {
        for length in 0..file.len() {
            match decode(&file[..length]) {
                Err(FormatError::Truncated { offset, expected, actual, .. }) => {
                    assert_eq!(offset + actual as u64, length as u64, "{kind}");
                    assert!(actual < expected, "{kind}");
                }
                other => panic!("{kind}: {length} bytes: {other:?}"),
            }
        }
    }
}

#[test]
fn every_missing_or_doubled_byte_is_refused() {
    for (kind, file) in files() {
        let compressed = compressed_bytes(&file);
        for at in 0..file.len() {
            let mut missing = file.clone();
            let byte = missing.remove(at);
            assert!(decode(&missing[..]).is_err(), "{kind}: byte {at} missing, accepted");
            let mut doubled = file.clone();
            doubled.insert(at, byte);
            assert!(decode(&doubled[..]).is_err(), "{kind}: byte {at} doubled, accepted");
        }
        assert_eq!(compressed.is_empty(), kind == "update without pages");
    }
}

#[test]
fn thousands_of_random_mutations_are_refused() {
    let seed = 2;
    let mut random = StdRng::seed_from_u64(seed);
    for (kind, file) in files() {
        for round in 0..4000 {
            let mut damaged = file.clone();
            for _ in 0..random.random_range(1..8) {
                mutate(&mut damaged, &mut random);
            }
            let what = format!("{kind}: seed {seed}, round {round}");
            if damaged != file {
                refused(&damaged, &file, &what);
            }
        }
    }
}

fn mutate(bytes: &mut Vec<u8>, random: &mut StdRng) {
    let at = random.random_range(0..bytes.len());
    let end = (at + random.random_range(1..12)).min(bytes.len());
    match random.random_range(0..6) {
        0 => bytes[at] = random.random(),
        1 => bytes[at..end].fill(0),
        2 => bytes[at..end].fill(0xff),
        3 => random.fill(&mut bytes[at..end]),
        4 => {
            let other = random.random_range(0..=bytes.len() - (end - at));
            bytes.copy_within(at..end, other);
        }
        _ => bytes.truncate(end.max(1)),
    }
}

/// Gives one byte at a time, interrupted now and then.
struct Drip<'a>(&'a [u8], bool);

impl Read for Drip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let length = buffer.len().min(1);
        self.0.read(&mut buffer[..length])
    }
}

#[test]
fn a_file_that_comes_byte_by_byte_is_the_same_file() {
    for (kind, file) in files() {
        let whole = decode(&file[..]).unwrap();
        let dripped = decode(Drip(&file, false)).unwrap();
        assert!(whole.1 == dripped.1 && whole.2 == dripped.2, "{kind}");
    }
}

/// Fails after its bytes instead of ending.
struct Broken<'a>(&'a [u8]);

impl Read for Broken<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::Error::other("connection reset")),
            read => Ok(read),
        }
    }
}

#[test]
fn a_failing_reader_is_not_taken_for_a_damaged_file() {
    for (kind, file) in files() {
        for length in 0..=file.len() {
            match decode(Broken(&file[..length])) {
                Err(FormatError::Read { offset, source }) => {
                    assert_eq!(offset, length as u64, "{kind}");
                    assert_eq!(source.to_string(), "connection reset");
                }
                other => panic!("{kind}: {length} bytes: {other:?}"),
            }
        }
    }
}

#[test]
fn finish_checks_the_pages_that_nobody_read() {
    for (kind, file) in files() {
        for read in 0..3 {
            let mut decoder = Decoder::new(&file[..]).unwrap();
            let mut page = vec![0; 512];
            for _ in 0..read {
                decoder.next_page(&mut page).unwrap();
            }
            assert_eq!(decoder.finish().unwrap(), decode(&file[..]).unwrap().2, "{kind}");
        }
        let mut damaged = file.clone();
        let Some(at) = compressed_bytes(&file).first().copied() else { continue };
        damaged[at] ^= 0xf0;
        assert!(Decoder::new(&damaged[..]).unwrap().finish().is_err(), "{kind}");
    }
}
