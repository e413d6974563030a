//! `size`: pages in the file, in the header of page 1, in the chain and in the heartbeat are the same.
//!
//! Here a file that is no SQLite database at all is named as such: neither Litestream nor the shipper can have shipped
//! it (both read the database through SQLite), so that it is damage unless proven otherwise.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use replica::documents::Heartbeat;
use replica::store::Chain;

use crate::checks::{LISTED, Told};
use crate::record::{Check, Size, Status};

const NAME: &str = "size";

/// The part of page 1 that is the database's header, bytes.
const HEADER_BYTES: usize = 100;
const MAGIC: &[u8] = b"SQLite format 3\0";

/// Compares every place that knows the size. Where no chain tells it, page 1 and the file do.
#[must_use]
pub fn size(
    path: &Path,
    told: Option<Told>,
    heartbeat: Option<&Heartbeat>,
) -> (Check, Option<Size>) {
    let (header, bytes) = match read(path) {
        Ok(read) => read,
        Err(error) => {
            let hint = "drill again; look at the disk below TMPDIR";
            let detail = format!("read restored copy: {error}\nHINT: {hint}");
            return (Check::new(NAME, Status::Error, detail), None);
        }
    };
    let in_header = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65536,
        other => u32::from(other),
    };
    let of_file = |page_size: u32| u32::try_from(bytes / u64::from(page_size.max(1)));
    let (page_size, page_count) = match told {
        Some(told) => (told.page_size.get(), told.page_count),
        None => (in_header, of_file(in_header).unwrap_or(u32::MAX)),
    };
    let found = Size { page_size, page_count, bytes };
    let fail = |detail: String| (Check::new(NAME, Status::Fail, detail), Some(found));
    let expected = u64::from(page_size) * u64::from(page_count);
    if bytes != expected {
        return fail(format!(
            "restored file: {page_count} pages of {page_size} bytes: expected {expected} bytes, actual {bytes}"
        ));
    }
    if !header.starts_with(MAGIC) {
        let begin =
            header.iter().take(LISTED).map(|byte| format!("{byte:02x}")).collect::<String>();
        return fail(format!(
            "page 1 at offset 0 of the copy: expected \"SQLite format 3\", actual {begin}…: no SQLite database\n\
             HINT: is it encrypted (SQLCipher, SEE)? What is in such a file no drill can check, and no backup that works \
             through SQLite can have shipped it; else page 1 is damaged"
        ));
    }
    if in_header != page_size {
        return fail(format!(
            "page size in the header of page 1 (offset 16): expected {page_size}, actual {in_header}"
        ));
    }
    let word = |at: usize| {
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    // SQLite before 3.7.0 left the count as it was, and the change counters tell.
    let count_valid = word(28) != 0 && word(24) == word(92);
    if count_valid && word(28) > page_count {
        return fail(format!(
            "page count in the header of page 1 (offset 28): expected {page_count}, actual {}",
            word(28)
        ));
    }
    let mut witnesses = vec![if told.is_some() { "the chain" } else { "the file" }];
    if count_valid && word(28) == page_count {
        witnesses.push("page 1");
    }
    let at_the_same = told.zip(heartbeat).filter(|(told, heartbeat)| {
        Chain::Generation(heartbeat.generation) == told.chain && heartbeat.txid == Some(told.txid)
    });
    if let Some((told, heartbeat)) = at_the_same {
        let beat = (heartbeat.page_size.get(), heartbeat.page_count);
        if beat != (page_size, page_count) {
            return fail(format!(
                "the heartbeat of {} at TXID {}: {} pages of {} bytes; the copy has {page_count} of {page_size}",
                heartbeat.written_at, told.txid, beat.1, beat.0
            ));
        }
        witnesses.push("the heartbeat");
    }
    let detail = format!(
        "{page_count} pages of {page_size} bytes, as {} say{}",
        witnesses.join(", "),
        if witnesses.len() == 1 { "s" } else { "" }
    );
    // SQLite was told to grow the file in chunks, or an older file was copied over a longer one. That none of these pages
    // belongs to the database is for `integrity_check` to find.
    let detail = match page_count.checked_sub(word(28)) {
        Some(beyond) if count_valid && beyond > 0 => {
            format!(
                "{detail}; the last {beyond} are not the database's: page 1 counts {}",
                word(28)
            )
        }
        _ => detail,
    };
    (Check::new(NAME, Status::Pass, detail), Some(found))
}

/// The header (zeros where the file is shorter) and the file's length.
fn read(path: &Path) -> std::io::Result<([u8; HEADER_BYTES], u64)> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let mut header = [0; HEADER_BYTES];
    if bytes >= HEADER_BYTES as u64 {
        file.read_exact_at(&mut header, 0)?;
    }
    Ok((header, bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use replica::format::{PageSize, Txid};
    use rusqlite::Connection;

    use super::*;

    fn told(chain: Chain, page_count: u32) -> Option<Told> {
        let page_size = PageSize::new(4096).unwrap();
        Some(Told { chain, txid: Txid::FIRST, page_size, page_count, checksum: None })
    }

    /// The check of a database of two pages, changed by `damage`.
    fn check(page_count: u32, damage: impl Fn(&File)) -> Check {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("copy.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE t(x)").unwrap();
        damage(&File::options().write(true).open(&path).unwrap());
        size(&path, told(Chain::Root, page_count), None).0
    }

    #[test]
    fn every_place_that_knows_the_size_is_compared() {
        let sound = check(2, |_| ());
        assert_eq!(sound.status, Status::Pass, "{}", sound.detail);
        assert_eq!(sound.detail, "2 pages of 4096 bytes, as the chain, page 1 say");
        let longer = check(4, |file| file.set_len(4 * 4096).unwrap());
        assert_eq!(longer.status, Status::Pass, "{}", longer.detail);
        assert!(longer.detail.contains("the last 2 are not the database's"), "{}", longer.detail);
        type Damage = fn(&File);
        let cases: [(u32, Damage, &str); 6] = [
            (3, |_| (), "expected 12288 bytes, actual 8192"),
            (2, |file| file.set_len(8191).unwrap(), "actual 8191"),
            (1, |file| file.set_len(4096).unwrap(), "(offset 28): expected 1, actual 2"),
            (2, |file| file.write_all_at(&[8, 0], 16).unwrap(), "expected 4096, actual 2048"),
            (2, |file| file.write_all_at(&[0; 4096], 0).unwrap(), "actual 00000"),
            (2, |file| file.write_all_at(&[0xa7; 4096], 0).unwrap(), "is it encrypted"),
        ];
        for (page_count, damage, words) in cases {
            let check = check(page_count, damage);
            assert_eq!(check.status, Status::Fail, "{words}");
            assert!(check.detail.contains(words), "{words}: {}", check.detail);
        }
        let old = check(2, |file| {
            file.write_all_at(&[0, 0, 0, 9], 28).unwrap();
            file.write_all_at(&[0, 0, 0, 99], 92).unwrap();
        });
        assert_eq!(old.status, Status::Pass, "a count of an old SQLite's is not believed");
        assert_eq!(old.detail, "2 pages of 4096 bytes, as the chain says");
        let none = check(2, |file| file.write_all_at(&[0; 4], 28).unwrap());
        assert_eq!(none.detail, "2 pages of 4096 bytes, as the chain says", "no count is none");
    }

    #[test]
    fn the_largest_pages_are_a_one_in_the_header() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("copy.db");
        let sql = "PRAGMA page_size = 65536; CREATE TABLE t(x)";
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let (check, found) = size(&path, None, None);
        assert_eq!(check.detail, "2 pages of 65536 bytes, as the file, page 1 say");
        assert_eq!(found.unwrap().page_count, 2);
    }

    #[test]
    fn the_heartbeat_is_compared_at_the_same_txid_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("copy.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE t(x)").unwrap();
        let (this, other) =
            ("0192f0c1-2345-7abc-8def-0123456789ab", "0192f0c1-2345-7abc-8def-0123456789ac");
        let chain = Chain::Generation(this.parse().unwrap());
        for (generation, txid, pages, status) in [
            (this, "1", 2, Status::Pass),
            (this, "1", 3, Status::Fail),
            (this, "2", 3, Status::Pass),
            (other, "1", 3, Status::Pass),
        ] {
            let at = "2026-11-22T09:00:00Z";
            let heartbeat = serde_json::from_value(serde_json::json!({
                "version": 1, "generation": generation, "page_size": 4096, "page_count": pages,
                "txid": txid, "written_at": at, "synced_at": at, "last_transaction_at": null,
                "wal_bytes": 0, "last_error": null, "shipper_version": "0.1.0",
                "sqlite_version": "3", "host": "web-1",
            }))
            .unwrap();
            let (check, _) = size(&path, told(chain, 2), Some(&heartbeat));
            assert_eq!(check.status, status, "{}", check.detail);
        }
    }
}
