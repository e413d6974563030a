//! `rivals`: no two generations claim to be the newest state.
//!
//! Two hosts that ship under one name (a clone, an old server that came back) write a generation each, and each has what
//! the other has not. Which one counts no drill can tell: it fails until somebody says so in `drill.toml`, or until the other
//! one has not been written to for a while. Generations that follow each other are no rivals.

use jiff::{SignedDuration, Timestamp};
use replica::format::GenerationId;
use replica::restore::Rival;
use replica::store::Chain;

use crate::record::{Check, Status};

const NAME: &str = "rivals";

/// A generation that was not written to for so long is retired.
const RETIRED: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Judges the generations that were alive at once, the restored one first; `None` where it was alone. `chosen` is the one
/// that counts by `drill.toml`.
#[must_use]
pub fn rivals(found: &[Rival], chosen: Option<GenerationId>, now: Timestamp) -> Option<Check> {
    let (restored, others) = found.split_first()?;
    let is_chosen = |rival: &Rival| chosen.map(Chain::Generation) == Some(rival.chain);
    let alive = |rival: &&Rival| now.duration_since(rival.timestamp) <= RETIRED;
    let list = |rivals: &[Rival]| {
        let line = |rival: &Rival| {
            format!(
                "{} at TXID {} of {}: {}",
                rival.chain, rival.txid, rival.timestamp, rival.command
            )
        };
        rivals.iter().map(line).collect::<Vec<_>>().join("\n")
    };
    if is_chosen(restored) {
        let words = format!("{} is the one that counts (drill.toml)", restored.chain);
        return Some(Check::new(NAME, Status::Pass, words));
    }
    if let Some(other) = others.iter().find(|rival| is_chosen(rival)) {
        let words = format!(
            "drill.toml says that generation {} counts, but a plain restore gives {}, which was written to later\n\
             HINT: stop the shipper that writes the latter, and restore with --generation until the other one is written to",
            other.chain, restored.chain
        );
        return Some(Check::new(NAME, Status::Fail, words));
    }
    if !others.iter().any(|rival| alive(&rival)) {
        let words = format!(
            "{} other generation(s) were alive beside {}, the last until {}: taken as retired",
            others.len(),
            restored.chain,
            others.iter().map(|rival| rival.timestamp).max().unwrap_or(restored.timestamp)
        );
        return Some(Check::new(NAME, Status::Pass, words));
    }
    let words = format!(
        "generations that were written to at once, each with commits that the others have not:\n{}\n\
         HINT: two hosts ship to this place: stop the one that should not. Restore both and compare; then put \
         `generation = \"<the one that counts>\"` into drill.toml. Without that, one is taken as retired {} days after its last write",
        list(found),
        RETIRED.as_hours() / 24
    );
    Some(Check::new(NAME, Status::Fail, words))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use replica::format::Txid;

    use super::*;

    fn generation(last: u8) -> GenerationId {
        format!("0192f0c1-2345-7abc-8def-0123456789{last:02x}").parse().unwrap()
    }

    fn rival(last: u8, timestamp: &str) -> Rival {
        let chain = Chain::Generation(generation(last));
        let (txid, timestamp) = (Txid::FIRST, timestamp.parse().unwrap());
        Rival { chain, txid, timestamp, command: format!("restore {last}") }
    }

    #[test]
    fn two_that_live_fail_until_one_is_chosen_or_retired() {
        let now: Timestamp = "2026-11-22T09:00:00Z".parse().unwrap();
        let (lately, long_ago) = ("2026-11-22T08:00:00Z", "2026-11-15T08:00:00Z");
        let status = |other: &str, chosen: Option<u8>| {
            let found = [rival(1, lately), rival(2, other)];
            rivals(&found, chosen.map(generation), now).unwrap().status
        };
        assert_eq!(rivals(&[], None, now), None);
        assert_eq!(status(lately, None), Status::Fail);
        assert_eq!(status(lately, Some(3)), Status::Fail, "one that is not there");
        assert_eq!(status(lately, Some(2)), Status::Fail, "not what a restore gives");
        assert_eq!(status(lately, Some(1)), Status::Pass);
        assert_eq!(status(long_ago, None), Status::Pass);
        let check = rivals(&[rival(1, lately), rival(2, lately)], None, now).unwrap();
        assert!(check.detail.contains("restore 1") && check.detail.contains("restore 2"));
    }
}
