//! The power of a charge: its mean, and its highest quarter of an hour.
//!
//! Why a quarter of an hour: grid operators bill the peak quarter. The power between two single readings would
//! reflect their timing more than the load.

use std::cmp::Reverse;

use super::answer::Slice;
use super::exact::Exact;
use super::format::Decimal;
use super::interval::Interval;

const QUARTER_MICROS: i64 = 900_000_000;
/// A week. For longer charges no peak is computed, because it would take longer than the energy itself.
const QUARTERS_MAX: i64 = 7 * 96;

/// The power of a charge.
///
/// Units:  kW
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Power {
    /// The AC energy divided by the duration.
    pub average: Decimal,
    /// The highest mean of a quarter of an hour; `None` for a charge shorter than that or longer than a week.
    pub peak: Option<Decimal>,
}

/// Divides a window into quarters of an hour from its start. The last one extends to the window's end, so it may
/// be almost twice as long.
///
/// Shape:  empty for a window shorter than a quarter or longer than a week
pub fn quarters(window: Interval) -> Vec<Interval> {
    let Ok(micros) = i64::try_from(window.micros()) else {
        return Vec::new();
    };
    let count = micros / QUARTER_MICROS;
    if !(1..=QUARTERS_MAX).contains(&count) {
        return Vec::new();
    }
    let part = |n: i64| {
        let start = window.start().plus_micros(n * QUARTER_MICROS);
        let end = match n + 1 == count {
            true => window.end(),
            false => start.plus_micros(QUARTER_MICROS),
        };
        Interval::new(start, end)
    };
    (0..count).filter_map(part).collect()
}

impl Power {
    /// The power of a charge over a window, from the AC energy in its [`quarters`].
    pub fn new(consumed_ac: &Exact, window: Interval, quarters: &[Slice]) -> Self {
        let powers = quarters.iter();
        let powers = powers.map(|part| kilowatts(&part.consumed_ac, part.window));
        Power {
            average: kilowatts(consumed_ac, window),
            peak: powers.min_by_key(|power| Reverse(power.units())),
        }
    }
}

/// mWh × 3,600 / µs gives kW.
fn kilowatts(energy: &Exact, time: Interval) -> Decimal {
    let mut times = Exact::default();
    times.add_times(energy, 3_600);
    Decimal::power(&times, i64::try_from(time.micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Timestamp;

    fn minutes(from: i64, to: i64) -> Interval {
        let at = |minutes: i64| Timestamp::from_micros(minutes * 60_000_000);
        Interval::new(at(from), at(to)).unwrap()
    }

    #[test]
    fn quarters_make_up_the_window_and_none_is_shorter() {
        assert!(quarters(minutes(0, 14)).is_empty());
        assert_eq!(quarters(minutes(5, 20)), [minutes(5, 20)]);
        let parts = [minutes(5, 20), minutes(20, 35), minutes(35, 64)];
        assert_eq!(quarters(minutes(5, 64)), parts);
        assert_eq!(quarters(minutes(0, 7 * 1_440)).len(), 672);
        assert!(quarters(minutes(0, 7 * 1_440 + 15)).is_empty());
    }

    #[test]
    fn the_peak_is_the_highest_quarter() {
        let slice = |window: Interval, mwh: i128| Slice {
            consumed_ac: Exact::from_mwh(mwh),
            ..Slice::empty(window)
        };
        let parts = [
            slice(minutes(0, 15), 2_000_000),
            slice(minutes(15, 30), 5_500_000),
            // More energy, but over twice the time.
            slice(minutes(30, 60), 6_000_000),
        ];
        let power = Power::new(&Exact::from_mwh(13_500_000), minutes(0, 60), &parts);
        assert_eq!(power.average.to_string(), "13.5");
        assert_eq!(power.peak.unwrap().to_string(), "22");
        let none = Power::new(&Exact::default(), minutes(0, 60), &[]);
        assert_eq!(
            (none.average.to_string(), none.peak),
            ("0".to_owned(), None)
        );
    }
}
