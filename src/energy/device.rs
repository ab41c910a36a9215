//! Converts one device's readings, in order of time, to amounts of energy.

use super::exact::{Exact, mwh_of_kwh};
use super::interval::{Interval, Intervals};
pub use super::reading::EnergyReading;
use super::reading::{CLAIM_MICROS_MAX, RolledUp};
use crate::reading::{EnergyKind, Timestamp};

/// How far a register may be below its last value before the zeros and still count as its continuation. Also the
/// largest fall that is not suspect. 0.01 kWh.
const FALL_MWH_MAX: i64 = 10_000;

/// The shortest time over which implied power is computed, because clocks jitter.
const POWER_MICROS_MIN: i128 = 1_000_000;

/// The default for the implied power above which a reading is suspect: 1 MW.
pub const SUSPECT_WATTS_DEFAULT: u64 = 1_000_000;

/// How an amount is spread over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// An interval reading: all of its energy at `at`. `since` is the device's previous reading.
    Moment {
        /// The time of the device's previous reading. `None` means that this is the first.
        since: Option<Timestamp>,
    },
    /// Between two register neighbours: spread evenly over (start, `at`].
    Spread {
        /// The earlier neighbour.
        start: Timestamp,
    },
}

/// An amount of energy, and when it flowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount {
    /// The time of the reading that ends it.
    pub at: Timestamp,
    /// Its energy.
    pub mwh: i64,
    /// How it is spread over time.
    pub extent: Extent,
}

impl Amount {
    /// The interval of a spread amount; `None` for an interval reading.
    pub fn spread(&self) -> Option<Interval> {
        match self.extent {
            Extent::Spread { start } => Interval::new(start, self.at),
            Extent::Moment { .. } => None,
        }
    }
}

/// A reading that is a reset or suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OddReading {
    at: Timestamp,
    odd: Oddities,
}

/// The energy of one device.
///
/// Order:  everything ascending by time; amounts do not overlap
#[derive(Debug, Clone, Default)]
pub struct DeviceEnergy {
    /// The times of all readings. A rolled-up interval contributes its ends, and between them just enough times
    /// that no silence appears.
    times: Vec<Timestamp>,
    amounts: Vec<Amount>,
    odd_readings: Vec<OddReading>,
    /// The rolled-up intervals, each with the number of its readings that `times` lacks.
    rolled_up: Vec<(Interval, i64)>,
}

/// The number of resets and of suspect readings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Oddities {
    /// Register resets.
    pub resets: u64,
    /// Readings with an implied power above the bound, placeholders and corrections.
    pub suspect: u64,
}

impl Oddities {
    /// Adds the counts of another device or time interval.
    pub fn add(&mut self, other: Oddities) {
        self.resets += other.resets;
        self.suspect += other.suspect;
    }
}

impl DeviceEnergy {
    /// Converts a device's readings to amounts.
    ///
    /// For an exact answer over (a, b] the caller supplies every reading in it and its neighbours on both sides.
    /// The neighbours go back from a to the first reading that is not a register of 0, inclusive, and forward from
    /// b in the same way. (With interval readings only, that is one reading before; the one after affects only the
    /// `known` moments of a meter.) Further readings do no harm.
    ///
    /// The definition leaves some choices, made as follows:
    /// - "Exactly 0" and every difference are judged on values rounded to mWh.
    /// - Placeholders are consecutive zeros, `p` is the reading before them, and `n` the first reading after them.
    ///   If `n` is below `p` by at most 0.01 kWh, its energy is 0, and it is neither a reset nor suspect.
    /// - The power implied by `n` after placeholders is taken over the time since `p`, over which its energy is
    ///   spread.
    /// - A reading is counted as suspect once, even for several reasons.
    ///
    /// Order:  ascending by time, with distinct times
    pub fn new(readings: impl IntoIterator<Item = EnergyReading>, suspect_watts: u64) -> Self {
        DeviceEnergy::with_rolled_up(readings, &[], suspect_watts)
    }

    /// Like [`DeviceEnergy::new`], with some readings given as rollups. Both ends of each rollup are among the
    /// readings, next to each other.
    ///
    /// Exact over intervals that split none of them: see [`DeviceEnergy::split_by`].
    ///
    /// Order:  both ascending by time
    pub fn with_rolled_up(
        readings: impl IntoIterator<Item = EnergyReading>,
        rolled_up: &[RolledUp],
        suspect_watts: u64,
    ) -> Self {
        let mut device = DeviceEnergy::default();
        let mut rolled_up = rolled_up.iter().peekable();
        // The previous reading, and the zero registers after it that are still to be judged.
        let mut previous: Option<Point> = None;
        let mut zeros: Vec<Point> = Vec::new();
        for reading in readings {
            let point = Point {
                at: reading.at,
                mwh: mwh_of_kwh(reading.energy.kwh),
                kind: reading.energy.kind,
            };
            if let Some(sum) = rolled_up.next_if(|sum| sum.interval.end() == point.at) {
                device.take_rolled_up(sum);
                previous = Some(point);
                continue;
            }
            device.times.push(point.at);
            if point.is_zero_register() && previous.is_some_and(|p| p.is_register_above_zero()) {
                zeros.push(point);
                continue;
            }
            let settled = device.settle(previous, &mut zeros, Some(point), suspect_watts);
            device.step(settled, point, suspect_watts);
            previous = Some(point);
        }
        device.settle(previous, &mut zeros, None, suspect_watts);
        device
    }

    /// Judges the zeros between `before` and `after`. Returns the neighbour from which the energy of `after` is
    /// counted.
    fn settle(
        &mut self,
        before: Option<Point>,
        zeros: &mut Vec<Point>,
        after: Option<Point>,
        suspect_watts: u64,
    ) -> Option<Neighbour> {
        let (Some(p), Some(&last)) = (before, zeros.last()) else {
            return before.map(Neighbour::next);
        };
        let continues = after.is_some_and(|n| {
            n.kind == EnergyKind::Register && n.mwh >= p.mwh.saturating_sub(FALL_MWH_MAX)
        });
        if continues {
            self.odd_readings
                .extend(zeros.drain(..).map(|zero| OddReading {
                    at: zero.at,
                    odd: Oddities {
                        resets: 0,
                        suspect: 1,
                    },
                }));
            return Some(Neighbour {
                point: p,
                bridges: true,
            });
        }
        let mut neighbour = p;
        for zero in zeros.drain(..) {
            self.step(Some(Neighbour::next(neighbour)), zero, suspect_watts);
            neighbour = zero;
        }
        Some(Neighbour::next(last))
    }

    /// Adds one reading. Its energy is counted from its neighbour.
    fn step(&mut self, before: Option<Neighbour>, cur: Point, suspect_watts: u64) {
        let (mut is_reset, mut is_suspect) = (false, false);
        let amount = match (cur.kind, before) {
            (EnergyKind::Interval, before) => Some(Amount {
                at: cur.at,
                mwh: cur.mwh,
                extent: Extent::Moment {
                    since: before.map(|p| p.point.at),
                },
            }),
            (EnergyKind::Register, Some(Neighbour { point: p, bridges }))
                if p.kind == EnergyKind::Register =>
            {
                let fall = p.mwh - cur.mwh;
                is_reset = !bridges && i128::from(fall) * 10 > i128::from(p.mwh);
                is_suspect = fall > FALL_MWH_MAX && !is_reset;
                let mwh = if is_reset { cur.mwh } else { (-fall).max(0) };
                Some(Amount {
                    at: cur.at,
                    mwh,
                    extent: Extent::Spread { start: p.at },
                })
            }
            (EnergyKind::Register, _) => None,
        };
        if let (Some(amount), Some(p)) = (amount, before) {
            is_suspect |= is_over_power(amount.mwh, p.point.at, cur.at, suspect_watts);
        }
        self.amounts.extend(amount);
        self.note_odd(
            cur.at,
            Oddities {
                resets: u64::from(is_reset),
                suspect: u64::from(is_suspect),
            },
        );
    }

    fn note_odd(&mut self, at: Timestamp, odd: Oddities) {
        if odd != Oddities::default() {
            self.odd_readings.push(OddReading { at, odd });
        }
    }

    /// Adds a rollup, which spans from the previous reading to this one.
    fn take_rolled_up(&mut self, sum: &RolledUp) {
        let (start, end) = (sum.interval.start(), sum.interval.end());
        let before = self.times.len();
        let mut at = start.plus_micros(CLAIM_MICROS_MAX);
        while at < end {
            self.times.push(at);
            at = at.plus_micros(CLAIM_MICROS_MAX);
        }
        let stand_ins = (self.times.len() - before) as i64;
        self.times.push(end);
        self.rolled_up
            .push((sum.interval, sum.between as i64 - stand_ins));
        self.amounts.push(Amount {
            at: end,
            mwh: sum.mwh,
            extent: Extent::Moment { since: Some(start) },
        });
        self.note_odd(
            end,
            Oddities {
                resets: sum.resets,
                suspect: sum.suspect,
            },
        );
    }

    /// The rolled-up intervals that are split by one of the edges. Their readings are needed one by one.
    ///
    /// Order:  `edges` ascending
    pub fn split_by<'a>(&'a self, edges: &'a [Timestamp]) -> impl Iterator<Item = Interval> + 'a {
        let intervals = self.rolled_up.iter().map(|(interval, _)| *interval);
        intervals.filter(|interval| {
            let next = edges.partition_point(|edge| *edge <= interval.start());
            edges.get(next).is_some_and(|edge| *edge < interval.end())
        })
    }

    /// How many readings lie in a time interval.
    pub fn count_in(&self, interval: Interval) -> u64 {
        let rolled_up = self.rolled_up.iter();
        let more = rolled_up.filter(|(sum, _)| interval.contains(sum.end()));
        let more: i64 = more.map(|(_, more)| more).sum();
        self.times_in(interval)
            .len()
            .saturating_add_signed(more as isize) as u64
    }

    /// The times of the readings in an interval. A rolled-up interval contributes only as many times as it takes to
    /// avoid a silence.
    pub fn times_in(&self, interval: Interval) -> &[Timestamp] {
        let first = self.times.partition_point(|&t| t <= interval.start());
        let last = self.times.partition_point(|&t| t <= interval.end());
        self.times.get(first..last).unwrap_or_default()
    }

    /// The amounts that overlap a time interval.
    pub fn amounts_in(&self, interval: Interval) -> impl Iterator<Item = &Amount> {
        let first = self
            .amounts
            .partition_point(|amount| amount.at <= interval.start());
        self.amounts
            .iter()
            .skip(first)
            .take_while(move |amount| match amount.extent {
                Extent::Moment { .. } => amount.at <= interval.end(),
                Extent::Spread { start } => start < interval.end(),
            })
    }

    /// All amounts, in order.
    pub fn amounts(&self) -> &[Amount] {
        &self.amounts
    }

    /// The energy at moments that lie both in `moments` and in `window`.
    pub fn energy_in(&self, moments: &Intervals, window: Interval) -> Exact {
        let mut sum = Exact::default();
        for amount in self.amounts_in(window) {
            match amount.spread() {
                None if moments.contains(amount.at) => sum.add_mwh(i128::from(amount.mwh)),
                None => {}
                Some(span) => {
                    let part: i128 = span
                        .and(window)
                        .map_or(0, |cut| moments.within(cut).map(Interval::micros).sum());
                    sum.add_part(i128::from(amount.mwh), part, span.micros());
                }
            }
        }
        sum
    }

    /// All energy in a window.
    pub fn energy(&self, window: Interval) -> Exact {
        self.energy_in(&Intervals::from_iter([window]), window)
    }

    /// The resets and suspect readings in a time interval.
    pub fn oddities_in(&self, interval: Interval) -> Oddities {
        let first = self
            .odd_readings
            .partition_point(|reading| reading.at <= interval.start());
        let odd = self
            .odd_readings
            .iter()
            .skip(first)
            .take_while(|reading| reading.at <= interval.end());
        let mut sum = Oddities::default();
        odd.for_each(|reading| sum.add(reading.odd));
        sum
    }
}

#[derive(Debug, Clone, Copy)]
struct Point {
    at: Timestamp,
    mwh: i64,
    kind: EnergyKind,
}

/// The reading from which the next one's energy is counted.
#[derive(Debug, Clone, Copy)]
struct Neighbour {
    point: Point,
    /// Whether placeholders lie in between. The next reading then continues the register and is never a reset.
    bridges: bool,
}

impl Neighbour {
    fn next(point: Point) -> Self {
        Neighbour {
            point,
            bridges: false,
        }
    }
}

impl Point {
    fn is_zero_register(&self) -> bool {
        self.kind == EnergyKind::Register && self.mwh == 0
    }

    fn is_register_above_zero(&self) -> bool {
        self.kind == EnergyKind::Register && self.mwh > 0
    }
}

/// Whether an amount implies too much power, given the time since the last reading.
fn is_over_power(mwh: i64, since: Timestamp, at: Timestamp, watts: u64) -> bool {
    let micros = i128::from(at.as_micros()) - i128::from(since.as_micros());
    // 1 mWh in 1 µs is 3,600,000 W.
    i128::from(mwh) * 3_600_000 > i128::from(watts) * micros.max(POWER_MICROS_MIN)
}
