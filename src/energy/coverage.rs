//! How much of the attributed time is covered by readings of both devices.

use super::device::DeviceEnergy;
use super::interval::{Interval, Intervals};
use super::reading::is_silence;

/// The attributed time, and how much of it lies in gaps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Time of the attribution periods, in microseconds.
    pub time_micros: i128,
    /// Time in gaps of the meter or the vehicle, in microseconds.
    pub gap_micros: i128,
    /// The number of gaps, merged over all periods and meters. A gap that continues where one period ends and the
    /// next begins counts once.
    pub gaps: u64,
}

impl Coverage {
    /// Whether coverage is below a bound, by exact comparison. Without attributed time coverage is 0.
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

/// A vehicle's time at one meter, whose gaps are to be measured.
#[derive(Debug, Clone, Copy)]
pub struct Watched<'a> {
    /// Its attribution periods there, within the window.
    pub periods: &'a Intervals,
    /// The part of `periods` that rule 3 attributes.
    pub by_same_id: &'a Intervals,
    /// The meter; `None` if it has no readings.
    pub meter: Option<&'a DeviceEnergy>,
}

/// Measures the gaps in attribution periods within the window.
///
/// By rule 3, silences of both devices over 15 minutes are removed first. The definition leaves two choices, made
/// as follows:
/// - Each remaining interval is measured by itself, from its own start to its own end.
/// - If an interval begins where such a silence ended, the reading that ended the silence counts as part of it.
pub fn coverage<'a>(
    watched: impl IntoIterator<Item = Watched<'a>>,
    vehicle: &DeviceEnergy,
) -> Coverage {
    let mut sum = Coverage::default();
    let mut all = Vec::new();
    for watched in watched {
        let silent = watched.by_same_id.as_slice().iter();
        let silent =
            silent.flat_map(|&interval| silences_of_both(watched.meter, vehicle, interval));
        let silent: Intervals = silent.collect();
        for &period in watched.periods.as_slice() {
            for &interval in Intervals::from_iter([period]).without(&silent).as_slice() {
                let begins = match interval.start() > period.start() {
                    true => Begins::WithReading,
                    false => Begins::Anywhere,
                };
                let mut gaps = gaps_of(vehicle, interval, begins);
                match watched.meter {
                    Some(meter) => gaps.extend(gaps_of(meter, interval, begins)),
                    None => gaps.push(interval),
                }
                let gaps = Intervals::from_iter(gaps);
                sum.time_micros += interval.micros();
                sum.gap_micros += gaps.micros();
                all.extend_from_slice(gaps.as_slice());
            }
        }
    }
    sum.gaps = Intervals::from_iter(all).as_slice().len() as u64;
    sum
}

/// Intervals of over 15 minutes in which neither device reports. They lie between the start of `interval`, readings of
/// either device, and its end.
fn silences_of_both(
    meter: Option<&DeviceEnergy>,
    vehicle: &DeviceEnergy,
    interval: Interval,
) -> Vec<Interval> {
    let of_meter = meter.map_or(&[][..], |meter| meter.times_in(interval));
    let mut times = [of_meter, vehicle.times_in(interval), &[interval.end()]].concat();
    times.sort_unstable();
    let mut start = interval.start();
    let mut silences = Vec::new();
    for end in times {
        silences.extend(Interval::new(start, end).filter(|&interval| is_silence(interval)));
        start = end;
    }
    silences
}

/// How an interval begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begins {
    /// With a reading that ended a silence.
    WithReading,
    /// At any other moment.
    Anywhere,
}

/// A device's gaps in one interval: silences over 15 minutes between its start, the readings in it, and its end.
/// Without a reading the whole interval is a gap, however short it is.
fn gaps_of(device: &DeviceEnergy, interval: Interval, begins: Begins) -> Vec<Interval> {
    let first = match begins {
        Begins::WithReading => interval.start().plus_micros(-1),
        Begins::Anywhere => interval.start(),
    };
    let times =
        Interval::new(first, interval.end()).map_or(&[][..], |interval| device.times_in(interval));
    if times.is_empty() {
        return vec![interval];
    }
    let mut gaps = Vec::new();
    let mut start = interval.start();
    for &end in times.iter().chain([&interval.end()]) {
        gaps.extend(Interval::new(start, end).filter(|&interval| is_silence(interval)));
        start = end;
    }
    gaps
}
