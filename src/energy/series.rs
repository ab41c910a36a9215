//! The parts of a window for plotting: calendar hours or days, clipped to the window.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, ToSpan};

use super::interval::Interval;
use crate::reading::Timestamp;

/// The length of the parts of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bucket {
    /// From one full hour to the next.
    Hour,
    /// From one midnight to the next: 23 to 25 hours when clocks change.
    Day,
}

impl Bucket {
    fn span(self) -> Span {
        match self {
            Bucket::Hour => 1.hour(),
            Bucket::Day => 1.day(),
        }
    }

    /// The start of the hour or day that contains a civil time.
    fn floor(self, at: DateTime) -> DateTime {
        match self {
            Bucket::Hour => at.date().at(at.hour(), 0, 0, 0),
            Bucket::Day => at.date().at(0, 0, 0, 0),
        }
    }
}

/// Splits a window at full hours or midnights of a time zone. Parts without readings are included.
///
/// Shape:  at least one interval; at most 9,604 for the longest window
/// Order:  by time; each interval begins where the previous one ends
pub fn buckets(window: Interval, bucket: Bucket, zone: &TimeZone) -> Vec<Interval> {
    let mut parts = Vec::new();
    let mut start = window.start();
    while start < window.end() {
        let end = boundary_after(start, bucket, zone).min(window.end());
        match Interval::new(start, end) {
            Some(interval) => parts.push(interval),
            // The calendar ends before the window does. The rest becomes one part.
            None => {
                parts.extend(Interval::new(start, window.end()));
                break;
            }
        }
        start = end;
    }
    parts
}

/// The first boundary after a moment.
fn boundary_after(at: Timestamp, bucket: Bucket, zone: &TimeZone) -> Timestamp {
    let Ok(instant) = jiff::Timestamp::from_microsecond(at.as_micros()) else {
        return at;
    };
    let civil = bucket.floor(zone.to_datetime(instant));
    // When clocks go back, an hour occurs twice; when they go forward, one is missing. The part ends at the first
    // instant that shows a later full hour, or after an hour of real time, whichever comes first.
    let steps = (1..=3).filter_map(|n| civil.checked_add(bucket.span() * n).ok());
    let by_calendar = steps.filter_map(|next| zone.to_timestamp(next).ok());
    let next = by_calendar
        .map(|next| Timestamp::from_micros(next.as_microsecond()))
        .find(|&next| next > at);
    let repeated = match bucket {
        Bucket::Hour => repeated_hour(at, zone),
        Bucket::Day => None,
    };
    match (next, repeated) {
        (Some(next), Some(repeated)) => next.min(repeated),
        (next, repeated) => next.or(repeated).unwrap_or(at),
    }
}

/// The instant an hour of real time after the full hour before `at`, if the clock shows a full hour then.
fn repeated_hour(at: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let instant = jiff::Timestamp::from_microsecond(at.as_micros()).ok()?;
    let civil = zone.to_datetime(instant);
    let into = i64::from(civil.minute()) * 60_000_000
        + i64::from(civil.second()) * 1_000_000
        + i64::from(civil.subsec_nanosecond()) / 1_000;
    let next = at.plus_micros(3_600_000_000 - into);
    let shown = jiff::Timestamp::from_microsecond(next.as_micros()).ok()?;
    let shown = zone.to_datetime(shown);
    (shown.minute() == 0 && shown.second() == 0).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::from_micros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    fn hours(from: &str, to: &str, bucket: Bucket, zone: &str) -> Vec<f64> {
        let window = Interval::new(at(from), at(to)).unwrap();
        let parts = buckets(window, bucket, &TimeZone::get(zone).unwrap());
        assert_eq!(parts.first().unwrap().start(), window.start());
        assert_eq!(parts.last().unwrap().end(), window.end());
        assert!(parts.windows(2).all(|w| w[0].end() == w[1].start()));
        parts.iter().map(|p| p.micros() as f64 / 3.6e9).collect()
    }

    #[test]
    fn the_first_and_the_last_part_are_clipped_to_the_window() {
        let cut = hours(
            "2024-02-09T10:30:00Z",
            "2024-02-09T12:15:00Z",
            Bucket::Hour,
            "UTC",
        );
        assert_eq!(cut, [0.5, 1.0, 0.25]);
        let days = hours(
            "2024-02-09T18:00:00Z",
            "2024-02-11T06:00:00Z",
            Bucket::Day,
            "UTC",
        );
        assert_eq!(days, [6.0, 24.0, 6.0]);
    }

    #[test]
    fn days_of_a_time_zone_have_23_to_25_hours_where_clocks_change() {
        let spring = ("2024-03-29T23:00:00Z", "2024-04-01T22:00:00Z");
        let days = hours(spring.0, spring.1, Bucket::Day, "Europe/Berlin");
        assert_eq!(days, [24.0, 23.0, 24.0]);
        let autumn = ("2024-10-25T22:00:00Z", "2024-10-28T23:00:00Z");
        let days = hours(autumn.0, autumn.1, Bucket::Day, "Europe/Berlin");
        assert_eq!(days, [24.0, 25.0, 24.0]);
    }

    #[test]
    fn every_hour_is_one_part_even_when_clocks_change() {
        for zone in ["Europe/Berlin", "America/New_York", "Asia/Kathmandu", "UTC"] {
            for (from, to) in [
                ("2024-03-09T18:15:00Z", "2024-03-11T18:15:00Z"),
                ("2024-03-30T18:15:00Z", "2024-04-01T18:15:00Z"),
                ("2024-10-26T18:15:00Z", "2024-10-28T18:15:00Z"),
                ("2024-11-02T18:15:00Z", "2024-11-04T18:15:00Z"),
            ] {
                let parts = hours(from, to, Bucket::Hour, zone);
                let inner = &parts[1..parts.len() - 1];
                assert!(inner.iter().all(|&h| h == 1.0), "{zone} {from}: {parts:?}");
                assert!((48..=49).contains(&parts.len()));
            }
        }
        // Clocks that change by half an hour: one part has 30 minutes, and none is empty.
        let lord = hours(
            "2024-04-06T12:00:00Z",
            "2024-04-07T12:00:00Z",
            Bucket::Hour,
            "Australia/Lord_Howe",
        );
        assert!(lord.iter().all(|&h| h > 0.0 && h <= 1.5));
    }
}
