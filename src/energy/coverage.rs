//! How much of the attributed time both devices really told about.

use super::device::DeviceEnergy;
use super::interval::{Run, Runs};
use super::reading::is_silence;

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

/// What of a vehicle's time at a meter is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Watched<'a> {
    /// Its attribution periods there, cut at the window.
    pub periods: &'a Runs,
    /// The part of them by rule 3.
    pub by_same_id: &'a Runs,
    /// The meter, where anything is known of it.
    pub meter: Option<&'a DeviceEnergy>,
}

/// Measures the gaps in attribution periods that are cut at the window already.
///
/// By rule 3, what both devices are silent in for over 15 minutes is taken out first. Choices where
/// the definition leaves room:
/// - What is left is looked at run by run, each with a start and an end of its own.
/// - A run that begins where such a silence ends begins with the reading that ended it: the device
///   has a reading in it.
pub fn coverage<'a>(
    watched: impl IntoIterator<Item = Watched<'a>>,
    vehicle: &DeviceEnergy,
) -> Coverage {
    let mut sum = Coverage::default();
    let mut all = Vec::new();
    for watched in watched {
        let silent = watched.by_same_id.as_slice().iter();
        let silent = silent.flat_map(|&run| silences_of_both(watched.meter, vehicle, run));
        let silent: Runs = silent.collect();
        for &period in watched.periods.as_slice() {
            for &run in Runs::from_iter([period]).without(&silent).as_slice() {
                let after_silence = run.start() > period.start();
                let mut gaps = gaps_of(vehicle, run, after_silence);
                match watched.meter {
                    Some(meter) => gaps.extend(gaps_of(meter, run, after_silence)),
                    None => gaps.push(run),
                }
                let gaps = Runs::from_iter(gaps);
                sum.time_micros += run.micros();
                sum.gap_micros += gaps.micros();
                all.extend_from_slice(gaps.as_slice());
            }
        }
    }
    sum.gaps = Runs::from_iter(all).as_slice().len() as u64;
    sum
}

/// The runs of over 15 minutes in which neither device has a reading, between readings of either and
/// the ends of `run`.
fn silences_of_both(meter: Option<&DeviceEnergy>, vehicle: &DeviceEnergy, run: Run) -> Vec<Run> {
    let of_meter = meter.map_or(&[][..], |meter| meter.times_in(run));
    let mut times = [of_meter, vehicle.times_in(run), &[run.end()]].concat();
    times.sort_unstable();
    let mut start = run.start();
    let mut silences = Vec::new();
    for end in times {
        silences.extend(Run::new(start, end).filter(|&run| is_silence(run)));
        start = end;
    }
    silences
}

/// A device's gaps in one run: silences over 15 minutes between its start, the readings in it and
/// its end; the whole of it, however short, without any reading.
fn gaps_of(device: &DeviceEnergy, run: Run, from_reading: bool) -> Vec<Run> {
    let first = run.start().plus_micros(-i64::from(from_reading));
    let times = Run::new(first, run.end()).map_or(&[][..], |run| device.times_in(run));
    if times.is_empty() {
        return vec![run];
    }
    let mut gaps = Vec::new();
    let mut start = run.start();
    for &end in times.iter().chain([&run.end()]) {
        gaps.extend(Run::new(start, end).filter(|&run| is_silence(run)));
        start = end;
    }
    gaps
}
