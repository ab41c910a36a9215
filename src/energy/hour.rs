//! A rolled-up hour of a device: its first and last reading, and a rollup of the readings between them.
//!
//! An hour (h, h + 1 h] of a device can be rolled up if nothing in it depends on the question. That is so if all
//! its readings are of one kind, none is a register of 0 (whose meaning depends on its neighbours), none names a
//! place, and none follows a silence of more than 15 minutes. The rollup is exact and does not depend on any
//! setting. It holds the sum of what each reading adds to the previous one, and the largest implied power, which
//! can be compared with any bound.
//!
//! The arithmetic uses the two readings as they are, and the rest as one amount between them. The answer is exact
//! unless an edge lies strictly between the two: an edge of the window or a part of it, of an attribution period,
//! or of the moments at which a meter's energy is known.
//! [`performance_and_parts`](super::answer::performance_and_parts) returns the hours whose readings it needs. So
//! no answer depends on a rollup, and no rollup changes an answer.

use super::device::{DeviceEnergy, EnergyReading, Extent};
use super::exact::temperature_units;
use super::interval::Interval;
pub use super::reading::RolledUp;
use super::reading::is_silence;
use crate::reading::{HOUR_MICROS, Timestamp};

/// With fewer readings, a rollup saves nothing.
const READINGS_MIN: u64 = 3;

/// The shortest time over which power is implied, as in [`DeviceEnergy`].
const POWER_MICROS_MIN: i128 = 1_000_000;

/// The rollup of a device's hour.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Its first reading.
    pub first: EnergyReading,
    /// Its last reading.
    pub last: EnergyReading,
    /// The rollup of the readings between them. Its suspect readings are all corrections, so it does not depend on
    /// a bound of power.
    pub rolled_up: RolledUp,
    /// The highest power that any reading after the first implies, rounded up.
    ///
    /// Units:  W
    pub power_watts: i64,
}

/// A reading with the fields that a rollup needs.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Its time and energy.
    pub reading: EnergyReading,
    /// °C; 0 for a meter.
    pub battery_temp: f64,
    /// Whether it names a meter or a session.
    pub is_named: bool,
}

/// The hour that starts at this moment.
pub fn hour_interval(start: Timestamp) -> Option<Interval> {
    Interval::new(start, start.plus_micros(HOUR_MICROS))
}

/// Rolls up one device's readings of one hour. `None` means that the hour cannot be rolled up.
///
/// Order:  ascending by time, with distinct times
#[cfg(test)]
pub(crate) fn summarize(measured: &[Measured]) -> Option<Summary> {
    let (first, later) = measured.split_first()?;
    let all = Growing::begin(*first)?.extended(later)?;
    Some(all.finish()?.summary)
}

/// A rollup, with what is needed to extend it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Whole {
    /// The rollup.
    pub summary: Summary,
    /// The temperatures of its first and its last reading, in °C; 0 for a meter.
    pub ends_temp: [f64; 2],
}

/// The rollup of the first readings of an hour, which later ones extend. So an hour's readings need not be in
/// memory together, and late readings that come in order do not cause the hour to be read again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Growing {
    first: EnergyReading,
    last: EnergyReading,
    ends_temp: [f64; 2],
    /// The number of readings.
    count: u64,
    /// The energy of all readings after the first.
    mwh: i64,
    resets: u64,
    suspect: u64,
    power_watts: i64,
    /// The temperatures strictly between the first and the last.
    temperature_sum: i128,
}

impl Growing {
    /// Begins with the first reading of an hour. `None` means that the hour cannot be rolled up.
    pub fn begin(first: Measured) -> Option<Self> {
        if first.is_named || first.reading.is_zero_register() {
            return None;
        }
        Some(Growing {
            first: first.reading,
            last: first.reading,
            ends_temp: [first.battery_temp; 2],
            count: 1,
            mwh: 0,
            resets: 0,
            suspect: 0,
            power_watts: 0,
            temperature_sum: 0,
        })
    }

    /// Continues from a rollup that holds every reading up to its last.
    pub fn resume(whole: &Whole) -> Self {
        let Summary {
            first,
            last,
            rolled_up,
            power_watts,
        } = whole.summary;
        Growing {
            first,
            last,
            ends_temp: whole.ends_temp,
            count: rolled_up.between + 2,
            mwh: rolled_up.mwh,
            resets: rolled_up.resets,
            suspect: rolled_up.suspect,
            power_watts,
            temperature_sum: rolled_up.temperature_sum,
        }
    }

    /// The time of the last reading.
    pub fn last_at(&self) -> Timestamp {
        self.last.at
    }

    /// Adds the next readings. `None` means that the hour cannot be rolled up.
    ///
    /// Order:  ascending by time, all after the last reading
    pub fn extended(mut self, later: &[Measured]) -> Option<Self> {
        let Some(newest) = later.last() else {
            return Some(self);
        };
        let kind = self.first.energy.kind;
        let refused = |m: &Measured| {
            m.is_named || m.reading.energy.kind != kind || m.reading.is_zero_register()
        };
        if later.iter().any(refused) {
            return None;
        }
        let later_readings = later.iter().map(|m| m.reading);
        let mut before = self.last.at;
        for reading in later_readings.clone() {
            if Interval::new(before, reading.at).is_none_or(is_silence) {
                return None;
            }
            before = reading.at;
        }
        // No power exceeds this bound, so every suspect reading is a correction.
        let device = DeviceEnergy::new(std::iter::once(self.last).chain(later_readings), u64::MAX);
        let interval = Interval::new(self.last.at, newest.reading.at)?;
        for amount in device.amounts().iter().filter(|a| a.at > interval.start()) {
            let since = match amount.extent {
                Extent::Moment { since } => since?,
                Extent::Spread { start } => start,
            };
            let micros = Interval::new(since, amount.at)?
                .micros()
                .max(POWER_MICROS_MIN);
            // 1 mWh in 1 µs is 3,600,000 W. Energies here are never negative.
            let watts = (i128::from(amount.mwh) * 3_600_000 + micros - 1) / micros;
            self.power_watts = self.power_watts.max(i64::try_from(watts).ok()?);
            self.mwh = self.mwh.checked_add(amount.mwh)?;
        }
        let oddities = device.oddities_in(interval);
        self.resets += oddities.resets;
        self.suspect += oddities.suspect;
        // The previous last reading now lies between the ends, so its temperature is added.
        if self.count > 1 {
            self.temperature_sum += temperature_units(self.ends_temp[1]);
        }
        let between = later.split_last().map_or(&[][..], |(_, between)| between);
        let temperatures = between.iter().map(|m| temperature_units(m.battery_temp));
        self.temperature_sum += temperatures.sum::<i128>();
        self.count += later.len() as u64;
        self.last = newest.reading;
        self.ends_temp[1] = newest.battery_temp;
        Some(self)
    }

    /// The rollup of the hour; `None` if it has too few readings.
    pub fn finish(self) -> Option<Whole> {
        let between = self.count.checked_sub(2)?;
        if self.count < READINGS_MIN {
            return None;
        }
        Some(Whole {
            summary: Summary {
                first: self.first,
                last: self.last,
                rolled_up: RolledUp {
                    interval: Interval::new(self.first.at, self.last.at)?,
                    between,
                    mwh: self.mwh,
                    resets: self.resets,
                    suspect: self.suspect,
                    temperature_sum: self.temperature_sum,
                },
                power_watts: self.power_watts,
            },
            ends_temp: self.ends_temp,
        })
    }
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
        // The first reading's own energy is counted from a reading before the hour.
        assert_eq!(summary.rolled_up.mwh, 750_000);
        assert_eq!(summary.rolled_up.between, 1);
        // 0.5 kWh in 15 minutes is 2 kW; 0.25 kWh in 10 minutes is 1.5 kW.
        assert_eq!(summary.power_watts, 2000);
        // A register that restarts at 3 after 100 adds 3 kWh, and then 1.
        let hour = [register(1, 100.0), register(5, 3.0), register(9, 4.0)];
        let summary = summarize(&hour).unwrap();
        assert_eq!(
            (summary.rolled_up.mwh, summary.rolled_up.resets),
            (4_000_000, 1)
        );
        // A correction adds 0 and is suspect.
        let hour = [register(1, 100.0), register(5, 99.9), register(9, 100.0)];
        let summary = summarize(&hour).unwrap();
        assert_eq!(
            (summary.rolled_up.mwh, summary.rolled_up.suspect),
            (100_000, 1)
        );
    }

    #[test]
    fn what_depends_on_more_than_the_hour_is_not_rolled_up() {
        let good = [interval(1, 1.0), interval(5, 1.0), interval(9, 1.0)];
        assert!(summarize(&good).is_some());
        assert!(
            summarize(&good[1..]).is_none(),
            "two readings are no larger than their summary"
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
