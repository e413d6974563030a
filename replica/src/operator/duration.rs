//! Durations as people write them: `1s`, `15m`, `7d`, `1h 30m`.

use std::str::FromStr;
use std::time::Duration;

use jiff::{Span, SpanRelativeTo};
use serde::{Deserialize, Deserializer};

/// A duration read from `1s`, `250ms`, `15m`, `24h`, `7d` (days have 24 hours). Never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FriendlyDuration(Duration);

impl FriendlyDuration {
    /// The duration itself.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl From<Duration> for FriendlyDuration {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl FromStr for FriendlyDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("not a duration: {text:?} (write it like 1s, 15m, 24h or 7d)");
        let span: Span = text.trim().parse().map_err(|_| refuse())?;
        let signed = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| refuse())?;
        Duration::try_from(signed).map(Self).map_err(|_| refuse())
    }
}

impl<'de> Deserialize<'de> for FriendlyDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        let read = |text: &str| text.parse::<FriendlyDuration>().map(FriendlyDuration::get);
        assert_eq!(read("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(read("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(read("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(read("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for wrong in ["", "5", "-5s", "5 minuts", "1 month"] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}
