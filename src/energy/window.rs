//! The window of a question: (from, to], at most 400 calendar days.

use super::interval::Interval;
use crate::reading::Timestamp;

/// A day.
pub const DAY_MICROS: i64 = 86_400_000_000;

/// An hour.
const HOUR_MICROS: i64 = DAY_MICROS / 24;

/// The longest window: 400 days, enough for a year and the month to compare it with. In most time zones 400
/// calendar days may last an hour longer, and in one (Antarctica/Troll) two.
pub const WINDOW_MICROS_MAX: i64 = 400 * DAY_MICROS + 2 * HOUR_MICROS;

/// Why a window is refused (HTTP 400).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// `from` is not before `to` (or, without `to`, not before now).
    #[error("from must be before to")]
    Empty,
    /// The window is longer than [`WINDOW_MICROS_MAX`].
    #[error(
        "the window must be at most 400 days and 2 hours long (400 calendar days, even when the \
         clocks change); request it in parts"
    )]
    TooLong,
}

/// Makes the window (from, to] of a question.
///
/// `from` alone means until now, `to` alone the 24 hours before it, and neither the last 24 hours.
///
/// # Errors
/// [`WindowError`]: the window is empty or too long. Exactly [`WINDOW_MICROS_MAX`] is allowed.
pub fn window(
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    now: Timestamp,
) -> Result<Interval, WindowError> {
    let to = to.unwrap_or(now);
    let from = from.unwrap_or_else(|| to.plus_micros(-DAY_MICROS));
    let interval = Interval::new(from, to).ok_or(WindowError::Empty)?;
    if interval.micros() > i128::from(WINDOW_MICROS_MAX) {
        return Err(WindowError::TooLong);
    }
    Ok(interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_may_be_400_calendar_days_in_any_zone() {
        use jiff::civil::{Date, Time};
        use jiff::tz::TimeZone;

        // A window across the end of summer time, and one as long without a clock change.
        for (from, to) in [("2023-10-28", "2024-12-01"), ("2023-09-15", "2024-10-19")] {
            for name in ["UTC", "Europe/Berlin", "Antarctica/Troll"] {
                let zone = TimeZone::get(name).unwrap();
                let midnight = |day: &str| {
                    let day: Date = day.parse().unwrap();
                    let at = zone.to_ambiguous_timestamp(day.to_datetime(Time::midnight()));
                    Timestamp::from_micros(at.earlier().unwrap().as_microsecond())
                };
                let (from, to) = (midnight(from), midnight(to));
                assert!(window(Some(from), Some(to), to).is_ok(), "{name}");
            }
        }
        let now = Timestamp::Y2000.plus_micros(2 * WINDOW_MICROS_MAX);
        let long = |more: i64| window(Some(now.plus_micros(-WINDOW_MICROS_MAX - more)), None, now);
        assert!(long(0).is_ok());
        assert_eq!(long(1).err(), Some(WindowError::TooLong));
    }
}
