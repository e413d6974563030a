//! `source_match`: the copy is the source, byte for byte.
//!
//! Two halves make the proof. The copy's database checksum, computed here from the restored file, is the one that the
//! shipper put into the file of its TXID; and the shipper's last scrub found its page index, from which it computed
//! that, equal to the live source. A scrub vouches for what is shipped now: of a past point only the first half is told.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use replica::documents::Heartbeat;
use replica::format::{Checksum, DatabaseChecksum, PageNumber, PageSize, page_checksum};
use replica::store::Chain;

use crate::checks::{Told, out_of_time};
use crate::heartbeat::began;
use crate::record::{Check, Status};

const NAME: &str = "source_match";

/// How old a scrub may be: they are daily.
const SCRUB_RECENT: SignedDuration = SignedDuration::from_hours(48);

/// Bytes read at once: a multiple of every page size.
const READ_BYTES: usize = 1 << 20;

/// What is known of copy and source.
#[derive(Debug, Clone, Copy)]
pub struct SourceMatch<'a> {
    /// What the chain says of the copy.
    pub told: Option<Told>,
    /// The heartbeat, read before the restore.
    pub heartbeat: Option<&'a Heartbeat>,
    /// Whether the newest state was asked for.
    pub latest: bool,
    /// The time now.
    pub now: Timestamp,
    /// How far the server's clock is behind.
    pub behind: SignedDuration,
}

/// The database checksum of a file; `None` once the deadline has passed.
fn database_checksum(
    path: &Path,
    page_size: PageSize,
    deadline: Option<Instant>,
) -> io::Result<Option<Checksum>> {
    sum_from(&File::open(path)?, page_size, 1, deadline)
}

/// The same of the pages from `page` on.
fn sum_from(
    file: &File,
    page_size: PageSize,
    mut page: u32,
    deadline: Option<Instant>,
) -> io::Result<Option<Checksum>> {
    let length = file.metadata()?.len();
    let mut sum = DatabaseChecksum::default();
    let mut buffer = vec![0; READ_BYTES.max(page_size.len())];
    let mut offset = u64::from(page - 1) * u64::from(page_size.get());
    while offset < length {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(None);
        }
        let wanted = usize::try_from(length - offset).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact_at(&mut buffer[..wanted], offset)?;
        for bytes in buffer[..wanted].chunks(page_size.len()) {
            let number = PageNumber::new(page).map_err(io::Error::other)?;
            if number != page_size.lock_page() {
                sum.toggle(page_checksum(number, bytes));
            }
            page += 1;
        }
        offset += wanted as u64;
    }
    Ok(Some(sum.value()))
}

/// Computes the checksum of the file at `path`, and compares.
#[must_use]
pub fn source_match(what: &SourceMatch<'_>, path: &Path, deadline: Option<Instant>) -> Check {
    match what.told.and_then(|told| Some((told, told.checksum?))) {
        // Nothing to compare with: nothing to read.
        None => unchecked(
            "the replica's files carry no database checksums (Litestream's do not): that the copy equals the source \
             can only be asserted in drill.toml",
        ),
        Some((told, promised)) => {
            let actual = database_checksum(path, told.page_size, deadline);
            compare(what, &told, promised, actual)
        }
    }
}

fn compare(
    what: &SourceMatch<'_>,
    told: &Told,
    promised: Checksum,
    actual: io::Result<Option<Checksum>>,
) -> Check {
    let txid = told.txid;
    match actual {
        Ok(Some(actual)) if actual == promised => {}
        Ok(Some(actual)) => {
            return Check::new(
                NAME,
                Status::Fail,
                format!(
                    "database checksum of the copy at TXID {txid}: expected {promised}, actual {actual}"
                ),
            );
        }
        Ok(None) => return out_of_time(NAME),
        Err(error) => {
            return Check::new(
                NAME,
                Status::Error,
                format!(
                    "read restored copy: {error}\nHINT: drill again; look at the disk below TMPDIR"
                ),
            );
        }
    }
    let copy = format!("the copy has the database checksum of TXID {txid}, {promised}");
    if !what.latest {
        return unchecked(&format!(
            "{copy}; a scrub vouches for the newest state, not for a past one"
        ));
    }
    let heartbeat = what.heartbeat.filter(|beat| Chain::Generation(beat.generation) == told.chain);
    let Some(heartbeat) = heartbeat else {
        return unchecked(&format!("{copy}; no heartbeat of this generation tells of a scrub"));
    };
    let Some(scrub) = &heartbeat.scrub else {
        return unchecked(&format!(
            "{copy}; the shipper has not compared it with the source yet (daily, and after a start)"
        ));
    };
    // Of an earlier generation it says nothing. Older shippers did not say of which it is.
    let ours = match scrub.generation {
        Some(generation) => generation == heartbeat.generation,
        None => began(heartbeat.generation).is_none_or(|began| began <= scrub.finished_at),
    };
    if !ours {
        return unchecked(&format!(
            "{copy}; the last scrub, of {}, was of an earlier generation",
            scrub.finished_at
        ));
    }
    let told = format!("scrub of {} at TXID {}", scrub.finished_at, scrub.txid);
    if scrub.mismatches > 0 {
        return Check::new(
            NAME,
            Status::Fail,
            format!(
                "{told}: {} page(s) of the source differed from what was shipped\n\
                 HINT: they were shipped anew after that; the shipper's log names the first of them. Points before are \
                 not the source; a clean scrub ends this alarm",
                scrub.mismatches
            ),
        );
    }
    // By the server's clock, which dated both.
    let now = what.now.saturating_sub(what.behind).unwrap_or(what.now);
    if now.duration_since(scrub.finished_at) > SCRUB_RECENT {
        let alive = now.duration_since(heartbeat.written_at) <= SCRUB_RECENT;
        let words = format!("{copy}; the last {told} is more than {SCRUB_RECENT:#} old");
        if !alive {
            return unchecked(&format!("{words}, as is the heartbeat"));
        }
        let hint =
            "the shipper is alive and should compare daily: see `shipper status` and its log";
        return Check::new(NAME, Status::Fail, format!("{words}\nHINT: {hint}"));
    }
    Check::new(NAME, Status::Pass, format!("{copy}; {told} found the source equal"))
}

fn unchecked(words: &str) -> Check {
    Check::new(NAME, Status::Unchecked, words)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use replica::format::Txid;

    use super::*;

    const GENERATION: &str = "0192f0c1-2345-7abc-8def-0123456789ab";
    const NOW: &str = "2026-11-22T09:00:00Z";

    fn heartbeat(written_at: &str, scrub: Option<(&str, u64)>) -> Heartbeat {
        let scrub = scrub.map(|(at, mismatches)| {
            serde_json::json!({"finished_at": at, "txid": "4", "mismatches": mismatches})
        });
        serde_json::from_value(serde_json::json!({
            "version": 1, "generation": GENERATION, "page_size": 4096, "page_count": 1, "txid": "5",
            "written_at": written_at, "synced_at": written_at, "last_transaction_at": null,
            "wal_bytes": 0, "last_error": null, "shipper_version": "0.1.0", "sqlite_version": "3",
            "host": "web-1", "scrub": scrub,
        }))
        .unwrap()
    }

    fn status(same: bool, latest: bool, heartbeat: Option<&Heartbeat>) -> Status {
        let sum = |raw| Checksum::from_raw(1 << 63 | raw);
        let told = Told {
            chain: Chain::Generation(GENERATION.parse().unwrap()),
            txid: Txid::new(5).unwrap(),
            page_size: PageSize::new(4096).unwrap(),
            page_count: 1,
            checksum: sum(1),
        };
        let now = NOW.parse().unwrap();
        let behind = SignedDuration::ZERO;
        let what = SourceMatch { told: Some(told), heartbeat, latest, now, behind };
        compare(&what, &told, sum(1).unwrap(), Ok(sum(u64::from(same)))).status
    }

    #[test]
    fn it_passes_only_with_both_halves() {
        let clean = heartbeat(NOW, Some(("2026-11-21T09:00:00Z", 0)));
        assert_eq!(status(true, true, Some(&clean)), Status::Pass);
        assert_eq!(status(false, true, Some(&clean)), Status::Fail);
        assert_eq!(status(true, true, None), Status::Unchecked);
        assert_eq!(status(true, true, Some(&heartbeat(NOW, None))), Status::Unchecked);
        assert_eq!(status(false, false, None), Status::Fail, "a past point's too");
        assert_eq!(status(true, false, Some(&clean)), Status::Unchecked);
    }

    #[test]
    fn a_scrub_must_be_clean_and_recent() {
        let wrong = heartbeat(NOW, Some(("2026-11-21T09:00:00Z", 1)));
        assert_eq!(status(true, true, Some(&wrong)), Status::Fail);
        let old = heartbeat(NOW, Some(("2026-11-20T08:59:59Z", 0)));
        assert_eq!(status(true, true, Some(&old)), Status::Fail);
        let silent = heartbeat("2026-11-19T09:00:00Z", Some(("2026-11-19T08:00:00Z", 0)));
        assert_eq!(status(true, true, Some(&silent)), Status::Unchecked);
        let other: Heartbeat = {
            let generation = "0192f0c1-2345-7abc-8def-0123456789ac".parse().unwrap();
            Heartbeat { generation, ..heartbeat(NOW, Some((NOW, 0))) }
        };
        assert_eq!(status(true, true, Some(&other)), Status::Unchecked);
    }

    #[test]
    fn a_scrub_of_an_earlier_generation_says_nothing() {
        let of = |generation: Option<&str>, finished_at: &str| {
            let mut beat = heartbeat(NOW, Some((finished_at, 0)));
            let scrub = beat.scrub.as_mut().unwrap();
            scrub.generation = generation.map(|generation| generation.parse().unwrap());
            status(true, true, Some(&beat))
        };
        let other = "0192f0c1-2345-7abc-8def-0123456789ac";
        assert_eq!(of(Some(GENERATION), "2026-11-21T09:00:00Z"), Status::Pass);
        assert_eq!(of(Some(other), "2026-11-21T09:00:00Z"), Status::Unchecked);
        // The generation of these tests is of November 2024.
        assert_eq!(of(None, "2026-11-21T09:00:00Z"), Status::Pass);
        assert_eq!(of(None, "2024-10-01T09:00:00Z"), Status::Unchecked, "before it began");
    }

    #[test]
    fn a_server_whose_clock_is_behind_compares_as_often_as_others() {
        let now = "2026-11-22T09:00:00Z".parse::<Timestamp>().unwrap();
        let beat = heartbeat("2026-11-18T09:00:00Z", Some(("2026-11-17T09:00:00Z", 0)));
        let sum = Checksum::from_raw(1 << 63 | 1).unwrap();
        let told = Told {
            chain: Chain::Generation(GENERATION.parse().unwrap()),
            txid: Txid::new(5).unwrap(),
            page_size: PageSize::new(4096).unwrap(),
            page_count: 1,
            checksum: Some(sum),
        };
        let behind = SignedDuration::from_hours(96);
        let what =
            SourceMatch { told: Some(told), heartbeat: Some(&beat), latest: true, now, behind };
        assert_eq!(compare(&what, &told, sum, Ok(Some(sum))).status, Status::Pass);
    }

    #[test]
    fn the_checksum_is_that_of_every_page_but_the_lock_page() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("copy.db");
        let page_size = PageSize::new(65536).unwrap();
        let page =
            |number: u32, byte: u8| page_checksum(PageNumber::new(number).unwrap(), &[byte; 65536]);
        std::fs::write(&path, [[1; 65536], [2; 65536]].concat()).unwrap();
        let mut expected = DatabaseChecksum::default();
        expected.toggle(page(1, 1));
        expected.toggle(page(2, 2));
        let sum = |deadline| database_checksum(&path, page_size, deadline).unwrap();
        assert_eq!(sum(None), Some(expected.value()));
        assert_eq!(sum(Some(Instant::now())), None, "stopped by the deadline");

        // Sparse up to the lock page, with something on it and behind it.
        let (file, lock) = (File::create(&path).unwrap(), page_size.lock_page().get());
        file.write_all_at(&[[7; 65536], [8; 65536]].concat(), u64::from(lock - 1) * 65536).unwrap();
        let mut expected = DatabaseChecksum::default();
        expected.toggle(page(lock - 1, 0));
        expected.toggle(page(lock + 1, 8));
        let from = sum_from(&File::open(&path).unwrap(), page_size, lock - 1, None).unwrap();
        assert_eq!(from, Some(expected.value()));
    }
}
