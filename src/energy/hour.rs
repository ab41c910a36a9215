//! An hour of a device, summed up: its first and its last reading, and what lies between them.
//!
//! The hour (h, h + 1 h] of a device can be summed up where nothing in it depends on what is asked:
//! all readings are of one kind, none is a register of 0 (what that is, its neighbours decide), none
//! names a place, and none is silent for more than 15 minutes after the one before. What is left is
//! exact and independent of every setting: the sum of what each reading adds to the one before it,
//! and how much power was implied at the most, so that any bound can be held against it.
//!
//! The arithmetic takes the two readings as what they are, and the rest as one amount that is whole
//! between them. That is the same answer as long as no edge (of the window, a part of it, an
//! attribution period, or of the moments at which a meter is known) lies strictly between the two;
//! [`performance_and_parts`](super::answer::performance_and_parts) looks, and tells which hours
//! have to be read after all. So a summary is never needed for an answer, and never changes one.

use super::device::{DeviceEnergy, EnergyReading, Extent};
use super::exact::temperature_units;
use super::interval::Run;
pub use super::reading::Condensed;
use super::reading::is_silence;
use crate::reading::{HOUR_MICROS, Timestamp};

/// Fewer readings are no longer than their summary.
const READINGS_MIN: usize = 3;

/// The shortest time over which a power is implied, as [`DeviceEnergy`] has it.
const POWER_MICROS_MIN: i128 = 1_000_000;

/// A device's hour.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Its first reading.
    pub first: EnergyReading,
    /// Its last reading.
    pub last: EnergyReading,
    /// What lies between. Suspect are corrections only: what implies too much power is none here.
    pub condensed: Condensed,
    /// The most power that a reading after the first implies, rounded up.
    ///
    /// Units:  W
    pub power_watts: i64,
}

/// A reading with what a summary takes of it.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// When, and how much.
    pub reading: EnergyReading,
    /// °C; 0 for a meter.
    pub battery_temp: f64,
    /// It names a meter or a session.
    pub is_named: bool,
}

/// The hour that starts there.
pub fn hour_run(start: Timestamp) -> Option<Run> {
    Run::new(start, start.plus_micros(HOUR_MICROS))
}

/// Sums up readings of one device in one hour; `None` where they are to be read as they are.
///
/// Order:  ascending by time, no two of one time
pub fn summarize(measured: &[Measured]) -> Option<Summary> {
    let (first, last) = (measured.first()?, measured.last()?);
    let run = Run::new(first.reading.at, last.reading.at)?;
    if measured.len() < READINGS_MIN || measured.iter().any(|m| m.is_named) {
        return None;
    }
    let kind = first.reading.energy.kind;
    if measured.iter().any(|m| m.reading.energy.kind != kind) {
        return None;
    }
    let is_silent = |pair: &[Measured]| match pair {
        [a, b] => Run::new(a.reading.at, b.reading.at).is_none_or(is_silence),
        _ => true,
    };
    if measured.windows(2).any(is_silent) || measured.iter().any(|m| m.reading.is_zero_register()) {
        return None;
    }
    // No power is beyond this bound, so that what is suspect here is a correction.
    let device = DeviceEnergy::new(measured.iter().map(|m| m.reading), u64::MAX);
    let (mut mwh, mut power_watts): (i64, i64) = (0, 0);
    for amount in device.amounts().iter().filter(|a| a.at > run.start()) {
        let since = match amount.extent {
            Extent::Moment { since } => since?,
            Extent::Spread { start } => start,
        };
        let micros = Run::new(since, amount.at)?.micros().max(POWER_MICROS_MIN);
        // 1 mWh in 1 µs is 3,600,000 W. An energy is never below 0.
        let watts = (i128::from(amount.mwh) * 3_600_000 + micros - 1) / micros;
        power_watts = power_watts.max(i64::try_from(watts).ok()?);
        mwh = mwh.checked_add(amount.mwh)?;
    }
    let oddities = device.oddities_in(run);
    let inner = measured.get(1..measured.len() - 1)?;
    Some(Summary {
        first: first.reading,
        last: last.reading,
        condensed: Condensed {
            run,
            between: inner.len() as u64,
            mwh,
            resets: oddities.resets,
            suspect: oddities.suspect,
            temperature_sum: inner
                .iter()
                .map(|m| temperature_units(m.battery_temp))
                .sum(),
        },
        power_watts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{Energy, EnergyKind};

    const MINUTE: i64 = 60_000_000;

    fn measured(minute: i64, kwh: f64, kind: EnergyKind) -> Measured {
        Measured {
            reading: EnergyReading {
                at: Timestamp::from_micros(minute * MINUTE),
                energy: Energy { kwh, kind },
            },
            battery_temp: 20.5,
            is_named: false,
        }
    }

    fn interval(minute: i64, kwh: f64) -> Measured {
        measured(minute, kwh, EnergyKind::Interval)
    }

    fn register(minute: i64, kwh: f64) -> Measured {
        measured(minute, kwh, EnergyKind::Register)
    }

    #[test]
    fn an_hour_holds_its_end_and_not_its_start() {
        let at = Timestamp::from_micros;
        assert_eq!(at(HOUR_MICROS).hour(), at(0));
        assert_eq!(at(HOUR_MICROS + 1).hour(), at(HOUR_MICROS));
        assert_eq!(at(0).hour(), at(-HOUR_MICROS));
    }

    #[test]
    fn an_hour_sums_what_each_reading_adds() {
        let hour = [interval(1, 5.0), interval(11, 0.25), interval(26, 0.5)];
        let summary = summarize(&hour).unwrap();
        // The first reading's own energy is counted from what lies before the hour.
        assert_eq!(summary.condensed.mwh, 750_000);
        assert_eq!(summary.condensed.between, 1);
        // 0.5 kWh in 15 minutes are 2 kW, 0.25 in 10 are 1.5.
        assert_eq!(summary.power_watts, 2000);
        // A register that starts again at 3 after 100: the energy is 3, and 1 after that.
        let hour = [register(1, 100.0), register(5, 3.0), register(9, 4.0)];
        let summary = summarize(&hour).unwrap();
        assert_eq!(
            (summary.condensed.mwh, summary.condensed.resets),
            (4_000_000, 1)
        );
        // A correction counts 0 and is suspect.
        let hour = [register(1, 100.0), register(5, 99.9), register(9, 100.0)];
        let summary = summarize(&hour).unwrap();
        assert_eq!(
            (summary.condensed.mwh, summary.condensed.suspect),
            (100_000, 1)
        );
    }

    #[test]
    fn what_depends_on_more_than_the_hour_is_not_summed_up() {
        let good = [interval(1, 1.0), interval(5, 1.0), interval(9, 1.0)];
        assert!(summarize(&good).is_some());
        assert!(
            summarize(&good[1..]).is_none(),
            "two readings are no longer than their sum"
        );
        let mut named = good;
        named[1].is_named = true;
        assert!(
            summarize(&named).is_none(),
            "a reading that names its place"
        );
        let silent = [interval(1, 1.0), interval(2, 1.0), interval(18, 1.0)];
        assert!(summarize(&silent).is_none(), "a silence of 16 minutes");
        let zero = [register(1, 1.0), register(5, 0.000_000_4), register(9, 1.0)];
        assert!(summarize(&zero).is_none(), "what may be a placeholder");
        let mixed = [interval(1, 1.0), register(5, 1.0), register(9, 2.0)];
        assert!(summarize(&mixed).is_none(), "two kinds");
    }
}
