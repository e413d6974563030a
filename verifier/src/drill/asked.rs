//! The point that a drill is asked to restore.

use std::str::FromStr;

use jiff::Timestamp;
use replica::format::Txid;
use replica::restore::Target;

/// `latest`, a timestamp or a TXID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked(Target);

impl Asked {
    /// The newest state.
    pub const LATEST: Self = Self(Target::Latest);

    /// As the restore takes it.
    #[must_use]
    pub fn target(&self) -> Target {
        self.0
    }
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Target::Latest => f.write_str("latest"),
            Target::AtOrBefore(timestamp) => timestamp.fmt(f),
            Target::Txid(txid) => txid.fmt(f),
        }
    }
}

impl FromStr for Asked {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "latest" {
            return Ok(Self::LATEST);
        }
        if let Ok(txid) = text.parse::<Txid>() {
            return Ok(Self(Target::Txid(txid)));
        }
        text.parse::<Timestamp>().map(|timestamp| Self(Target::AtOrBefore(timestamp))).map_err(|_| {
            format!("{text:?} is no point: give latest, a time like 2026-11-22T09:00:00Z, or a TXID like 1a")
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
            ("1A", "000000000000001a"),
            ("2026-11-22T10:00:00+01:00", "2026-11-22T09:00:00Z"),
        ] {
            assert_eq!(text.parse::<Asked>().unwrap().to_string(), shown);
        }
        for wrong in ["", "newest", "0", "2026-11-22", "random"] {
            assert!(wrong.parse::<Asked>().unwrap_err().contains("is no point"), "{wrong:?}");
        }
    }
}
