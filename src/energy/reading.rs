//! One reading with what the arithmetic needs, and the rollup of several.

use super::interval::Interval;
use crate::reading::{Energy, EnergyKind, Timestamp};

/// How far back a vehicle's reading that names its place claims it, and how long a device may be silent: 15
/// minutes.
pub const CLAIM_MICROS_MAX: i64 = 15 * 60 * 1_000_000;

/// One reading of a device, with what the arithmetic needs.
///
/// Units:  kWh as stored; the arithmetic rounds to 6 decimals, history does not
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EnergyReading {
    /// The time of the measurement.
    pub at: Timestamp,
    /// Its energy, and what the value means.
    pub energy: Energy,
}

impl EnergyReading {
    /// Whether it is a register of 0 after rounding.
    pub fn is_zero_register(&self) -> bool {
        self.energy.kind == EnergyKind::Register && self.energy.kwh < 0.000_000_5
    }
}

/// A rollup of the readings after one reading of a device, up to and including a later one. It cannot be split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RolledUp {
    /// From the first reading to the last.
    pub interval: Interval,
    /// How many readings lie strictly between them.
    pub between: u64,
    /// The energy of all readings after the first.
    pub mwh: i64,
    /// Register resets after the first reading.
    pub resets: u64,
    /// Suspect readings after the first.
    pub suspect: u64,
    /// The sum of the temperatures strictly between, in 1e-24 °C.
    pub temperature_sum: i128,
}

/// Whether an interval without readings is longer than 15 minutes.
pub fn is_silence(interval: Interval) -> bool {
    interval.micros() > i128::from(CLAIM_MICROS_MAX)
}
