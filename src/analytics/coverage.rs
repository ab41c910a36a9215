//! How much of the attributed time both devices really told about.

use std::collections::BTreeMap;

use super::attribution::{MeterKey, is_silence};
use super::device::DeviceEnergy;
use super::runs::{Run, Runs};

/// The time attributed, and the time of it in gaps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Time of the attribution periods, in microseconds.
    pub time_micros: i128,
    /// Time in gaps of the meter or the vehicle, in microseconds.
    pub gap_micros: i128,
    /// Runs of time inside gaps, merged over all periods and meters: a gap that goes on where
    /// one period ends and the next begins is one.
    pub gaps: u64,
}

impl Coverage {
    /// Tells whether coverage is below a bound, exactly; nothing attributed is a coverage of 0.
    ///
    /// Units:  `bound` in 1/10,000
    pub fn is_below(&self, bound: u32) -> bool {
        let bound = i128::from(bound);
        if self.time_micros == 0 {
            return bound > 0;
        }
        (self.time_micros - self.gap_micros) * 10_000 < bound * self.time_micros
    }
}

/// Measures the gaps in attribution periods that are cut at the window already.
pub fn coverage(
    periods: &BTreeMap<MeterKey, Runs>,
    meters: &BTreeMap<MeterKey, DeviceEnergy>,
    vehicle: &DeviceEnergy,
) -> Coverage {
    let mut sum = Coverage::default();
    let mut all = Vec::new();
    for (key, runs) in periods {
        for &run in runs.as_slice() {
            let mut gaps = gaps_of(vehicle, run);
            match meters.get(key) {
                Some(meter) => gaps.extend(gaps_of(meter, run)),
                None => gaps.push(run),
            }
            let gaps = Runs::from_iter(gaps);
            sum.time_micros += run.micros();
            sum.gap_micros += gaps.micros();
            all.extend_from_slice(gaps.as_slice());
        }
    }
    sum.gaps = Runs::from_iter(all).as_slice().len() as u64;
    sum
}

/// A device's gaps in one period: silences over 15 minutes between its start, the readings in it
/// and its end; the whole of it, however short, without any reading.
fn gaps_of(device: &DeviceEnergy, period: Run) -> Vec<Run> {
    let times = device.times_in(period);
    if times.is_empty() {
        return vec![period];
    }
    let mut gaps = Vec::new();
    let mut start = period.start();
    for &end in times.iter().chain([&period.end()]) {
        gaps.extend(Run::new(start, end).filter(|&run| is_silence(run)));
        start = end;
    }
    gaps
}
