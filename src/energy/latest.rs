//! What the latest readings of a device show: its present power, how often it reports, and how long it may be
//! silent.
//!
//! These values are for display. Nothing is summed, so floats are precise enough.

use crate::reading::{Energy, EnergyKind, Timestamp};

/// Readings less than this apart give no power, because clocks jitter by as much.
const APART_MICROS_MIN: i64 = 1_000_000;
/// Readings more than this apart say nothing about the present.
const APART_MICROS_MAX: i64 = 86_400 * 1_000_000;

/// The bounds of the usual interval, in seconds: from 1 s to a day.
const INTERVAL_SECONDS: (f64, f64) = (1.0, 86_400.0);
/// The usual interval is the median over this many pairs of successive readings.
pub const INTERVALS_LEARNED_FROM: usize = 6;

/// A device counts as silent after this many of its usual intervals, so that two readings in a row may be lost.
pub const SILENT_INTERVALS: f64 = 3.0;
/// A device counts as silent no earlier than this, in seconds. This is [`SILENT_INTERVALS`] for a device that reports
/// once a minute.
pub const SILENT_SECONDS_MIN: f64 = 180.0;

/// The reading before a device's latest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Before {
    /// Its time.
    pub at: Timestamp,
    /// The register's value in kWh; `None` if the reading is the energy of an interval.
    pub register: Option<f64>,
}

/// The mean power between a device's latest reading and the one before it, in kW.
///
/// Shape:  `None` if the two readings do not determine it: there is only one, they are under 1 s or over a day
///         apart, the register fell, is preceded by an interval reading or by a register of 0, or the power is not
///         plausible
pub fn power(
    at: Timestamp,
    energy: Energy,
    before: Option<Before>,
    suspect_watts: u64,
) -> Option<f64> {
    let before = before?;
    let apart = at.as_micros().saturating_sub(before.at.as_micros());
    if !(APART_MICROS_MIN..=APART_MICROS_MAX).contains(&apart) {
        return None;
    }
    let kwh = match energy.kind {
        EnergyKind::Interval => energy.kwh,
        EnergyKind::Register => {
            let register = before.register?;
            // Some devices send 0 until they have read their register. So a 0 is either a placeholder or a register
            // that really starts at 0.
            if register <= 0.0 || energy.kwh < register {
                return None;
            }
            energy.kwh - register
        }
    };
    let kilowatts = kwh * 3_600e6 / apart as f64;
    (kilowatts * 1_000.0 <= suspect_watts as f64).then_some(kilowatts)
}

/// The usual time between a device's readings: the median of the last [`INTERVALS_LEARNED_FROM`] times. Of an even
/// number it is the longer of the middle two.
///
/// Why the median: lost readings, a pause of hours, or readings in quick succession do not change it, and after
/// three readings it follows a new interval.
///
/// Shape:  `None` for fewer than two readings
/// Units:  seconds, from 1 to a day
/// Order:  `times` are newest first
pub fn usual_interval(times: impl Iterator<Item = Timestamp>) -> Option<f64> {
    let times: Vec<i64> = times.map(Timestamp::as_micros).collect();
    let apart = times.windows(2).map(|pair| match pair {
        [later, earlier] => later.saturating_sub(*earlier),
        _ => 0,
    });
    let mut apart: Vec<i64> = apart.take(INTERVALS_LEARNED_FROM).collect();
    apart.sort_unstable();
    let seconds = *apart.get(apart.len() / 2)? as f64 / 1e6;
    let (least, most) = INTERVAL_SECONDS;
    Some(seconds.clamp(least, most))
}

/// How long a device may send nothing before it counts as silent.
///
/// Units:  seconds
pub fn silent_after(interval_seconds: Option<f64>) -> f64 {
    let usual = interval_seconds.map_or(0.0, |interval| interval * SILENT_INTERVALS);
    usual.max(SILENT_SECONDS_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy::device::SUSPECT_WATTS_DEFAULT;

    /// The power of a reading that many microseconds after the previous one.
    fn after(micros: i64, kind: EnergyKind, before: Option<f64>, kwh: f64) -> Option<f64> {
        let before = Before {
            at: Timestamp::Y2000,
            register: before,
        };
        let at = Timestamp::Y2000.plus_micros(micros);
        power(
            at,
            Energy { kwh, kind },
            Some(before),
            SUSPECT_WATTS_DEFAULT,
        )
    }

    const MINUTE: i64 = 60_000_000;

    #[test]
    fn power_is_energy_over_the_time_between_two_readings() {
        let kw = |found: Option<f64>| (found.unwrap() * 1e6).round() / 1e6;
        let (interval, register) = (EnergyKind::Interval, EnergyKind::Register);
        assert_eq!(kw(after(MINUTE, interval, None, 0.12)), 7.2);
        assert_eq!(kw(after(15 * MINUTE, interval, Some(9.0), 1.5)), 6.0);
        assert_eq!(kw(after(MINUTE, register, Some(500.0), 500.12)), 7.2);
        assert_eq!(kw(after(MINUTE, register, Some(500.0), 500.0)), 0.0);
        assert_eq!(kw(after(1_000_000, interval, None, 0.002)), 7.2);
        assert_eq!(kw(after(86_400_000_000, interval, None, 24.0)), 1.0);
    }

    #[test]
    fn power_is_unknown_where_two_readings_do_not_tell_it() {
        let (interval, register) = (EnergyKind::Interval, EnergyKind::Register);
        let first = Energy {
            kwh: 1.0,
            kind: interval,
        };
        assert_eq!(power(Timestamp::Y2000, first, None, u64::MAX), None);
        for (micros, kind, before, kwh, why) in [
            (999_999, interval, None, 0.002, "too close"),
            (0, interval, None, 0.002, "the same time"),
            (-MINUTE, interval, None, 0.1, "later"),
            (86_400_000_001, interval, None, 24.0, "too far apart"),
            (MINUTE, register, Some(500.0), 499.99, "it fell"),
            (MINUTE, register, Some(500.0), 0.0, "a placeholder"),
            (MINUTE, register, Some(0.0), 500.0, "after a placeholder"),
            (MINUTE, register, Some(0.0), 0.0, "two placeholders"),
            (MINUTE, register, None, 500.0, "after an amount"),
            (
                MINUTE,
                interval,
                None,
                54_321.0,
                "a total that was sent as an amount",
            ),
            (
                MINUTE,
                register,
                Some(5.0),
                54_321.0,
                "a register that jumped",
            ),
        ] {
            assert_eq!(after(micros, kind, before, kwh), None, "{why}");
        }
    }

    /// The usual interval of a device whose readings are this many seconds apart, newest first.
    fn usual(apart: &[f64]) -> Option<f64> {
        let mut at = Timestamp::Y2000;
        let mut times = vec![at];
        for seconds in apart {
            at = at.plus_micros((seconds * -1e6) as i64);
            times.push(at);
        }
        usual_interval(times.into_iter())
    }

    #[test]
    fn the_usual_interval_is_the_median_of_the_last_ones_within_bounds() {
        assert_eq!(usual_interval(std::iter::empty()), None);
        assert_eq!(usual(&[]), None);
        assert_eq!(usual(&[60.0]), Some(60.0));
        assert_eq!(usual(&[0.001]), Some(1.0));
        assert_eq!(usual(&[1e7]), Some(86_400.0));
        // Lost readings, a pause of hours, readings in quick succession.
        assert_eq!(usual(&[120.0, 60.0, 180.0, 60.0, 60.0, 60.0]), Some(60.0));
        assert_eq!(usual(&[40_000.0, 60.0, 60.0]), Some(60.0));
        assert_eq!(usual(&[0.5, 0.5, 60.0, 60.0, 60.0]), Some(60.0));
        // An extra reading beside each regular one.
        assert_eq!(usual(&[2.0, 898.0, 2.0, 898.0, 2.0, 898.0]), Some(898.0));
        // The interval changes from a minute to 15, and back.
        assert_eq!(usual(&[900.0, 900.0, 900.0, 60.0, 60.0, 60.0]), Some(900.0));
        assert_eq!(usual(&[60.0, 60.0, 60.0, 60.0, 900.0, 900.0]), Some(60.0));
        // Older times do not count.
        let long_ago = [[60.0; 6], [900.0; 6]].concat();
        assert_eq!(usual(&long_ago), Some(60.0));
    }

    #[test]
    fn a_device_is_silent_after_three_intervals_and_three_minutes() {
        assert_eq!(silent_after(None), 180.0);
        assert_eq!(silent_after(Some(1.0)), 180.0);
        assert_eq!(silent_after(Some(60.0)), 180.0);
        assert_eq!(silent_after(Some(900.0)), 2_700.0);
    }
}
