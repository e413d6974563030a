//! The ways in which applications write a time into SQLite.

use jiff::civil::{Date, DateTime};
use jiff::{SignedDuration, Timestamp};
use rusqlite::types::ValueRef;

/// Julian days that are taken for one: the years 1858 to 2132.
const JULIAN_DAYS: std::ops::Range<f64> = 2_400_000.5..2_500_000.5;
/// The Julian day of the Unix epoch.
const JULIAN_EPOCH: f64 = 2_440_587.5;

/// Reads RFC 3339, SQLite's own date and time texts (UTC, as SQLite takes them), a number as text or number: seconds,
/// milli-, micro- or nanoseconds since 1970 (from 1973 on, told apart by their size), or a Julian day.
#[must_use]
pub fn moment(value: ValueRef<'_>) -> Option<Timestamp> {
    match value {
        ValueRef::Integer(number) => of_integer(number),
        ValueRef::Real(number) => of_number(number),
        ValueRef::Text(text) => of_text(std::str::from_utf8(text).ok()?.trim()),
        ValueRef::Null | ValueRef::Blob(_) => None,
    }
}

fn of_text(text: &str) -> Option<Timestamp> {
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(timestamp);
    }
    if let Ok(number) = text.parse::<i64>() {
        return of_integer(number);
    }
    if let Ok(number) = text.parse::<f64>() {
        return of_number(number);
    }
    let utc = |civil: DateTime| civil.to_zoned(jiff::tz::TimeZone::UTC).ok();
    let civil = text.parse::<DateTime>().ok().or_else(|| {
        // SQLite leaves the seconds out where they are not asked for.
        let short = DateTime::strptime("%Y-%m-%d %H:%M", text.replacen('T', " ", 1)).ok();
        short.or_else(|| text.parse::<Date>().ok().map(Date::into))
    });
    civil.and_then(utc).map(|zoned| zoned.timestamp())
}

fn of_integer(number: i64) -> Option<Timestamp> {
    let timestamp = match number.unsigned_abs() {
        size if size < 100_000_000 => return of_number(approximate(number)),
        size if size < 100_000_000_000 => Timestamp::from_second(number),
        size if size < 100_000_000_000_000 => Timestamp::from_millisecond(number),
        size if size < 100_000_000_000_000_000 => Timestamp::from_microsecond(number),
        _ => Timestamp::from_nanosecond(number.into()),
    };
    timestamp.ok()
}

fn of_number(number: f64) -> Option<Timestamp> {
    if JULIAN_DAYS.contains(&number) {
        let seconds = (number - JULIAN_EPOCH) * 86_400.0;
        let since = SignedDuration::try_from_secs_f64(seconds).ok()?;
        return Timestamp::UNIX_EPOCH.checked_add(since).ok();
    }
    let size = number.abs();
    let unit = [(1e8..1e11, 1.0), (1e11..1e14, 1e3), (1e14..1e17, 1e6), (1e17..1e20, 1e9)]
        .into_iter()
        .find_map(|(range, unit)| range.contains(&size).then_some(unit))?;
    let since = SignedDuration::try_from_secs_f64(number / unit).ok()?;
    Timestamp::UNIX_EPOCH.checked_add(since).ok()
}

/// Exact for what is asked of it: numbers below 100,000,000.
#[allow(clippy::cast_precision_loss)]
fn approximate(number: i64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_way_of_writing_one_time_is_read() {
        let expected: Timestamp = "2026-11-22T09:00:00Z".parse().unwrap();
        let texts = [
            "2026-11-22T09:00:00Z",
            "2026-11-22T10:00:00.000+01:00",
            "2026-11-22 09:00:00",
            "2026-11-22T09:00:00",
            "2026-11-22 09:00:00.000",
            "2026-11-22 09:00",
            "2026-11-22T09:00",
            "2026-11-22 10:00:00+01:00",
            "1795338000",
            " 1795338000000 ",
            "1795338000.0",
            "2461366.875",
        ];
        for text in texts {
            assert_eq!(moment(ValueRef::Text(text.as_bytes())), Some(expected), "{text}");
        }
        let seconds = 1_795_338_000_i64;
        for unit in [1, 1000, 1_000_000, 1_000_000_000] {
            assert_eq!(moment(ValueRef::Integer(seconds * unit)), Some(expected), "{unit}");
        }
        assert_eq!(moment(ValueRef::Real(2_461_366.875)), Some(expected));
        assert_eq!(moment(ValueRef::Real(1_795_338_000.0)), Some(expected));
        let day = moment(ValueRef::Text(b"2026-11-22")).unwrap();
        assert_eq!(day.to_string(), "2026-11-22T00:00:00Z");
    }

    #[test]
    fn what_is_no_time_is_none() {
        for value in [
            ValueRef::Null,
            ValueRef::Blob(b"2026-11-22"),
            ValueRef::Integer(7),
            ValueRef::Real(f64::NAN),
            ValueRef::Real(f64::INFINITY),
            ValueRef::Real(-1e300),
            ValueRef::Text(b""),
            ValueRef::Text(b"yesterday"),
            ValueRef::Text(b"nan"),
            ValueRef::Text(b"\xff"),
        ] {
            assert_eq!(moment(value), None, "{value:?}");
        }
    }
}
