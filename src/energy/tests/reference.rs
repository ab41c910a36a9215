//! A slow second implementation, written from the definitions alone.
//!
//! The time line is cut at every instant at which anything could change. The interval between two neighbouring
//! cuts is called a moment, because nothing changes within it. So each question concerns one moment, and is
//! answered by a search through all readings and sessions. Moments cover all time from before the first reading to
//! the last, whatever the window, because attribution periods are not clipped to the window. Only the input types
//! are shared with the real implementation.

use std::collections::BTreeSet;

use num_bigint::BigInt;

use super::judged::{Judged, judge};
use crate::energy::attribution::{NamedPlace, Rule, Session, VehicleReading};
use crate::energy::device::EnergyReading;

pub(super) const MINUTE: i64 = 60_000_000;
const QUARTER: i64 = 15 * MINUTE;

/// A reduced fraction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frac(pub(super) BigInt, pub(super) BigInt);

impl Frac {
    pub(super) fn new(n: BigInt, d: BigInt) -> Self {
        let (mut a, mut b) = (n.clone(), d.clone());
        while b != BigInt::ZERO {
            (a, b) = (b.clone(), a % b);
        }
        if (d < BigInt::ZERO) != (a < BigInt::ZERO) {
            Frac(-n / &a, -d / a)
        } else {
            Frac(n / &a, d / a)
        }
    }
    pub(super) fn int(n: i64) -> Self {
        Frac(BigInt::from(n), BigInt::from(1))
    }
    pub(super) fn plus(&self, o: &Frac) -> Frac {
        Frac::new(&self.0 * &o.1 + &o.0 * &self.1, &self.1 * &o.1)
    }
    pub(super) fn minus(&self, o: &Frac) -> Frac {
        self.plus(&Frac(-&o.0, o.1.clone()))
    }
    fn times(&self, o: &Frac) -> Frac {
        Frac::new(&self.0 * &o.0, &self.1 * &o.1)
    }
    fn is_zero(&self) -> bool {
        self.0 == BigInt::ZERO
    }
}

#[derive(Debug, Clone)]
pub(super) struct World {
    /// Readings and sessions by vehicle. The vehicle's key is its index here.
    pub(super) vehicles: Vec<(Vec<VehicleReading>, Vec<Session>)>,
    /// Readings by meter. The meter's key is its index here.
    pub(super) meters: Vec<Vec<EnergyReading>>,
    /// By meter: the vehicle with the same id, if any.
    pub(super) owners: Vec<Option<usize>>,
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) now: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) ac: Frac,
    pub(super) dc: Frac,
    pub(super) matched: Frac,
    pub(super) data_points: u64,
    pub(super) meter_data_points: u64,
    pub(super) rules: BTreeSet<Rule>,
    pub(super) meters: BTreeSet<usize>,
    pub(super) sessions: u64,
    pub(super) time: i128,
    pub(super) gap: i128,
    pub(super) gaps: u64,
    pub(super) resets: u64,
    pub(super) suspect: u64,
}

/// Why a vehicle is at a meter in a moment.
#[derive(Debug, Clone)]
struct Stay {
    meter: usize,
    rule: Rule,
    session: Option<i32>,
}

/// Where all vehicles are in every moment, and what all devices measured.
struct Chart<'a> {
    world: &'a World,
    /// Moment `i` is (marks[i], marks[i + 1]].
    marks: Vec<i64>,
    dc: Vec<Vec<Judged>>,
    ac: Vec<Vec<Judged>>,
    /// By vehicle, then by moment.
    stays: Vec<Vec<Vec<Stay>>>,
}

fn marks(world: &World) -> Vec<i64> {
    let mut marks = BTreeSet::from([world.from, world.to, world.now]);
    for reading in world.vehicles.iter().flat_map(|v| &v.0) {
        marks.extend([reading.at.as_micros(), reading.at.as_micros() - QUARTER]);
    }
    marks.extend(world.meters.iter().flatten().map(|r| r.at.as_micros()));
    for session in world.vehicles.iter().flat_map(|v| &v.1) {
        marks.insert(session.started.as_micros());
        marks.extend(session.ended.map(|t| t.as_micros()));
    }
    // One more moment before everything, for what has always been true.
    marks.extend(marks.first().map(|first| first - 1));
    marks.into_iter().collect()
}

impl<'a> Chart<'a> {
    fn new(world: &'a World) -> Self {
        let dc = world.vehicles.iter().map(|(readings, _)| {
            let readings: Vec<_> = readings.iter().map(EnergyReading::from).collect();
            judge(&readings)
        });
        let mut chart = Chart {
            world,
            marks: marks(world),
            dc: dc.collect(),
            ac: world.meters.iter().map(|m| judge(m)).collect(),
            stays: Vec::new(),
        };
        chart.stays = vec![vec![Vec::new(); chart.moments().len()]; world.vehicles.len()];
        for v in 0..world.vehicles.len() {
            chart.put_by_name(v);
            chart.put_by_session(v);
        }
        for (meter, owner) in world.owners.iter().enumerate() {
            if let Some(v) = owner.filter(|v| *v < world.vehicles.len()) {
                chart.put_by_same_id(v, meter);
            }
        }
        chart
    }

    fn moments(&self) -> std::ops::Range<usize> {
        0..self.marks.len() - 1
    }

    fn start(&self, i: usize) -> i64 {
        self.marks[i]
    }

    fn end(&self, i: usize) -> i64 {
        self.marks[i + 1]
    }

    /// The moments of (a, b].
    fn span(&self, a: i64, b: i64) -> Vec<usize> {
        let inside = |&i: &usize| a <= self.start(i) && self.end(i) <= b;
        self.moments().filter(inside).collect()
    }

    fn window(&self) -> Vec<usize> {
        self.span(self.world.from, self.world.to)
    }

    fn put_by_name(&mut self, v: usize) {
        let readings = &self.world.vehicles[v].0;
        for (n, reading) in readings.iter().enumerate() {
            let (meter, session) = match reading.place {
                Some(NamedPlace::Meter(meter)) => (meter, None),
                Some(NamedPlace::Session(session, meter)) => (meter, Some(session.0)),
                Some(NamedPlace::Unknown) | None => continue,
            };
            let t = reading.at.as_micros();
            let mut since = t - QUARTER;
            if n > 0 {
                since = since.max(readings[n - 1].at.as_micros());
            }
            for i in self.span(since, t.min(self.world.now)) {
                self.stays[v][i].push(Stay {
                    meter: meter.0 as usize,
                    rule: Rule::Named,
                    session,
                });
            }
        }
    }

    fn put_by_session(&mut self, v: usize) {
        let now = self.world.now;
        for session in &self.world.vehicles[v].1 {
            let end = session.ended.map_or(now, |t| t.as_micros()).min(now);
            for i in self.span(session.started.as_micros(), end) {
                if !self.stays[v][i].iter().any(|s| s.rule == Rule::Named) {
                    self.stays[v][i].push(Stay {
                        meter: session.meter.0 as usize,
                        rule: Rule::Session,
                        session: Some(session.key.0),
                    });
                }
            }
        }
    }

    fn put_by_same_id(&mut self, v: usize, meter: usize) {
        let (readings, sessions) = &self.world.vehicles[v];
        let (from, to) = (self.world.from, self.world.to);
        let names = |r: &VehicleReading| {
            from < r.at.as_micros() && r.at.as_micros() <= to && r.place.is_some()
        };
        let overlaps = |s: &Session| {
            s.started.as_micros() < to && s.ended.is_none_or(|end| from < end.as_micros())
        };
        if readings.iter().any(names) || sessions.iter().any(overlaps) {
            return;
        }
        for i in self.moments() {
            let is_over = self.end(i) <= self.world.now;
            let guest = (0..self.stays.len()).any(|w| w != v && self.is_at(w, meter, i));
            if is_over && self.stays[v][i].is_empty() && !guest {
                self.stays[v][i].push(Stay {
                    meter,
                    rule: Rule::SameId,
                    session: None,
                });
            }
        }
    }

    fn is_at(&self, v: usize, meter: usize, i: usize) -> bool {
        self.stays[v][i].iter().any(|stay| stay.meter == meter)
    }

    /// The part of a device's energy in a moment.
    fn energy(&self, device: &[Judged], i: usize) -> Frac {
        let parts = device.iter().map(|j| self.part(j, i));
        let parts = parts
            .zip(device)
            .map(|(part, j)| Frac::int(j.mwh).times(&part));
        parts.fold(Frac::int(0), |sum, part| sum.plus(&part))
    }

    /// The fraction of a reading's energy that falls in a moment, 0 to 1.
    fn part(&self, j: &Judged, i: usize) -> Frac {
        match j.spread_from {
            Some(from) if from <= self.start(i) && self.end(i) <= j.at => Frac::new(
                BigInt::from(self.end(i) - self.start(i)),
                BigInt::from(j.at - from),
            ),
            None if j.interval && j.at == self.end(i) => Frac::int(1),
            _ => Frac::int(0),
        }
    }

    /// The fraction of a meter's energy credited to a vehicle in a moment, 0 to 1.
    fn share(&self, v: usize, meter: usize, j: &Judged, i: usize) -> Frac {
        let all = 0..self.stays.len();
        let present: Vec<usize> = all.filter(|&u| self.is_at(u, meter, i)).collect();
        if present == [v] {
            return Frac::int(1);
        }
        let since = j.spread_from.or(j.previous).unwrap_or_else(|| {
            let mut first = i;
            while first > 0
                && present
                    .iter()
                    .any(|&u| (first - 1..=i).all(|k| self.is_at(u, meter, k)))
            {
                first -= 1;
            }
            self.start(first)
        });
        let received = |u: usize| {
            let there = self.span(since, j.at).into_iter();
            let there = there.filter(|&k| self.is_at(u, meter, k));
            there.fold(Frac::int(0), |sum, k| {
                sum.plus(&self.energy(&self.dc[u], k))
            })
        };
        let sum = present
            .iter()
            .fold(Frac::int(0), |sum, &u| sum.plus(&received(u)));
        if sum.is_zero() {
            return sum;
        }
        received(v).times(&Frac::new(sum.1, sum.0))
    }

    fn credited(&self, v: usize, meter: usize) -> Frac {
        let mut sum = Frac::int(0);
        for i in self
            .window()
            .into_iter()
            .filter(|&i| self.is_at(v, meter, i))
        {
            for j in &self.ac[meter] {
                let part = self.part(j, i);
                if j.mwh != 0 && !part.is_zero() {
                    let share = self.share(v, meter, j, i);
                    sum = sum.plus(&Frac::int(j.mwh).times(&part).times(&share));
                }
            }
        }
        sum
    }

    fn is_known(&self, v: usize, meter: usize, i: usize) -> bool {
        let readings = &self.ac[meter];
        let between = |j: &Judged| {
            j.spread_from
                .is_some_and(|from| from <= self.start(i) && self.end(i) <= j.at)
        };
        let next = readings.iter().find(|j| self.end(i) <= j.at);
        let same_period = |next: &Judged| {
            next.interval
                && self
                    .span(self.start(i), next.at)
                    .iter()
                    .all(|&k| self.is_at(v, meter, k))
        };
        readings.iter().any(between) || next.is_some_and(same_period)
    }

    /// A vehicle's attribution periods at a meter, clipped to the window and without the silences of both devices,
    /// as runs of moments. The flag tells whether a run begins with the reading that ended such a silence.
    fn heard(&self, v: usize, meter: usize) -> Vec<(Vec<usize>, bool)> {
        let here = |i: &usize| self.is_at(v, meter, *i);
        let mut silent = BTreeSet::new();
        let by_same_id = |i: &usize| {
            let mut stays = self.stays[v][*i].iter();
            stays.any(|s| s.meter == meter && s.rule == Rule::SameId)
        };
        let both = || self.ac[meter].iter().chain(&self.dc[v]);
        for free in runs(self.window().into_iter().filter(by_same_id)) {
            let mut quiet: Vec<usize> = Vec::new();
            for (n, &i) in free.iter().enumerate() {
                quiet.push(i);
                if both().any(|j| j.at == self.end(i)) || n + 1 == free.len() {
                    if self.end(i) - self.start(quiet[0]) > QUARTER {
                        silent.extend(quiet.drain(..));
                    }
                    quiet.clear();
                }
            }
        }
        let left = self
            .window()
            .into_iter()
            .filter(here)
            .filter(|i| !silent.contains(i));
        let left = runs(left).into_iter();
        left.map(|run| {
            let after_silence = run[0] > 0 && silent.contains(&(run[0] - 1));
            (run, after_silence)
        })
        .collect()
    }

    /// The moments of a run in which a device is silent for too long.
    fn gaps(&self, device: &[Judged], run: &[usize], from_reading: bool) -> BTreeSet<usize> {
        let (a, b) = (self.start(run[0]), self.end(run[run.len() - 1]));
        let mut times: Vec<i64> = device.iter().map(|j| j.at).collect();
        times.retain(|&t| a < t && t <= b || from_reading && t == a);
        if times.is_empty() {
            return run.iter().copied().collect();
        }
        times.extend([a, b]);
        times.sort_unstable();
        let long = times.windows(2).filter(|pair| pair[1] - pair[0] > QUARTER);
        long.flat_map(|pair| self.span(pair[0], pair[1])).collect()
    }

    fn answer(&self, v: usize) -> Expected {
        let in_window = |t: i64| self.world.from < t && t <= self.world.to;
        let own = || self.dc[v].iter().filter(|j| in_window(j.at));
        let mut e = Expected {
            ac: Frac::int(0),
            dc: Frac::int(0),
            matched: Frac::int(0),
            data_points: own().count() as u64,
            meter_data_points: 0,
            rules: BTreeSet::new(),
            meters: BTreeSet::new(),
            sessions: 0,
            time: 0,
            gap: 0,
            gaps: 0,
            resets: own().filter(|j| j.reset).count() as u64,
            suspect: own().filter(|j| j.suspect).count() as u64,
        };
        let mut sessions = BTreeSet::new();
        for i in self.window() {
            let dc = self.energy(&self.dc[v], i);
            e.dc = e.dc.plus(&dc);
            for stay in &self.stays[v][i] {
                e.rules.insert(stay.rule);
                e.meters.insert(stay.meter);
                sessions.extend(stay.session);
            }
            if self.stays[v][i]
                .iter()
                .any(|s| self.is_known(v, s.meter, i))
            {
                e.matched = e.matched.plus(&dc);
            }
        }
        e.sessions = sessions.len() as u64;
        let mut all_gaps = BTreeSet::new();
        let long = |run: &BTreeSet<usize>| -> i128 {
            run.iter()
                .map(|&i| i128::from(self.end(i) - self.start(i)))
                .sum()
        };
        for &meter in &e.meters {
            e.ac = e.ac.plus(&self.credited(v, meter));
            for (run, from_reading) in self.heard(v, meter) {
                let mut gaps = self.gaps(&self.ac[meter], &run, from_reading);
                gaps.extend(self.gaps(&self.dc[v], &run, from_reading));
                e.time += long(&run.into_iter().collect());
                e.gap += long(&gaps);
                all_gaps.extend(gaps);
            }
            let ends_here = |j: &&Judged| {
                let mut window = self.window().into_iter();
                window.any(|i| self.end(i) == j.at && self.is_at(v, meter, i))
            };
            for j in self.ac[meter].iter().filter(ends_here) {
                e.meter_data_points += 1;
                e.resets += u64::from(j.reset);
                e.suspect += u64::from(j.suspect);
            }
        }
        e.gaps = runs(all_gaps).len() as u64;
        e
    }

    /// What all meters measured in the window, attributed or not.
    fn meter_energy(&self) -> Frac {
        let window = self.window().into_iter();
        let energies = window.flat_map(|i| self.ac.iter().map(move |ac| self.energy(ac, i)));
        energies.fold(Frac::int(0), |sum, energy| sum.plus(&energy))
    }
}

/// Groups ascending moments into runs without a missing moment.
fn runs(moments: impl IntoIterator<Item = usize>) -> Vec<Vec<usize>> {
    let mut runs: Vec<Vec<usize>> = Vec::new();
    for i in moments {
        match runs.last_mut() {
            Some(run) if run.last() == Some(&(i - 1)) => run.push(i),
            _ => runs.push(vec![i]),
        }
    }
    runs
}

/// The answers for all vehicles, and the unattributed rest of what all meters measured.
pub(super) fn reference(world: &World) -> (Vec<Expected>, Frac) {
    let chart = Chart::new(world);
    let answers: Vec<Expected> = (0..world.vehicles.len()).map(|v| chart.answer(v)).collect();
    let rest = |rest: Frac, e: &Expected| rest.minus(&e.ac);
    let rest = answers.iter().fold(chart.meter_energy(), rest);
    (answers, rest)
}
