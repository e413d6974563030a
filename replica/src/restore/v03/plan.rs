//! Which objects of a v0.3 replica make a database. Pure.
//!
//! The rule is Litestream's: the most recently *updated* generation (not the one with the newest snapshot), its newest
//! snapshot, then the WALs from the snapshot's own on, each whole and without a hole between them. There are no
//! times but those of the objects, so a point in time is the last object written by then.
//! A hole that names alone show is refused here; the offsets within a WAL can only be compared when it is read.

use jiff::Timestamp;

use crate::restore::RestoreError;
use crate::store::{Key, V03Generation, V03Key, V03Object, V03Part};

/// The objects of one generation.
#[derive(Debug, Clone)]
pub struct V03Inventory {
    /// The generation.
    pub generation: V03Generation,
    /// Its objects: snapshots, then WAL segments, each by ascending position.
    pub objects: Vec<V03Object>,
}

/// Objects to apply in this order: a snapshot, then WAL segments.
#[derive(Debug, Clone)]
pub struct V03Plan {
    /// The generation.
    pub generation: V03Generation,
    /// The objects; never empty.
    pub objects: Vec<V03Object>,
    /// When the newest of them was written, by the store's clock: as much as can be said of the state's time.
    pub timestamp: Timestamp,
}

impl V03Plan {
    /// Bytes to fetch.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.objects.iter().map(|object| object.size).sum()
    }

    /// The key of one of its objects.
    #[must_use]
    pub fn key(&self, object: &V03Object) -> Key {
        Key::V03(V03Key { generation: self.generation, part: object.part })
    }

    /// The last WAL applied, and the offset of its last segment in it (bytes); the snapshot's WAL and 0 where
    /// there is none.
    #[must_use]
    pub fn position(&self) -> (u32, u64) {
        self.objects.last().map_or((0, 0), position)
    }
}

fn position(object: &V03Object) -> (u32, u64) {
    match object.part {
        V03Part::Snapshot { index } => (index, 0),
        V03Part::Segment { index, offset, .. } => (index, offset),
    }
}

impl V03Inventory {
    /// When its newest object was written.
    pub(in crate::restore) fn last_write(&self) -> Option<Timestamp> {
        self.updated(None)
    }

    /// When its newest object that was written at or before `limit` was written.
    fn updated(&self, limit: Option<Timestamp>) -> Option<Timestamp> {
        let times = self.objects.iter().map(|object| object.modified);
        times.filter(|time| limit.is_none_or(|limit| *time <= limit)).max()
    }

    /// Plans the newest state, or the newest written at or before `limit`; `None` where nothing is as old.
    ///
    /// # Errors
    /// [`RestoreError::Chain`]: no snapshot, or a hole.
    pub(super) fn plan(&self, limit: Option<Timestamp>) -> Result<Option<V03Plan>, RestoreError> {
        let in_time = |object: &&V03Object| limit.is_none_or(|limit| object.modified <= limit);
        let is_snapshot = |object: &V03Object| matches!(object.part, V03Part::Snapshot { .. });
        let (snapshots, segments) =
            self.objects.split_at(self.objects.partition_point(is_snapshot));
        let Some(snapshot) = snapshots.iter().rfind(in_time) else {
            // Before a time there may be nothing; of what is there now, a snapshot was the first.
            if !snapshots.is_empty() || self.updated(limit).is_none() {
                return Ok(None);
            }
            return Err(self.refusal(
                "no snapshot, although WAL segments are there",
                "its snapshot is lost; without it the segments are of no use",
            ));
        };
        let (first, _) = position(snapshot);
        let start = segments.partition_point(|object| position(object).0 < first);
        let segments = segments[start..].iter().take_while(in_time);
        let mut plan = V03Plan {
            generation: self.generation,
            objects: vec![*snapshot],
            timestamp: snapshot.modified,
        };
        let mut last = None;
        for segment in segments {
            self.refuse_hole(first, last, position(segment))?;
            last = Some(position(segment).0);
            plan.objects.push(*segment);
            plan.timestamp = plan.timestamp.max(segment.modified);
        }
        Ok(Some(plan))
    }

    /// Indexes follow each other from the snapshot's on, and each WAL begins at its beginning.
    fn refuse_hole(
        &self,
        first: u32,
        last: Option<u32>,
        (index, offset): (u32, u64),
    ) -> Result<(), RestoreError> {
        if last == Some(index) {
            return Ok(());
        }
        let expected = last.map_or(u64::from(first), |last| u64::from(last) + 1);
        let what = if u64::from(index) != expected {
            format!("WAL {expected:08x} is missing before WAL {index:08x}")
        } else if offset != 0 {
            format!("WAL {index:08x} begins at offset {offset:08x}: its first segment is missing")
        } else {
            return Ok(());
        };
        let hint = "a time before the hole can be restored: `shipper points` lists them";
        Err(self.refusal(&what, hint))
    }

    fn refusal(&self, what: &str, hint: &str) -> RestoreError {
        let generation = self.generation;
        RestoreError::Chain {
            message: format!("Litestream v0.3 generation {generation}: {what}\nHINT: {hint}"),
        }
    }
}

/// Plans the newest state of the most recently updated generation, or the newest written at or before `limit`.
///
/// # Errors
/// [`RestoreError::Chain`]: no snapshot, or a hole.
pub(super) fn plan(
    inventories: &[V03Inventory],
    limit: Option<Timestamp>,
) -> Result<Option<V03Plan>, RestoreError> {
    let newest = inventories
        .iter()
        .filter_map(|inventory| Some((inventory.updated(limit)?, inventory)))
        .max_by_key(|(updated, inventory)| (*updated, inventory.generation));
    newest.map_or(Ok(None), |(_, inventory)| inventory.plan(limit))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// `s1` is the snapshot of WAL 1, `1+0` its segment at 0; each written a second after the one before.
    fn inventory(generation: &str, from: i64, names: &[&str]) -> V03Inventory {
        let number = |text: &str| text.parse::<u32>().unwrap();
        let part = |name: &str| match name.split_once('+') {
            Some((index, offset)) => V03Part::Segment {
                index: number(index),
                offset: u64::from(number(offset)),
                digits: 8,
            },
            None => V03Part::Snapshot { index: number(name.strip_prefix('s').unwrap()) },
        };
        let mut objects: Vec<V03Object> = (from..)
            .zip(names)
            .map(|(time, name)| V03Object { part: part(name), size: 1, modified: at(time) })
            .collect();
        objects.sort_unstable_by_key(|object| object.part);
        V03Inventory { generation: generation.parse().unwrap(), objects }
    }

    fn shown(plan: &V03Plan) -> Vec<String> {
        let name = |object: &V03Object| match object.part {
            V03Part::Snapshot { index } => format!("s{index}"),
            V03Part::Segment { index, offset, .. } => format!("{index}+{offset}"),
        };
        plan.objects.iter().map(name).collect()
    }

    const A: &str = "aaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbb";

    #[test]
    fn the_newest_snapshot_and_all_that_follows_it() {
        let all = ["s1", "1+0", "1+9", "s2", "2+0", "3+0", "3+5"];
        let one = [inventory(A, 100, &all)];
        for (limit, expected) in [
            (None, Some(vec!["s2", "2+0", "3+0", "3+5"])),
            (Some(106), Some(vec!["s2", "2+0", "3+0", "3+5"])),
            (Some(105), Some(vec!["s2", "2+0", "3+0"])),
            (Some(103), Some(vec!["s2"])),
            (Some(102), Some(vec!["s1", "1+0", "1+9"])),
            (Some(100), Some(vec!["s1"])),
            (Some(99), None),
        ] {
            let planned = plan(&one, limit.map(at)).unwrap();
            let names = planned.as_ref().map(shown);
            let expected = expected.map(|e| e.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(names, expected, "{limit:?}");
        }
    }

    #[test]
    fn the_generation_that_was_updated_last_not_the_newest_snapshot() {
        let both = [inventory(A, 100, &["s1", "1+0", "1+3", "1+6"]), inventory(B, 101, &["s7"])];
        assert_eq!(shown(&plan(&both, None).unwrap().unwrap()), ["s1", "1+0", "1+3", "1+6"]);
        assert_eq!(shown(&plan(&both, Some(at(101))).unwrap().unwrap()), ["s7"]);
        let empty = [inventory(A, 1, &[])];
        assert!(plan(&empty, None).unwrap().is_none());
        assert!(plan(&[], None).unwrap().is_none());
    }

    #[test]
    fn holes_are_refused_by_name() {
        for (names, expected) in [
            (vec!["1+0"], "no snapshot"),
            (vec!["s1", "2+0"], "WAL 00000001 is missing before WAL 00000002"),
            (vec!["s1", "1+0", "3+0"], "WAL 00000002 is missing before WAL 00000003"),
            (vec!["s1", "1+0", "2+9"], "WAL 00000002 begins at offset 00000009"),
            (vec!["s1", "1+9"], "WAL 00000001 begins at offset 00000009"),
        ] {
            let error = plan(&[inventory(A, 100, &names)], None).unwrap_err();
            assert!(error.to_string().contains(expected), "{names:?}: {error}");
            assert!(error.is_replica_fault());
        }
        // What the newest snapshot does not need may be incomplete: its retention deletes from the beginning.
        let old = inventory(A, 100, &["1+9", "2+0", "s3", "3+0"]);
        assert_eq!(shown(&plan(&[old], None).unwrap().unwrap()), ["s3", "3+0"]);
    }
}
