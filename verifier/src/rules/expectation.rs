//! What an assertion expects of its query's answer, and whether that holds. Pure.

use std::cmp::Ordering;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rusqlite::types::ValueRef;
use serde::Deserialize;

use crate::rules::moment;

/// A newest row further in the future than any time zone explains says nothing of its age.
const FUTURE_TOLERATED: SignedDuration = SignedDuration::from_hours(24);

/// A value that a rule compares with.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Bound {
    /// `true` is 1, `false` is 0, as SQLite has it.
    Flag(bool),
    /// A whole number.
    Integer(i64),
    /// A number.
    Real(f64),
    /// A text, compared byte by byte.
    Text(String),
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag(flag) => u8::from(*flag).fmt(f),
            Self::Integer(number) => number.fmt(f),
            Self::Real(number) => number.fmt(f),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

/// Everything that must hold; what is `None` is not asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expectation<'a> {
    /// The value is a time at most this long ago.
    pub max_age: Option<Duration>,
    /// The value is at least this.
    pub min: Option<&'a Bound>,
    /// The value is at most this.
    pub max: Option<&'a Bound>,
    /// The value is this.
    pub equals: Option<&'a Bound>,
    /// The query answers with so many rows.
    pub rows: Option<u64>,
}

/// Whether an expectation holds, and in which words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// It holds.
    Holds(String),
    /// It does not.
    Broken(String),
}

impl Expectation<'_> {
    /// Whether nothing is expected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.needs_value() && self.rows.is_none()
    }

    /// Whether the first column of the first row matters.
    #[must_use]
    pub fn needs_value(&self) -> bool {
        self.max_age.is_some() || self.min.is_some() || self.max.is_some() || self.equals.is_some()
    }

    /// Judges the first value of the answer (`None`: there was no row). Ages are counted back from `now`.
    #[must_use]
    pub fn judge_value(&self, value: Option<ValueRef<'_>>, now: Timestamp) -> Judged {
        let Some(value) = value else { return Judged::Broken("no row, so no value".to_owned()) };
        if value == ValueRef::Null {
            return Judged::Broken("the value is NULL".to_owned());
        }
        let shown = shown(value);
        let bounds = [
            (self.min, "at least", Ordering::is_ge as fn(Ordering) -> bool),
            (self.max, "at most", Ordering::is_le),
            (self.equals, "", Ordering::is_eq),
        ];
        for (bound, words, holds) in bounds {
            let Some(bound) = bound else { continue };
            if !compare(value, bound).is_some_and(holds) {
                let expected = format!("{words} {bound}");
                let expected = expected.trim();
                return Judged::Broken(format!("expected {expected}, actual {shown}"));
            }
        }
        self.max_age.map_or(Judged::Holds(shown), |max_age| judge_age(value, max_age, now))
    }

    /// Judges the number of rows.
    #[must_use]
    pub fn judge_rows(&self, actual: u64) -> Option<Judged> {
        let expected = self.rows?;
        Some(if actual == expected {
            Judged::Holds(format!("{actual} row(s)"))
        } else {
            Judged::Broken(format!("expected {expected} row(s), actual {actual}"))
        })
    }
}

fn judge_age(value: ValueRef<'_>, max_age: Duration, now: Timestamp) -> Judged {
    let shown = shown(value);
    let Some(time) = moment(value) else {
        return Judged::Broken(format!(
            "{shown} is no time that is known here (RFC 3339, SQLite's texts, Unix time, Julian day)"
        ));
    };
    let age = now.duration_since(time);
    if -age > FUTURE_TOLERATED {
        return Judged::Broken(format!(
            "{shown} is {:#} after {now}: of its age nothing can be said",
            -rounded(age)
        ));
    }
    let limit = SignedDuration::try_from(max_age).unwrap_or(SignedDuration::MAX);
    let words = format!("{shown} is {:#} old at {now}", rounded(age.max(SignedDuration::ZERO)));
    if age > limit {
        Judged::Broken(format!("{words}, expected at most {:#}", rounded(limit)))
    } else {
        Judged::Holds(words)
    }
}

fn rounded(age: SignedDuration) -> SignedDuration {
    SignedDuration::from_secs(age.as_secs())
}

/// Longest text that a sentence shows, characters.
const SHOWN: usize = 200;

fn shown(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(text) => {
            let text: String = String::from_utf8_lossy(text).chars().take(SHOWN).collect();
            format!("{text:?}")
        }
        ValueRef::Blob(blob) => format!("a blob of {} bytes", blob.len()),
    }
}

/// How the value stands to the bound; `None` where the two cannot be compared (a text that is no number).
fn compare(value: ValueRef<'_>, bound: &Bound) -> Option<Ordering> {
    match bound {
        Bound::Flag(flag) => compare_integer(value, i64::from(*flag)),
        Bound::Integer(number) => compare_integer(value, *number),
        Bound::Real(number) => as_real(value)?.partial_cmp(number),
        Bound::Text(text) => match value {
            ValueRef::Text(actual) => Some(actual.cmp(text.as_bytes())),
            _ => None,
        },
    }
}

#[allow(clippy::cast_precision_loss)]
fn compare_integer(value: ValueRef<'_>, bound: i64) -> Option<Ordering> {
    match value {
        ValueRef::Integer(number) => Some(number.cmp(&bound)),
        ValueRef::Text(text) => match std::str::from_utf8(text).ok()?.trim().parse::<i64>() {
            Ok(number) => Some(number.cmp(&bound)),
            Err(_) => as_real(value)?.partial_cmp(&(bound as f64)),
        },
        _ => as_real(value)?.partial_cmp(&(bound as f64)),
    }
}

#[allow(clippy::cast_precision_loss)]
fn as_real(value: ValueRef<'_>) -> Option<f64> {
    match value {
        ValueRef::Integer(number) => Some(number as f64),
        ValueRef::Real(number) => Some(number),
        ValueRef::Text(text) => std::str::from_utf8(text).ok()?.trim().parse().ok(),
        ValueRef::Null | ValueRef::Blob(_) => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const NOTHING: Expectation<'_> =
        Expectation { max_age: None, min: None, max: None, equals: None, rows: None };

    fn holds(expectation: Expectation<'_>, value: ValueRef<'_>) -> bool {
        let now = "2026-11-22T09:00:00Z".parse().unwrap();
        matches!(expectation.judge_value(Some(value), now), Judged::Holds(_))
    }

    #[test]
    fn bounds_include_themselves() {
        use ValueRef::{Blob, Integer, Real, Text};
        let (one, real, text) = (Bound::Integer(1), Bound::Real(1.5), Bound::Text("b".into()));
        let min = |bound| Expectation { min: Some(bound), ..NOTHING };
        let max = |bound| Expectation { max: Some(bound), ..NOTHING };
        let equals = |bound| Expectation { equals: Some(bound), ..NOTHING };
        for (expectation, value, expected) in [
            (min(&one), Integer(1), true),
            (min(&one), Integer(0), false),
            (min(&one), Real(0.9), false),
            (min(&one), Text(b"1"), true),
            (min(&one), Text(b"one"), false),
            (min(&one), Blob(b"1"), false),
            (max(&real), Integer(1), true),
            (max(&real), Integer(2), false),
            (max(&real), Real(f64::NAN), false),
            (equals(&text), Text(b"b"), true),
            (equals(&text), Text(b"B"), false),
            (equals(&one), Integer(1), true),
            (equals(&Bound::Integer(i64::MAX)), Integer(i64::MAX - 1), false),
            (equals(&Bound::Flag(true)), Integer(1), true),
            (max(&text), Text(b"a"), true),
            (equals(&one), ValueRef::Null, false),
        ] {
            assert_eq!(holds(expectation, value), expected, "{expectation:?} {value:?}");
        }
        let now = Timestamp::UNIX_EPOCH;
        assert!(matches!(min(&one).judge_value(None, now), Judged::Broken(_)));
    }

    #[test]
    fn an_age_is_judged_at_the_moment_given() {
        let day = Expectation { max_age: Some(Duration::from_secs(86_400)), ..NOTHING };
        for (text, expected) in [
            ("2026-11-21 09:00:00", true),
            ("2026-11-21 08:59:59", false),
            ("2026-11-22 20:00:00", true),
            ("2026-11-24 09:00:00", false),
            ("orders", false),
        ] {
            assert_eq!(holds(day, ValueRef::Text(text.as_bytes())), expected, "{text}");
        }
        let now = "2026-11-22T09:00:00Z".parse().unwrap();
        let old = day.judge_value(Some(ValueRef::Text(b"2026-11-20T09:00:00Z")), now);
        let Judged::Broken(words) = old else { panic!("{old:?}") };
        assert!(words.contains("48h old") && words.contains("at most 24h"), "{words}");
    }

    #[test]
    fn rows_are_counted_exactly() {
        let none = Expectation { rows: Some(0), ..NOTHING };
        assert!(matches!(none.judge_rows(0), Some(Judged::Holds(_))));
        assert!(matches!(none.judge_rows(1), Some(Judged::Broken(_))));
        assert_eq!(NOTHING.judge_rows(1), None);
        assert!(NOTHING.is_empty() && !none.is_empty() && !none.needs_value());
    }
}
