//! Names of generations: UUIDv7, so that they sort by age even if the clock went back.

use jiff::Timestamp;
use replica::format::GenerationId;
use uuid::{NoContext, Uuid};

/// A new generation's name, which sorts after `predecessor`.
#[must_use]
pub fn new(predecessor: Option<GenerationId>, now: Timestamp) -> GenerationId {
    let now = millis(now);
    let after = predecessor.and_then(|id| id.uuid().get_timestamp()).map_or(0, |time| {
        let (seconds, nanoseconds) = time.to_unix();
        seconds * 1000 + u64::from(nanoseconds) / 1_000_000 + 1
    });
    let at = now.max(after);
    let nanoseconds = u32::try_from(at % 1000).unwrap_or(0) * 1_000_000;
    let time = uuid::Timestamp::from_unix(NoContext, at / 1000, nanoseconds);
    GenerationId::from_uuid(Uuid::new_v7(time))
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
    }
}
