//! The point that a drill is asked to restore, and which one that is in a replica.
//!
//! The draw of a random point is a pure function of the seed and of the points that are there, so that a recorded
//! seed repeats it as long as the replica is what it was.

use std::str::FromStr;

use jiff::Timestamp;
use replica::format::Txid;
use replica::restore::{Found, RestoreError, States, Target, find};
use replica::store::Store;

/// `latest`, `oldest`, `random`, a timestamp or a TXID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The newest state.
    Latest,
    /// The oldest state that can be restored.
    Oldest,
    /// Any earlier state than the newest, each as likely, drawn with a seed (`None`: not chosen yet).
    Random(Option<u64>),
    /// The newest state at or before a time.
    AtOrBefore(Timestamp),
    /// Exactly this state.
    Txid(Txid),
}

impl Asked {
    /// The newest state.
    pub const LATEST: Self = Self::Latest;
    /// Seeds stay below this, so that every JSON reader keeps them whole.
    pub const SEEDS: u64 = 1 << 53;

    /// A point that is still to be drawn is drawn with `seed` (taken modulo 2^53).
    #[must_use]
    pub fn seeded(self, seed: u64) -> Self {
        match self {
            Self::Random(None) => Self::Random(Some(seed % Self::SEEDS)),
            other => other,
        }
    }

    /// What a random point is drawn with.
    #[must_use]
    pub fn seed(&self) -> Option<u64> {
        match self {
            Self::Random(seed) => *seed,
            _ => None,
        }
    }

    /// Finds the point in a replica.
    ///
    /// # Errors
    /// Those of [`find()`].
    pub async fn find(&self, store: &dyn Store) -> Result<Found, RestoreError> {
        let target = match self {
            Self::Latest => Target::Latest,
            Self::AtOrBefore(time) => Target::AtOrBefore(*time),
            Self::Txid(txid) => Target::Txid(*txid),
            Self::Oldest | Self::Random(_) => {
                let states = States::read(store).await?;
                let number = match self {
                    // Without a seed there is nothing to draw with, and 0 is as good as any.
                    Self::Random(seed) => draw(seed.unwrap_or_default(), past(states.len())),
                    _ => 0,
                };
                // Where there is none, the latest says why.
                let (chain, target) = states.get(number).unwrap_or((None, Target::Latest));
                return find(store, chain, target).await;
            }
        };
        find(store, None, target).await
    }
}

/// How many of so many states are past ones: all but the newest, unless it is the only one.
fn past(states: usize) -> usize {
    states.saturating_sub(1).max(1)
}

/// A number below `count` (at least 1), each as likely, by SplitMix64's finalizer.
fn draw(seed: u64, count: usize) -> usize {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    let scaled = (u128::from(mixed) * count as u128) >> 64;
    usize::try_from(scaled).unwrap_or_default()
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Oldest => f.write_str("oldest"),
            Self::Random(_) => f.write_str("random"),
            Self::AtOrBefore(timestamp) => timestamp.fmt(f),
            Self::Txid(txid) => txid.fmt(f),
        }
    }
}

impl FromStr for Asked {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = match text {
            "latest" => Some(Self::Latest),
            "oldest" => Some(Self::Oldest),
            "random" => Some(Self::Random(None)),
            _ => None,
        };
        let drawn = || {
            let seed = text.strip_prefix("random:")?.parse().ok()?;
            (seed < Self::SEEDS).then_some(Self::Random(Some(seed)))
        };
        let txid = || text.parse().ok().map(Self::Txid);
        let time = || text.parse().ok().map(Self::AtOrBefore);
        known.or_else(drawn).or_else(txid).or_else(time).ok_or_else(|| {
            format!(
                "{text:?} is no point: give latest, oldest, random (or random:SEED), a time like \
                 2026-11-22T09:00:00Z, or a TXID like 1a"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn points_are_read_and_shown() {
        for (text, shown) in [
            ("latest", "latest"),
            ("oldest", "oldest"),
            ("random", "random"),
            ("random:7", "random"),
            ("1A", "000000000000001a"),
            ("2026-11-22T10:00:00+01:00", "2026-11-22T09:00:00Z"),
        ] {
            assert_eq!(text.parse::<Asked>().unwrap().to_string(), shown);
        }
        for wrong in [
            "",
            "newest",
            "0",
            "2026-11-22",
            "random:",
            "random:x",
            "random:-1",
            "random:9007199254740992",
        ] {
            assert!(wrong.parse::<Asked>().unwrap_err().contains("is no point"), "{wrong:?}");
        }
    }

    #[test]
    fn a_seed_that_was_given_stays() {
        assert_eq!(
            "random".parse::<Asked>().unwrap().seeded(u64::MAX).seed(),
            Some(Asked::SEEDS - 1)
        );
        assert_eq!("random:7".parse::<Asked>().unwrap().seeded(8).seed(), Some(7));
        assert_eq!(Asked::Latest.seeded(8), Asked::Latest);
    }

    #[test]
    fn every_past_state_is_drawn_about_as_often() {
        let mut drawn = [0_u32; 7];
        for seed in 0..7000 {
            drawn[draw(seed, 7)] += 1;
        }
        assert!(drawn.iter().all(|times| (850..1150).contains(times)), "{drawn:?}");
        assert_eq!([past(0), past(1), past(2), past(9)], [1, 1, 1, 8]);
        assert_eq!(draw(u64::MAX, 1), 0);
    }
}
