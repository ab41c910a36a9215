//! A slow second implementation, written from the definitions alone.
//!
//! Time is cut at every moment at which anything could change into elementary segments (a, b];
//! within one nothing changes, so that each question is asked of a segment, by looking through
//! all readings and sessions. It shares no code with the real one but the types of its input.

use std::collections::BTreeSet;

use num_bigint::BigInt;

use crate::analytics::attribution::{NamedPlace, Rule, Session, VehicleReading};
use crate::analytics::device::EnergyReading;
use crate::reading::EnergyKind;

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
    /// Readings and sessions by vehicle; the vehicle's key is its place here.
    pub(super) vehicles: Vec<(Vec<VehicleReading>, Vec<Session>)>,
    /// Readings by meter; the meter's key is its place here.
    pub(super) meters: Vec<Vec<EnergyReading>>,
    /// The meter with the id of vehicle 0.
    pub(super) same_id: Option<usize>,
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

/// One reading, judged: its energy over (start, at], spread or whole at its end.
#[derive(Debug, Clone)]
struct Judged {
    at: i64,
    previous: Option<i64>,
    spread_from: Option<i64>,
    interval: bool,
    mwh: i64,
    reset: bool,
    suspect: bool,
}

/// kWh to mWh by the decimal text.
fn mwh(kwh: f64) -> i64 {
    let text = format!("{kwh}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let digits = format!("{fraction:0<7}");
    let kept: i64 = format!("{whole}{}", &digits[..6]).parse().unwrap();
    kept + i64::from(digits.as_bytes()[6] >= b'5')
}

fn judge(readings: &[EnergyReading]) -> Vec<Judged> {
    let value: Vec<i64> = readings.iter().map(|r| mwh(r.energy.kwh)).collect();
    let register = |i: usize| readings[i].energy.kind == EnergyKind::Register;
    let zero = |i: usize| register(i) && value[i] == 0;
    let placeholder = |i: usize| {
        let before = (0..i).rev().find(|&j| !zero(j));
        let after = (i + 1..readings.len()).find(|&j| !zero(j));
        match (before, after) {
            (Some(p), Some(n)) => {
                zero(i)
                    && register(p)
                    && register(n)
                    && value[p] > 0
                    && value[n] >= value[p] - 10_000
            }
            _ => false,
        }
    };
    let at = |i: usize| readings[i].at.as_micros();
    let mut all = Vec::new();
    for i in 0..readings.len() {
        let mut j = Judged {
            at: at(i),
            previous: i.checked_sub(1).map(at),
            spread_from: None,
            interval: !register(i),
            mwh: 0,
            reset: false,
            suspect: false,
        };
        if placeholder(i) {
            j.suspect = true;
        } else if !register(i) {
            j.mwh = value[i];
        } else if let Some(p) = (0..i)
            .rev()
            .find(|&p| !placeholder(p))
            .filter(|&p| register(p))
        {
            let (prev, cur) = (value[p], value[i]);
            j.spread_from = Some(at(p));
            j.previous = Some(at(p));
            j.mwh = cur - prev;
            if cur < prev {
                j.reset = (prev - cur) * 10 > prev && p + 1 == i;
                j.mwh = if j.reset { cur } else { 0 };
                j.suspect = !j.reset && prev - cur > 10_000;
            }
        }
        if let Some(previous) = j.previous {
            let seconds_e6 = i128::from(at(i) - previous).max(1_000_000);
            // kW = kWh × 3600 / s, over 1,000 kW.
            j.suspect |= i128::from(j.mwh) * 3_600 > seconds_e6 * 1_000;
        }
        all.push(j);
    }
    all
}

/// Meters with the rule and the session that put a vehicle there.
type Places = Vec<(usize, Rule, Option<i32>)>;

struct View<'a> {
    world: &'a World,
    segments: Vec<(i64, i64)>,
    dc: Vec<Vec<Judged>>,
    ac: Vec<Vec<Judged>>,
    /// By vehicle, by segment.
    places: Vec<Vec<Places>>,
}

fn view(world: &World) -> View<'_> {
    let mut edges = BTreeSet::from([world.from, world.to, world.to + QUARTER, world.now]);
    let vehicle_times = world.vehicles.iter().flat_map(|v| v.0.iter().map(|r| r.at));
    let meter_times = world.meters.iter().flat_map(|m| m.iter().map(|r| r.at));
    for t in vehicle_times.chain(meter_times).map(|t| t.as_micros()) {
        edges.extend([t, t - 1, t - QUARTER]);
    }
    for session in world.vehicles.iter().flat_map(|v| &v.1) {
        edges.insert(session.started.as_micros());
        edges.extend(session.ended.map(|t| t.as_micros()));
    }
    let edges: Vec<i64> = edges.into_iter().collect();
    let segments: Vec<(i64, i64)> = edges.windows(2).map(|w| (w[0], w[1])).collect();
    let dc = world.vehicles.iter().map(|v| {
        let readings: Vec<_> = v.0.iter().map(EnergyReading::from).collect();
        judge(&readings)
    });
    let mut view = View {
        world,
        dc: dc.collect(),
        ac: world.meters.iter().map(|m| judge(m)).collect(),
        places: Vec::new(),
        segments,
    };
    for v in 0..world.vehicles.len() {
        let places = view
            .segments
            .iter()
            .map(|&(_, end)| view.place(v, end))
            .collect();
        view.places.push(places);
    }
    view.add_same_id();
    view
}

impl View<'_> {
    /// Rules 1 and 2 at a moment.
    fn place(&self, v: usize, moment: i64) -> Places {
        let (readings, sessions) = &self.world.vehicles[v];
        if moment > self.world.now {
            return Vec::new();
        }
        if let Some(r) = readings.iter().find(|r| r.at.as_micros() >= moment)
            && r.at.as_micros() - QUARTER < moment
        {
            match r.place {
                Some(NamedPlace::Meter(m)) => return vec![(m.0 as usize, Rule::Named, None)],
                Some(NamedPlace::Session(s, m)) => {
                    return vec![(m.0 as usize, Rule::Named, Some(s.0))];
                }
                _ => {}
            }
        }
        let open = |s: &&Session| s.started.as_micros() < moment;
        let going = |s: &&Session| s.ended.is_none_or(|e| moment <= e.as_micros());
        let here = sessions.iter().filter(open).filter(going);
        here.map(|s| (s.meter.0 as usize, Rule::Session, Some(s.key.0)))
            .collect()
    }

    fn add_same_id(&mut self) {
        let Some(meter) = self.world.same_id else {
            return;
        };
        let (from, to) = (self.world.from, self.world.to);
        let (readings, sessions) = &self.world.vehicles[0];
        let in_window = |t: i64| from < t && t <= to;
        let end = |s: &Session| s.ended.map_or(i64::MAX, |e| e.as_micros());
        if readings
            .iter()
            .any(|r| in_window(r.at.as_micros()) && r.place.is_some())
            || sessions
                .iter()
                .any(|s| s.started.as_micros() < to && end(s) > from)
        {
            return;
        }
        let now = self.world.now;
        let is_free = |i: usize| {
            self.segments[i].1 <= now
                && self.places[0][i].is_empty()
                && (1..self.places.len()).all(|v| self.places[v][i].iter().all(|p| p.0 != meter))
        };
        let mut times: Vec<i64> = readings.iter().map(|r| r.at.as_micros()).collect();
        times.extend(self.world.meters[meter].iter().map(|r| r.at.as_micros()));
        let inside = |i: usize| self.segments[i].0 >= from && self.segments[i].1 <= to;
        let n = self.segments.len();
        let mut own = vec![false; n];
        for i in (0..n).filter(|&i| inside(i) && is_free(i)) {
            let first = (0..=i)
                .rev()
                .take_while(|&j| inside(j) && is_free(j))
                .last()
                .unwrap();
            let last = (i..n)
                .take_while(|&j| inside(j) && is_free(j))
                .last()
                .unwrap();
            let (a, b) = (self.segments[first].0, self.segments[last].1);
            let (start, stop) = self.segments[i];
            let before = times
                .iter()
                .copied()
                .filter(|&t| a < t && t <= start)
                .max()
                .unwrap_or(a);
            let after = times
                .iter()
                .copied()
                .filter(|&t| stop <= t && t <= b)
                .min()
                .unwrap_or(b);
            own[i] = after - before <= QUARTER || times.contains(&stop) && stop - start == 1;
        }
        for i in 1..n {
            let (start, stop) = self.segments[i];
            own[i] |= own[i - 1] && start >= to && stop <= to + QUARTER && is_free(i);
        }
        for i in (0..n).filter(|&i| own[i]) {
            self.places[0][i].push((meter, Rule::SameId, None));
        }
    }

    fn is_at(&self, v: usize, meter: usize, i: usize) -> bool {
        self.places[v][i].iter().any(|p| p.0 == meter)
    }

    fn in_window(&self, i: usize) -> bool {
        self.segments[i].0 >= self.world.from && self.segments[i].1 <= self.world.to
    }

    /// The segment that ends at a moment.
    fn ending(&self, at: i64) -> usize {
        self.segments.iter().position(|s| s.1 == at).unwrap()
    }

    /// What of a device's energy lies in a segment.
    fn energy(&self, device: &[Judged], i: usize) -> Frac {
        let (start, stop) = self.segments[i];
        let mut sum = Frac::int(0);
        for j in device {
            match j.spread_from {
                Some(from) if from <= start && stop <= j.at => {
                    let part = Frac::new(BigInt::from(stop - start), BigInt::from(j.at - from));
                    sum = sum.plus(&Frac::int(j.mwh).times(&part));
                }
                None if j.interval && j.at == stop => sum = sum.plus(&Frac::int(j.mwh)),
                _ => {}
            }
        }
        sum
    }

    /// DC of a vehicle over (p, c] while it was at the meter.
    fn weight(&self, v: usize, meter: usize, p: i64, c: i64) -> Frac {
        let here = |&i: &usize| {
            self.segments[i].0 >= p && self.segments[i].1 <= c && self.is_at(v, meter, i)
        };
        let parts = (0..self.segments.len())
            .filter(here)
            .map(|i| self.energy(&self.dc[v], i));
        parts.fold(Frac::int(0), |sum, part| sum.plus(&part))
    }

    /// Vehicle 0's part of what is divided in segment `i`.
    fn share(&self, meter: usize, i: usize, p: Option<i64>, c: i64) -> Frac {
        let all = 0..self.places.len();
        let present: Vec<usize> = all.filter(|&v| self.is_at(v, meter, i)).collect();
        if present == [0] {
            return Frac::int(1);
        }
        let start_of = |v: usize| {
            let run = (0..=i).rev().take_while(|&j| self.is_at(v, meter, j));
            run.last().map(|j| self.segments[j].0).unwrap()
        };
        let p = p.unwrap_or_else(|| present.iter().map(|&v| start_of(v)).min().unwrap());
        let own = self.weight(0, meter, p, c);
        let sum = present.iter().map(|&v| self.weight(v, meter, p, c));
        let sum = sum.fold(Frac::int(0), |a, b| a.plus(&b));
        if sum.is_zero() {
            sum
        } else {
            own.times(&Frac::new(sum.1, sum.0))
        }
    }

    fn credited(&self, meter: usize) -> Frac {
        let mut sum = Frac::int(0);
        for j in &self.ac[meter] {
            for i in 0..self.segments.len() {
                let (start, stop) = self.segments[i];
                if !self.in_window(i) || !self.is_at(0, meter, i) {
                    continue;
                }
                let part = match j.spread_from {
                    Some(from) if from <= start && stop <= j.at => {
                        Frac::new(BigInt::from(stop - start), BigInt::from(j.at - from))
                    }
                    None if j.interval && stop == j.at => Frac::int(1),
                    _ => continue,
                };
                let from = if j.interval {
                    j.previous
                } else {
                    j.spread_from
                };
                let share = self.share(meter, i, from, j.at);
                sum = sum.plus(&Frac::int(j.mwh).times(&part).times(&share));
            }
        }
        sum
    }

    fn is_known(&self, meter: usize, i: usize) -> bool {
        let (start, stop) = self.segments[i];
        let spreads = |j: &Judged| {
            j.spread_from
                .is_some_and(|from| from <= start && stop <= j.at)
        };
        if self.ac[meter].iter().any(spreads) {
            return true;
        }
        let next = self.ac[meter].iter().find(|j| j.at >= stop);
        next.is_some_and(|next| {
            next.interval && (i..=self.ending(next.at)).all(|k| self.is_at(0, meter, k))
        })
    }

    /// The gap segments of one meter's periods cut at the window.
    fn gap_segments(&self, meter: usize) -> BTreeSet<usize> {
        let here = |i: usize| self.in_window(i) && self.is_at(0, meter, i);
        let n = self.segments.len();
        let mut gaps = BTreeSet::new();
        for i in (0..n).filter(|&i| here(i)) {
            let first = (0..=i).rev().take_while(|&j| here(j)).last().unwrap();
            let last = (i..n).take_while(|&j| here(j)).last().unwrap();
            let (a, b) = (self.segments[first].0, self.segments[last].1);
            let (start, stop) = self.segments[i];
            for device in [&self.ac[meter], &self.dc[0]] {
                let times = || device.iter().map(|j| j.at).filter(|&t| a < t && t <= b);
                let before = times().filter(|&t| t <= start).max().unwrap_or(a);
                let after = times().filter(|&t| t >= stop).min().unwrap_or(b);
                if times().count() == 0 || after - before > QUARTER {
                    gaps.insert(i);
                }
            }
        }
        gaps
    }

    fn answer(&self) -> Expected {
        let n = self.segments.len();
        let in_window = |t: i64| self.world.from < t && t <= self.world.to;
        let own = || self.dc[0].iter().filter(|j| in_window(j.at));
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
        for i in (0..n).filter(|&i| self.in_window(i)) {
            let dc = self.energy(&self.dc[0], i);
            e.dc = e.dc.plus(&dc);
            for &(meter, rule, session) in &self.places[0][i] {
                e.rules.insert(rule);
                e.meters.insert(meter);
                sessions.extend(session);
            }
            if self.places[0][i].iter().any(|p| self.is_known(p.0, i)) {
                e.matched = e.matched.plus(&dc);
            }
        }
        e.sessions = sessions.len() as u64;
        let mut all_gaps = BTreeSet::new();
        let length = |i: usize| i128::from(self.segments[i].1 - self.segments[i].0);
        for &meter in &e.meters {
            e.ac = e.ac.plus(&self.credited(meter));
            let here = |i: &usize| self.in_window(*i) && self.is_at(0, meter, *i);
            e.time += (0..n).filter(here).map(length).sum::<i128>();
            let gaps = self.gap_segments(meter);
            e.gap += gaps.iter().map(|&i| length(i)).sum::<i128>();
            all_gaps.extend(gaps);
            let heard = self.ac[meter].iter().filter(|j| in_window(j.at));
            for j in heard.filter(|j| self.is_at(0, meter, self.ending(j.at))) {
                e.meter_data_points += 1;
                e.resets += u64::from(j.reset);
                e.suspect += u64::from(j.suspect);
            }
        }
        let starts = all_gaps
            .iter()
            .filter(|&&i| i == 0 || !all_gaps.contains(&(i - 1)));
        e.gaps = starts.count() as u64;
        e
    }
}

/// The answer for vehicle 0.
pub(super) fn reference(world: &World) -> Expected {
    view(world).answer()
}

/// What all meters measured in the window, whoever drew it.
pub(super) fn meter_energy(world: &World) -> Frac {
    let view = view(world);
    let here = (0..view.segments.len()).filter(|&i| view.in_window(i));
    here.fold(Frac::int(0), |sum, i| {
        let meters = view.ac.iter().map(|meter| view.energy(meter, i));
        meters.fold(sum, |sum, energy| sum.plus(&energy))
    })
}
