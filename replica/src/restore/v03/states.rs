//! The states of a v0.3 replica that a time leads to. Pure, and in one pass over the objects.

use jiff::Timestamp;

use crate::restore::v03::V03Inventory;
use crate::store::{V03Generation, V03Object, V03Part};

/// Newest snapshots of a generation whose own times are looked at: many more than anybody keeps.
const SNAPSHOT_POINTS: usize = 10_000;

/// One state that can be restored: the end of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V03Point {
    /// Its generation.
    pub generation: V03Generation,
    /// The WAL that it ends in, and the offset of its last segment there (bytes).
    pub position: (u32, u64),
    /// A `--timestamp` to ask for to get it.
    pub timestamp: Timestamp,
    /// Bytes to fetch for it.
    pub bytes: u64,
}

/// The states that a time leads to, oldest first.
pub(in crate::restore) fn states(inventories: &[V03Inventory]) -> Vec<V03Point> {
    let mut points: Vec<V03Point> = inventories.iter().flat_map(of_one).collect();
    points.sort_by_key(|point| (point.timestamp, point.generation, point.position));
    points
}

/// The states of one generation. At the time of each the generation is the one that was updated last, since
/// one of its objects was written then.
fn of_one(inventory: &V03Inventory) -> Vec<V03Point> {
    let generation = inventory.generation;
    let mut snapshots: Vec<(u32, &V03Object)> = Vec::new();
    // Each WAL, and the bytes of all segments before it.
    let mut firsts: Vec<(u32, u64)> = Vec::new();
    let mut points: Vec<V03Point> = Vec::new();
    let mut total = 0;
    // The first WAL from which on nothing is missing.
    let mut whole_from = 0;
    let mut last: Option<u32> = None;
    let mut time = Timestamp::MIN;
    for object in &inventory.objects {
        let (index, offset) = match object.part {
            V03Part::Snapshot { index } => {
                snapshots.push((index, object));
                continue;
            }
            V03Part::Segment { index, offset, .. } => (index, offset),
        };
        if last != Some(index) {
            firsts.push((index, total));
            if last.is_some_and(|last| u64::from(last) + 1 != u64::from(index)) {
                whole_from = index;
            }
            if offset != 0 {
                whole_from = index.saturating_add(1);
            }
            last = Some(index);
        }
        total += object.size;
        time = time.max(object.modified);
        let in_time = snapshots.iter().rfind(|(_, snapshot)| snapshot.modified <= time);
        let Some((first, snapshot)) = in_time.filter(|(first, _)| *first <= index) else {
            continue;
        };
        let start = firsts.partition_point(|(wal, _)| wal < first);
        let Some((wal, skipped)) = firsts.get(start) else { continue };
        if wal != first || *first < whole_from {
            continue;
        }
        let bytes = snapshot.size + total - skipped;
        points.push(V03Point { generation, position: (index, offset), timestamp: time, bytes });
    }
    // A snapshot's time is one at which something was written, too: with it come the segments that were there already.
    for (_, snapshot) in snapshots.iter().rev().take(SNAPSHOT_POINTS) {
        if let Ok(Some(plan)) = inventory.plan(Some(snapshot.modified)) {
            let (position, bytes) = (plan.position(), plan.bytes());
            points.push(V03Point { generation, position, timestamp: snapshot.modified, bytes });
        }
    }
    // Of several states at one time, the last one is restored.
    points.sort_by_key(|point| (point.timestamp, point.position));
    points.reverse();
    points.dedup_by_key(|point| point.timestamp);
    points
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::restore::v03::plan::plan;

    fn inventory(generation: u8, objects: &[(V03Part, i64)]) -> V03Inventory {
        let mut objects: Vec<V03Object> = objects
            .iter()
            .zip(1..)
            .map(|((part, time), size)| V03Object {
                part: *part,
                size,
                modified: Timestamp::from_second(*time).unwrap(),
            })
            .collect();
        objects.sort_unstable_by_key(|object| object.part);
        V03Inventory { generation: format!("{generation:016x}").parse().unwrap(), objects }
    }

    /// WALs 0 to 3 with segments as Litestream uploads them, snapshots in between, and some objects gone.
    fn histories() -> impl Strategy<Value = Vec<(V03Part, i64)>> {
        prop::collection::vec((0..3_u32, prop::bool::weighted(0.9)), 1..40).prop_map(|steps| {
            let (mut index, mut offset) = (0, 0);
            let mut objects = vec![(V03Part::Snapshot { index: 0 }, 0)];
            for ((step, kept), time) in steps.into_iter().zip((10..).step_by(10)) {
                let part = match step {
                    0 => V03Part::Snapshot { index },
                    1 if offset > 0 => {
                        (index, offset) = (index + 1, 0);
                        V03Part::Segment { index, offset, digits: 8 }
                    }
                    _ => V03Part::Segment { index, offset, digits: 8 },
                };
                if let V03Part::Segment { .. } = part {
                    offset += 1;
                }
                objects.retain(|(known, _)| *known != part);
                if kept {
                    objects.push((part, time));
                }
            }
            objects
        })
    }

    proptest! {
        /// Each point is what its time leads to, and every time at which something can be restored leads to a point.
        #[test]
        fn points_are_what_their_times_lead_to(first in histories(), second in histories()) {
            let both = [inventory(1, &first), inventory(2, &second.iter().map(|(part, time)| (*part, time + 123)).collect::<Vec<_>>())];
            let points = states(&both);
            for time in 0..600 {
                let time = Timestamp::from_second(time).unwrap();
                let point = points.iter().rfind(|point| point.timestamp <= time);
                if let Ok(Some(plan)) = plan(&both, Some(time)) {
                    let point = point.unwrap();
                    prop_assert_eq!((point.generation, point.position), (plan.generation, plan.position()), "{}", time);
                }
            }
            for point in &points {
                let plan = plan(&both, Some(point.timestamp)).unwrap().unwrap();
                prop_assert_eq!((point.generation, point.position, point.bytes), (plan.generation, plan.position(), plan.bytes()));
            }
        }
    }
}
