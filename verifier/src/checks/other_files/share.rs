//! Which files are looked at in which drill. Pure, and without memory of earlier drills.
//!
//! A file's name gives it one of [`SHARES`] shares, the day of the drill says which share is due. Drilled daily, every
//! file is read within two weeks (within a week, counted from a Thursday, as the days since 1970 go); drilled weekly, within [`SHARES`] weeks: each week the
//! order moves on by one, so that a weekly drill does not always meet the same share.
//! Where there is little, all of it is due every day.
//! What is above the bounds is left to a later round: the order of the files within a share changes from day to day.

use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::Timestamp;
use replica::store::{Chain, LtxObject};

/// Shares that the files fall into.
pub const SHARES: u64 = 7;
/// Most files read in one drill …
pub const FILES_AT_MOST: usize = 20_000;
/// … and most bytes; one file alone may have more.
pub const BYTES_AT_MOST: u64 = 1 << 30;

/// So many files …
const FEW_FILES: usize = 500;
/// … of so many bytes together are read by every drill.
const FEW_BYTES: u64 = 64 << 20;

const SECONDS_PER_DAY: i64 = 24 * 60 * 60;

/// How many of the files a drill reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Those that are due on its day.
    OfTheDay,
    /// All, however many and large they are.
    Everything,
}

/// The files that are due on the day of `at`, in the order in which they are to be read, and whether all of them are.
#[must_use]
pub fn due(
    files: impl Iterator<Item = (Chain, LtxObject)> + Clone,
    at: Timestamp,
) -> (Vec<(Chain, LtxObject)>, bool) {
    let day = u64::try_from(at.as_second().div_euclid(SECONDS_PER_DAY)).unwrap_or_default();
    let turn = day + day / SHARES;
    // There may be hundreds of thousands: only what is due is collected.
    let (count, sum) = files
        .clone()
        .fold((0, 0_u64), |(count, sum), (_, file)| (count + 1, sum.saturating_add(file.size)));
    let few = count <= FEW_FILES && sum <= FEW_BYTES;
    let mut due: Vec<(u64, (Chain, LtxObject))> = files
        .filter(|file| few || (number(file, 0) % SHARES + turn).is_multiple_of(SHARES))
        .map(|file| (number(&file, day), file))
        .collect();
    due.sort_unstable_by_key(|(order, (chain, file))| (*order, *chain, file.level, file.txids));
    let all = due.len();
    let mut bytes = 0_u64;
    let chosen: Vec<(Chain, LtxObject)> = due
        .into_iter()
        .take(FILES_AT_MOST)
        .map(|(_, file)| file)
        .take_while(|(_, file)| {
            let first = bytes == 0;
            bytes = bytes.saturating_add(file.size);
            first || bytes <= BYTES_AT_MOST
        })
        .collect();
    let whole = chosen.len() == all;
    (chosen, whole)
}

/// A number from a file's name, the same in every run of this version.
fn number((chain, file): &(Chain, LtxObject), salt: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (salt, chain, file.level, file.txids).hash(&mut hasher);
    hasher.finish() >> 1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use replica::format::{Level, Txid, TxidRange};

    use super::*;

    fn files(count: u64, size: u64) -> Vec<(Chain, LtxObject)> {
        let txids = |n| TxidRange::single(Txid::new(n).unwrap());
        let file = |n| LtxObject {
            level: Level::new(0).unwrap(),
            txids: txids(n),
            size,
            modified: Timestamp::UNIX_EPOCH,
        };
        (1..=count).map(|n| (Chain::Root, file(n))).collect()
    }

    fn read(files: &[(Chain, LtxObject)], day: i64) -> Vec<u64> {
        let at = Timestamp::from_second(day * SECONDS_PER_DAY + 4711).unwrap();
        due(files.iter().copied(), at).0.iter().map(|(_, file)| file.txids.min().get()).collect()
    }

    #[test]
    fn daily_drills_read_everything_within_two_weeks_and_weekly_ones_within_seven() {
        let files = files(1000, 1);
        for start in 20_000..20_014 {
            let daily: BTreeSet<u64> =
                (start..start + 14).flat_map(|day| read(&files, day)).collect();
            assert_eq!(daily.len(), 1000, "from day {start}");
            let weekly: BTreeSet<u64> =
                (0..7).flat_map(|week| read(&files, start + 7 * week)).collect();
            assert_eq!(weekly.len(), 1000, "from day {start}");
            let share = read(&files, start).len();
            assert!((90..200).contains(&share), "{share} on day {start}");
            assert_eq!(read(&files, start), read(&files, start), "the same on the same day");
        }
    }

    #[test]
    fn what_is_above_the_bounds_comes_in_another_round() {
        let large = files(100, BYTES_AT_MOST / 2);
        let at = Timestamp::from_second(0).unwrap();
        let (chosen, whole) = due(large.iter().copied(), at);
        assert_eq!((chosen.len(), whole), (2, false));
        assert_eq!(
            due(files(FEW_FILES as u64, 1).into_iter(), at).0.len(),
            FEW_FILES,
            "all of a few"
        );
        let (one, whole) = due(files(1, u64::MAX).into_iter(), at);
        assert!(one.len() <= 1 && whole);
        let seen: BTreeSet<u64> = (0..400).flat_map(|day| read(&large, day)).collect();
        assert_eq!(seen.len(), 100);
    }
}
