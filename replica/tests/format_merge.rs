//! Merging files is the same as applying them one after the other.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod format_support;

use std::io::Cursor;

use format_support::*;
use proptest::prelude::*;
use replica::format::{Checksum, Decoder, Encoded, Header, MergeError, WalSpan, merge};

/// A database's pages, in order.
type Database = Vec<Vec<u8>>;

/// What one file does: `writes` are pages (from 0) with new content, then `size` pages are left.
#[derive(Debug, Clone)]
struct Change {
    size: u32,
    writes: Vec<(u32, u8)>,
}

fn merge_all(files: &[Vec<u8>]) -> Result<Encoded<Vec<u8>>, MergeError> {
    let inputs = files.iter().map(|file| Decoder::new(&file[..]).unwrap()).collect();
    merge(inputs, Vec::new(), Cursor::new(Vec::new()))
}

fn apply(database: &mut Database, file: &[u8]) {
    let (header, pages, _) = decode(file).unwrap();
    database.resize(header.commit as usize, vec![]);
    for (n, page) in pages {
        database[n as usize - 1] = page;
    }
}

fn sum(database: &Database) -> Checksum {
    let pages: Vec<_> = (1..).zip(database.iter().cloned()).collect();
    database_checksum(&pages)
}

/// Files 1, 2, 3 … of a checksummed or unchecked chain, and the database after each.
fn chain(changes: &[Change], checked: bool) -> (Vec<Vec<u8>>, Vec<Database>) {
    let mut database = Database::new();
    let (mut files, mut states) = (Vec::new(), Vec::new());
    for (txid, change) in (1..).zip(changes) {
        let before = (txid > 1).then(|| sum(&database));
        let old_size = u32::try_from(database.len()).unwrap();
        let mut pages = std::collections::BTreeMap::new();
        for n in old_size..change.size {
            pages.insert(n, page(512, u8::try_from(txid % 200).unwrap()));
        }
        for (n, seed) in &change.writes {
            if n % 40 < change.size {
                pages.insert(n % 40, page(512, *seed));
            }
        }
        database.resize(change.size as usize, vec![]);
        for (n, page) in &pages {
            database[*n as usize] = page.clone();
        }
        let plain = header(512, change.size, txid, txid);
        let pages: Vec<_> = pages.into_iter().map(|(n, page)| (n + 1, page)).collect();
        files.push(if checked {
            encode(checksummed(plain, before), &pages, Some(sum(&database)))
        } else {
            encode(plain, &pages, None)
        });
        states.push(database.clone());
    }
    (files, states)
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let writes = proptest::collection::vec((any::<u32>(), any::<u8>()), 0..6);
    let change = (0_u32..40, writes).prop_map(|(size, writes)| Change { size, writes });
    proptest::collection::vec(change, 1..8)
}

proptest! {
    /// Any way to cut a chain into runs, merge each run, then apply: every state is reached again.
    #[test]
    fn merging_is_applying(
        changes in changes(),
        checked in any::<bool>(),
        cuts in proptest::collection::vec(any::<bool>(), 8),
        overlap in 0_usize..3,
    ) {
        let (files, states) = chain(&changes, checked);
        let mut database = Database::new();
        let mut merged_files = Vec::new();
        let mut start: usize = 0;
        for end in 1..=files.len() {
            if end < files.len() && !cuts[end % cuts.len()] {
                continue;
            }
            // A merged file may begin again at TXIDs that the one before it covers.
            let merged = merge_all(&files[start.saturating_sub(overlap)..end]).unwrap();
            apply(&mut database, &merged.out);
            prop_assert!(database == states[end - 1], "state {}", end);
            let (header, _, trailer) = decode(&merged.out[..]).unwrap();
            prop_assert_eq!(header.checksummed, checked);
            prop_assert_eq!(trailer, merged.trailer);
            if checked {
                prop_assert_eq!(trailer.post_apply, Some(sum(&database)));
            }
            merged_files.push(merged.out);
            start = end;
        }
        // Merging what was merged: one snapshot that holds the last state.
        let snapshot = merge_all(&merged_files).unwrap();
        let mut restored = Database::new();
        apply(&mut restored, &snapshot.out);
        prop_assert!(restored == states[states.len() - 1]);
        prop_assert_eq!(decode(&snapshot.out[..]).unwrap().0.txids, txids(1, files.len() as u64));
    }
}

fn file(header: Header, numbers: &[u32]) -> Vec<u8> {
    let seed = u8::try_from(header.txids.max().get()).unwrap();
    let pages: Vec<_> = numbers.iter().map(|n| (*n, page(512, seed))).collect();
    encode(header, &pages, None)
}

fn refusal(files: &[Vec<u8>]) -> String {
    merge_all(files).expect_err("merged").to_string()
}

/// Pages of a file and which file (by its max TXID) each came from.
fn origins(file: &[u8]) -> Vec<(u32, u8)> {
    let pages = decode(file).unwrap().1;
    pages
        .into_iter()
        .map(|(n, content)| (n, (1..20).find(|seed| content == page(512, *seed)).unwrap()))
        .collect()
}

#[test]
fn newest_copy_wins() {
    let files = [
        file(header(512, 9, 2, 2), &[1, 2, 5]),
        file(header(512, 9, 3, 3), &[2, 7]),
        file(header(512, 9, 4, 4), &[5, 9]),
    ];
    let merged = merge_all(&files).unwrap().out;
    assert_eq!(origins(&merged), [(1, 2), (2, 3), (5, 4), (7, 3), (9, 4)]);
}

#[test]
fn header_is_of_the_last_input_without_its_wal_and_node() {
    let wal = Some(WalSpan { offset: 32, size: 5, salts: (1, 2) });
    let last = Header {
        timestamp: "2026-11-22T21:00:00Z".parse().unwrap(),
        wal,
        node_id: 7,
        ..header(512, 9, 3, 5)
    };
    let merged = merge_all(&[file(header(512, 8, 2, 2), &[1]), file(last, &[9])]).unwrap().out;
    let expected = Header { txids: txids(2, 5), wal: None, node_id: 0, ..last };
    assert_eq!(decode(&merged[..]).unwrap().0, expected);
}

#[test]
fn pages_beyond_the_last_commit_are_dropped() {
    let files = [file(header(512, 9, 2, 2), &[1, 6, 9]), file(header(512, 6, 3, 3), &[1])];
    assert_eq!(origins(&merge_all(&files).unwrap().out), [(1, 3), (6, 2)]);
}

#[test]
fn page_that_was_cut_off_does_not_come_back() {
    let cut = [
        file(header(512, 9, 2, 2), &[7]),
        file(header(512, 6, 3, 3), &[1]),
        file(header(512, 8, 4, 4), &[7, 8]),
    ];
    assert_eq!(origins(&merge_all(&cut).unwrap().out), [(1, 3), (7, 4), (8, 4)]);
    let lost = [cut[0].clone(), cut[1].clone(), file(header(512, 8, 4, 4), &[8])];
    let message = "page 7 of 8 missing: in none of the files that follow the database's growth";
    assert_eq!(refusal(&lost), message);
}

#[test]
fn growth_without_its_last_page() {
    let files = [file(header(512, 6, 2, 2), &[1]), file(header(512, 8, 3, 3), &[7])];
    let message = "page 8 of 8 missing: in none of the files that follow the database's growth";
    assert_eq!(refusal(&files), message);
}

#[test]
fn growth_over_the_lock_page() {
    let zeros = vec![0; 65536];
    let small = encode(header(65536, 16_384, 2, 2), &[], None);
    let grown = [(16_386, zeros)];
    let grown = encode(header(65536, 16_386, 3, 3), &grown, None);
    assert_eq!(merge_all(&[small, grown]).unwrap().pages, 1);
}

#[test]
fn no_inputs() {
    assert_eq!(refusal(&[]), "merge of no files");
}

#[test]
fn one_input_is_itself() {
    let one = file(header(512, 9, 2, 2), &[1, 6]);
    assert_eq!(merge_all(std::slice::from_ref(&one)).unwrap().out, one);
}

#[test]
fn gap_between_inputs() {
    let message = "input 1: TXIDs do not continue 0000000000000002-0000000000000003: \
                   expected min at most 0000000000000004 and max above 0000000000000003, \
                   actual 0000000000000005-0000000000000006";
    let files = [file(header(512, 9, 2, 3), &[]), file(header(512, 9, 5, 6), &[])];
    assert_eq!(refusal(&files), message);
}

#[test]
fn input_that_brings_nothing_new() {
    let message = "input 1: TXIDs do not continue 0000000000000002-0000000000000003: \
                   expected min at most 0000000000000004 and max above 0000000000000003, \
                   actual 0000000000000003-0000000000000003";
    let files = [file(header(512, 9, 2, 3), &[]), file(header(512, 9, 3, 3), &[])];
    assert_eq!(refusal(&files), message);
}

#[test]
fn other_page_size() {
    let other = encode(header(1024, 9, 3, 3), &[], None);
    let message = "input 1: page size: expected 512, actual 1024";
    assert_eq!(refusal(&[file(header(512, 9, 2, 2), &[]), other]), message);
}

#[test]
fn input_of_another_chain() {
    let sum = |low: u64| Checksum::from_raw(1 << 63 | low);
    let first = encode(checksummed(header(512, 9, 2, 2), sum(1)), &[], sum(2));
    let next = encode(checksummed(header(512, 9, 3, 3), sum(3)), &[], sum(4));
    let message = "input 1: pre-apply checksum: expected 8000000000000002, actual 8000000000000003";
    assert_eq!(refusal(&[first, next]), message);
}

#[test]
fn chain_with_and_without_checksums_has_none() {
    let sum = |low: u64| Checksum::from_raw(1 << 63 | low);
    let with = encode(checksummed(header(512, 9, 2, 2), sum(1)), &[], sum(2));
    let without = file(header(512, 9, 3, 3), &[1]);
    let merged = merge_all(&[with, without]).unwrap();
    let (header, _, trailer) = decode(&merged.out[..]).unwrap();
    assert!(!header.checksummed);
    assert_eq!((header.pre_apply, trailer.post_apply), (None, None));
}

#[test]
fn damage_anywhere_in_an_input() {
    let files = [file(header(512, 9, 2, 2), &[1, 6]), file(header(512, 9, 3, 3), &[6, 9])];
    for which in 0..2 {
        for at in [106, files[which].len() / 2, files[which].len() - 1] {
            let mut damaged = files.clone();
            damaged[which][at] ^= 0x10;
            assert_eq!(refusal(&damaged), format!("input {which}"), "byte {at}");
        }
    }
}
