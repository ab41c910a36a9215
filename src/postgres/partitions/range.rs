//! The span of time that a partition covers, by the calendar and as PostgreSQL prints it.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{ToSpan, Unit};

use crate::postgres::PartitionWidth;
use crate::reading::Timestamp;

/// A span of time [from, to) that one partition covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// The first instant in it.
    pub from: Timestamp,
    /// The first instant after it.
    pub to: Timestamp,
}

impl Range {
    /// All of time: the span of a default partition.
    pub(crate) const ALL: Range = Range {
        from: Timestamp::from_micros(i64::MIN),
        to: Timestamp::from_micros(i64::MAX),
    };

    /// Whether it has no beginning. Only operators make such partitions.
    pub fn is_open_below(&self) -> bool {
        self.from == Range::ALL.from
    }

    /// Whether an instant lies in it.
    pub fn covers(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.to
    }
}

/// The calendar's span around an instant, in UTC.
pub(super) fn calendar_range(at: Timestamp, width: PartitionWidth) -> Range {
    let date = date_of(at);
    let (first, next) = match width {
        PartitionWidth::Day => (date, date.saturating_add(1.day())),
        PartitionWidth::Month => (
            date.first_of_month(),
            date.last_of_month().saturating_add(1.day()),
        ),
    };
    Range {
        from: start_of(first),
        to: start_of(next),
    }
}

fn date_of(at: Timestamp) -> Date {
    let instant = jiff::Timestamp::from_microsecond(at.as_micros()).unwrap_or_default();
    TimeZone::UTC.to_datetime(instant).date()
}

fn start_of(date: Date) -> Timestamp {
    let midnight = date.at(0, 0, 0, 0);
    let instant = TimeZone::UTC.to_timestamp(midnight).unwrap_or_default();
    Timestamp::from_micros(instant.as_microsecond())
}

/// `meter_telemetry_history_2024_02`, `…_2024_02_09`, or with both ends if it is shorter than the calendar's.
pub(super) fn partition_name(parent: &str, range: Range) -> String {
    let (from, to) = (date_of(range.from), date_of(range.to));
    let digits = |d: Date| format!("{:04}_{:02}_{:02}", d.year(), d.month(), d.day());
    let days = from
        .until((Unit::Day, to))
        .map_or(0, |span| span.get_days());
    if from.day() == 1 && range == calendar_range(range.from, PartitionWidth::Month) {
        format!("{parent}_{:04}_{:02}", from.year(), from.month())
    } else if days == 1 {
        format!("{parent}_{}", digits(from))
    } else {
        format!("{parent}_{}_to_{}", digits(from), digits(to))
    }
}

/// The bound of a partition.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Bound {
    Range(Range),
    /// The default partition.
    Default,
}

/// Reads a bound as PostgreSQL prints it in a session with UTC and ISO dates.
pub(super) fn parse_bound(text: &str) -> Option<Bound> {
    if text == "DEFAULT" {
        return Some(Bound::Default);
    }
    let inner = text.strip_prefix("FOR VALUES FROM (")?.strip_suffix(')')?;
    let (from, to) = inner.split_once(") TO (")?;
    let (from, to) = (parse_instant(from)?, parse_instant(to)?);
    Some(Bound::Range(Range { from, to }))
}

/// Reads one end. An end that no reading can reach becomes the least or the greatest instant.
fn parse_instant(text: &str) -> Option<Timestamp> {
    let (first, last) = (Range::ALL.from, Range::ALL.to);
    let text = text.trim_matches('\'');
    match text {
        "MINVALUE" | "-infinity" => return Some(first),
        "MAXVALUE" | "infinity" => return Some(last),
        _ if text.ends_with(" BC") => return Some(first),
        // A year with five or more digits.
        _ if text.find('-').is_some_and(|year| year > 4) => return Some(last),
        _ => {}
    }
    let parsed: jiff::Timestamp = text.replace("+00", "Z").parse().ok()?;
    Some(Timestamp::from_micros(parsed.as_microsecond()))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::postgres) fn at(text: &str) -> Timestamp {
        Timestamp::from_micros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    pub(in crate::postgres) fn range(from: &str, to: &str) -> Range {
        Range {
            from: at(from),
            to: at(to),
        }
    }

    #[test]
    fn a_bound_is_read_as_postgresql_prints_it() {
        let text = "FOR VALUES FROM ('2024-02-01 00:00:00+00') TO ('2024-03-01 00:00:00+00')";
        let february = range("2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z");
        assert_eq!(parse_bound(text), Some(Bound::Range(february)));
        assert_eq!(parse_bound("DEFAULT"), Some(Bound::Default));
        assert_eq!(parse_bound("FOR VALUES IN (1)"), None);
    }

    #[test]
    fn bounds_that_no_reading_reaches_are_read_too() {
        let march = at("2024-03-01T00:00:00Z");
        for from in ["MINVALUE", "'-infinity'", "'0044-03-15 00:00:00+00 BC'"] {
            let text = format!("FOR VALUES FROM ({from}) TO ('2024-03-01 00:00:00+00')");
            let open = Range {
                to: march,
                ..Range::ALL
            };
            assert_eq!(parse_bound(&text), Some(Bound::Range(open)), "{from}");
        }
        for to in ["MAXVALUE", "'infinity'", "'12000-01-01 00:00:00+00'"] {
            let text = format!("FOR VALUES FROM ('2024-03-01 00:00:00+00') TO ({to})");
            let open = Range {
                from: march,
                ..Range::ALL
            };
            assert_eq!(parse_bound(&text), Some(Bound::Range(open)), "{to}");
        }
    }
}
