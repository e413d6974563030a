//! Names of generations: UUIDv7, so that they sort by age even if the clock went back.

use jiff::Timestamp;
use replica::format::GenerationId;
use uuid::{NoContext, Uuid};

/// The last millisecond that a name can hold.
const LAST: u64 = (1 << 48) - 1;

/// A new generation's name, which sorts after `predecessor` (but for one that nothing can sort after).
#[must_use]
pub fn new(predecessor: Option<GenerationId>, now: Timestamp) -> GenerationId {
    let now = millis(now);
    let after = predecessor.map_or(0, after);
    let at = if after > LAST { now } else { now.max(after) };
    let nanoseconds = u32::try_from(at % 1000).unwrap_or(0) * 1_000_000;
    let time = uuid::Timestamp::from_unix(NoContext, at / 1000, nanoseconds);
    GenerationId::from_uuid(Uuid::new_v7(time))
}

/// Whether `other` began after `ours`. Not where nothing could sort after it: nobody of ours named it.
#[must_use]
pub fn is_later(other: GenerationId, ours: GenerationId) -> bool {
    let named = other.uuid().get_version() == Some(uuid::Version::SortRand);
    named && other > ours && after(other) <= LAST
}

fn after(id: GenerationId) -> u64 {
    id.uuid().get_timestamp().map_or(0, |time| {
        let (seconds, nanoseconds) = time.to_unix();
        seconds * 1000 + u64::from(nanoseconds) / 1_000_000 + 1
    })
}

fn millis(time: Timestamp) -> u64 {
    u64::try_from(time.as_millisecond()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sorts_after_its_predecessor_when_the_clock_went_back() {
        let later: Timestamp = "2026-11-22T12:00:00.5Z".parse().unwrap();
        let earlier: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        let first = new(None, later);
        let second = new(Some(first), earlier);
        let third = new(Some(second), later);
        assert!(first < second && second < third, "{first} {second} {third}");
        assert!(first.to_string() < second.to_string(), "as text too");

        let last: GenerationId = "ffffffff-ffff-7fff-bfff-ffffffffffff".parse().unwrap();
        let next = new(Some(last), later);
        assert!(next < last, "{next}");
        assert!(is_later(third, first) && !is_later(first, third) && !is_later(last, first));
        let random: GenerationId = "ffffffff-ffff-4fff-bfff-ffffffffffff".parse().unwrap();
        assert!(!is_later(random, first), "it would be so for ever");
    }
}
