//! Every file that real Litestream wrote decodes to what Litestream's own decoder says of it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod format_support;

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use replica::format::{Checksum, Decoder, TxidRange, merge};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

fn check_folder(folder: &str, replica: &str, expected_files: usize) {
    let expected = fs::read(fixtures().join(folder).join("expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    let files = expected["files"].as_array().unwrap();
    assert_eq!(files.len(), expected_files);
    for file in files {
        let path = fixtures().join(folder).join(replica).join(file["path"].as_str().unwrap());
        check_file(&path, file);
    }
}

fn check_file(path: &Path, expected: &Value) {
    let number = |key: &str| expected[key].as_u64().unwrap_or_else(|| panic!("no {key}"));
    let text = |key: &str| expected[key].as_str().unwrap_or_else(|| panic!("no {key}")).to_owned();
    let context = path.display();

    let mut decoder = Decoder::new(fs::File::open(path).unwrap()).unwrap();
    let header = *decoder.header();
    let name = path.file_name().unwrap().to_str().unwrap();
    header.check_name(TxidRange::from_file_name(name).unwrap()).unwrap();
    assert_eq!(u64::from(header.page_size.get()), number("page_size"), "{context}");
    assert_eq!(u64::from(header.commit), number("commit"), "{context}");
    assert_eq!(header.txids.min().to_string(), text("min_txid"), "{context}");
    assert_eq!(header.txids.max().to_string(), text("max_txid"), "{context}");
    assert_eq!(header.timestamp.as_millisecond(), expected["timestamp_ms"].as_i64().unwrap());
    assert_eq!(header.checksummed, number("flags") == 0, "{context}");
    assert_eq!(checksum_text(header.pre_apply), text("pre_apply"), "{context}");
    assert_eq!(header.node_id, number("node_id"), "{context}");
    let wal = header.wal.map_or((0, 0, 0, 0), |wal| {
        (wal.offset, wal.size, u64::from(wal.salts.0), u64::from(wal.salts.1))
    });
    let expected_wal =
        (number("wal_offset"), number("wal_size"), number("wal_salt1"), number("wal_salt2"));
    assert_eq!(wal, expected_wal, "{context}");
    assert_eq!(header.encode()[..], fs::read(path).unwrap()[..100], "{context}");

    let mut page = vec![0; header.page_size.len()];
    let mut pages = 0;
    while decoder.next_page(&mut page).unwrap().is_some() {
        pages += 1;
    }
    assert_eq!(pages, number("pages"), "{context}");
    let trailer = decoder.finish().unwrap();
    assert_eq!(checksum_text(trailer.post_apply), text("post_apply"), "{context}");
    assert_eq!(trailer.file.to_string(), text("file_checksum"), "{context}");
}

fn checksum_text(checksum: Option<Checksum>) -> String {
    format!("{:016x}", checksum.map_or(0, Checksum::raw))
}

#[test]
fn files_of_a_file_replica() {
    check_folder("v05-file", "replica", 39);
}

#[test]
fn files_of_an_s3_replica() {
    check_folder("v05-s3", "objects", 27);
}

#[test]
fn files_with_pages_of_512_bytes() {
    check_folder("v05-pages512", "replica", 37);
}

#[test]
fn files_with_lz4_frames() {
    let expected = |number: u32| -> Vec<u8> {
        let fill = u8::try_from(number).unwrap();
        (0_u16..512).map(|i| if i < 100 { u8::try_from(i % 5).unwrap() } else { fill }).collect()
    };
    let read = |name: &str| {
        let path = fixtures().join("ltx-frames").join(name);
        format_support::decode(fs::File::open(path).unwrap()).unwrap()
    };

    let (header, pages, trailer) = read("0000000000000001-0000000000000003.ltx");
    assert!(header.checksummed);
    assert_eq!(header.timestamp.as_millisecond(), 1_750_000_000_123);
    assert_eq!(pages.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2, 3, 4]);
    for (number, page) in pages.iter().filter(|(number, _)| *number != 2) {
        assert_eq!(*page, expected(*number), "page {number}");
    }
    assert_eq!(trailer.post_apply, Some(format_support::database_checksum(&pages)));

    let (header, update, trailer) = read("0000000000000004-0000000000000004.ltx");
    assert!(!header.checksummed);
    assert_eq!(update, [pages[1].clone(), pages[3].clone()]);
    assert_eq!(trailer.post_apply, None);
}

/// The files that Litestream chose for a point, merged, must be the file that it restored.
fn check_merges(folder: &str, level_folder: fn(&str) -> PathBuf) {
    let expected = fs::read(fixtures().join(folder).join("expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    let points = expected["restore_points"].as_array().unwrap();
    for point in std::iter::once(&expected["latest"]).chain(points) {
        let inputs = point["plan"].as_array().unwrap().iter().map(|file| {
            let (level, name) = file.as_str().unwrap().split_once('/').unwrap();
            let path = fixtures().join(folder).join(level_folder(level)).join(name);
            Decoder::new(fs::File::open(path).unwrap()).unwrap()
        });
        let merged = merge(inputs.collect(), Vec::new(), Cursor::new(Vec::new())).unwrap();
        let (_, pages, _) = format_support::decode(&merged.out[..]).unwrap();
        let mut sha256 = Sha256::new();
        pages.iter().for_each(|(_, page)| sha256.update(page));
        let hex: String = sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, point["file_sha256"].as_str().unwrap(), "{folder}: {}", point["value"]);
    }
}

#[test]
fn merge_of_a_file_replica_is_what_litestream_restores() {
    check_merges("v05-file", |level| Path::new("replica/ltx").join(level));
}

#[test]
fn merge_of_an_s3_replica_is_what_litestream_restores() {
    check_merges("v05-s3", |level| PathBuf::from(format!("objects/prod/app.db/000{level}")));
}

#[test]
fn merge_with_pages_of_512_bytes_is_what_litestream_restores() {
    check_merges("v05-pages512", |level| Path::new("replica/ltx").join(level));
}
