//! How far an answer reaches beyond its window: in time, and to other vehicles.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures_util::future::try_join;
use tokio_postgres::types::ToSql;

use super::AskError;
use super::history::History;
use crate::energy::attribution::{CLAIM_MICROS_MAX, MeterKey, VehicleKey};
use crate::energy::device::EnergyReading;
use crate::energy::interval::{Interval, Intervals};
use crate::energy::question::Plan;
use crate::energy::window::DAY_MICROS;
use crate::reading::{EnergyKind, Stream, Timestamp};

/// How far after a window vehicles' readings are fetched at first. It is enough for periods that continue to the
/// next reading of an hourly meter.
pub(super) const BEHIND_MICROS: i64 = 6 * CLAIM_MICROS_MAX;

/// Intervals at one meter that are closer than this are fetched as one.
const JOIN_MICROS: i64 = DAY_MICROS;

/// How far before a window the search for the start of an attribution period begins, if a meter's first reading
/// ever is divided among vehicles.
const CHAIN_MICROS: i64 = DAY_MICROS;

/// A meter where a vehicle is in the window, or may be by rule 3.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// The times within the window around which the meter's readings are fetched.
    pub(super) intervals: Intervals,
    /// Whether rule 1 or 2 puts the vehicle there, so that it may share amounts.
    shares: bool,
    /// Whether the meter has the vehicle's id and rule 3 may apply.
    pub(super) by_same_id: bool,
}

/// The meters where a vehicle is, or may be.
pub(super) fn wanted(
    plan: Plan,
    same_id: Option<MeterKey>,
    window: Interval,
) -> BTreeMap<MeterKey, Wanted> {
    let named = |(meter, intervals)| {
        let wanted = Wanted {
            intervals,
            shares: true,
            by_same_id: false,
        };
        (meter, wanted)
    };
    let mut wanted: BTreeMap<MeterKey, Wanted> = plan.meters.into_iter().map(named).collect();
    if let Some(meter) = same_id {
        let shares = wanted.contains_key(&meter);
        wanted.insert(
            meter,
            Wanted {
                intervals: Intervals::from_iter([window]),
                shares,
                by_same_id: true,
            },
        );
    }
    wanted
}

/// How far an answer reaches at one meter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reach {
    /// The time from which the vehicles' readings and sessions matter.
    pub(super) low: Timestamp,
    /// The time of the meter's reading up to which they matter.
    pub(super) high: Timestamp,
    /// Whether the meter's first reading ever is divided. `low` is then only where the search begins.
    pub(super) is_first: bool,
}

impl Wanted {
    /// The time in which other vehicles matter, for the first search. By rule 3, a vehicle that arrives between
    /// the window's end and the meter's next reading matters too. That reading is nearly always close.
    pub(super) fn looked(&self, window: Interval, now: Timestamp) -> Intervals {
        if !self.by_same_id {
            return self.intervals.clone();
        }
        let behind = window.end().plus_micros(BEHIND_MICROS - CLAIM_MICROS_MAX);
        let end = behind.min(now).max(window.end());
        Interval::new(window.start(), end).into_iter().collect()
    }

    /// How far the answer reaches, given the meter's readings and the other vehicles there.
    pub(super) fn reach(
        &self,
        readings: &[EnergyReading],
        others: &HashSet<VehicleKey>,
        window: Interval,
        now: Timestamp,
    ) -> Reach {
        let mut reach = Reach {
            low: window.start(),
            high: window.end(),
            is_first: false,
        };
        // A period that continues beyond the window reaches to the meter's next reading.
        let last_interval = self.intervals.as_slice().last();
        let next = readings.partition_point(|reading| reading.at <= window.end());
        if let Some(next) = readings.get(next)
            && last_interval.is_some_and(|interval| interval.end() == window.end())
            && next.energy.kind == EnergyKind::Interval
            && next.at <= now
        {
            reach.high = next.at;
        }
        if !self.is_shared(others) {
            return reach;
        }
        if let (Some(first), Some(last)) = (readings.first(), readings.last()) {
            reach.low = reach.low.min(first.at);
            reach.high = reach.high.max(last.at);
            reach.is_first =
                first.energy.kind == EnergyKind::Interval && self.intervals.contains(first.at);
        }
        if reach.is_first {
            reach.low = window.start().plus_micros(-CHAIN_MICROS);
        }
        reach
    }

    /// Whether amounts may be divided, given the other vehicles there.
    pub(super) fn is_shared(&self, others: &HashSet<VehicleKey>) -> bool {
        self.shares && !others.is_empty()
    }

    /// Further time in which other vehicles matter, because rule 3 ends when another vehicle arrives.
    fn unseen(&self, reach: Reach, window: Interval, now: Timestamp) -> Option<Interval> {
        let seen = self.looked(window, now);
        let seen = seen.as_slice().last()?.end();
        match self.by_same_id {
            true => Interval::new(seen, reach.high),
            false => None,
        }
    }
}

/// A vehicle at a meter, and what is known of both.
pub(super) struct Place<'a> {
    pub(super) vehicle: VehicleKey,
    pub(super) meter: MeterKey,
    pub(super) wanted: &'a Wanted,
    pub(super) others: &'a HashSet<VehicleKey>,
    pub(super) reach: Reach,
}

/// The other vehicles at a meter, by the vehicle of the question and the meter.
pub(super) type Others = HashMap<(i32, i32), HashSet<VehicleKey>>;

/// The vehicles that have the same id as a meter.
pub(super) type Owners = HashMap<MeterKey, VehicleKey>;

/// Loads the vehicles that have the same id as the shared meters.
pub(super) async fn owners(
    history: &History<'_>,
    places: &[Place<'_>],
) -> Result<Owners, AskError> {
    let shared = places.iter();
    let shared = shared.filter(|place| place.wanted.is_shared(place.others));
    let meters: Vec<i32> = shared.map(|place| place.meter.0).collect();
    if meters.is_empty() {
        return Ok(Owners::new());
    }
    let statement = history.work.prepare_cached(sql!("meter_owners")).await?;
    let rows = history.work.query(&statement, &[&meters]).await?;
    let owner =
        |row: &tokio_postgres::Row| Ok((MeterKey(row.try_get(0)?), VehicleKey(row.try_get(1)?)));
    rows.iter().map(owner).collect()
}

/// Loads the other vehicles at meters where rule 3 reaches beyond the time searched so far.
pub(super) async fn unseen(
    history: &History<'_>,
    places: &[Place<'_>],
    owners: &Owners,
    window: Interval,
    now: Timestamp,
) -> Result<Others, AskError> {
    let mut rows = Rows::default();
    for place in places {
        let owner = owners.get(&place.meter);
        let owner_is_there = place.wanted.is_shared(place.others)
            && owner.is_some_and(|owner| *owner == place.vehicle || place.others.contains(owner));
        let interval = match owner_is_there {
            true => Interval::new(place.reach.low, place.reach.high),
            false => place.wanted.unseen(place.reach, window, now),
        };
        if let Some(interval) = interval {
            rows.add(place.vehicle, place.meter, interval);
        }
    }
    let mut found = Others::new();
    let (Some(low), Some(high)) = (rows.starts.iter().min(), rows.ends.iter().max()) else {
        return Ok(found);
    };
    // A reading claims up to 15 minutes before it.
    let claims: Vec<Timestamp> = rows
        .ends
        .iter()
        .map(|end| end.plus_micros(CLAIM_MICROS_MAX))
        .collect();
    let high = high.plus_micros(CLAIM_MICROS_MAX);
    let named: [&(dyn ToSql + Sync); 6] = [
        &rows.vehicles,
        &rows.meters,
        &rows.starts,
        &claims,
        low,
        &high,
    ];
    let (with_session, named) = try_join(
        rows.with_session(history),
        found_by(history, sql!("fleet_named_at"), &named),
    )
    .await?;
    for (place, other) in with_session.into_iter().chain(named) {
        found.entry(place).or_default().insert(other);
    }
    Ok(found)
}

/// The times in which other vehicles at a meter matter: a row per vehicle, meter and interval.
#[derive(Debug, Default)]
pub(super) struct Rows {
    vehicles: Vec<i32>,
    meters: Vec<i32>,
    starts: Vec<Timestamp>,
    ends: Vec<Timestamp>,
}

impl Rows {
    pub(super) fn add(&mut self, vehicle: VehicleKey, meter: MeterKey, interval: Interval) {
        self.vehicles.push(vehicle.0);
        self.meters.push(meter.0);
        self.starts.push(interval.start());
        self.ends.push(interval.end());
    }

    /// Finds the other vehicles with a session there.
    pub(super) async fn with_session(
        &self,
        history: &History<'_>,
    ) -> Result<Vec<((i32, i32), VehicleKey)>, AskError> {
        let parameters: [&(dyn ToSql + Sync); 4] =
            [&self.vehicles, &self.meters, &self.starts, &self.ends];
        found_by(history, sql!("fleet_sessions_at"), &parameters).await
    }
}

async fn found_by(
    history: &History<'_>,
    text: &'static str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<((i32, i32), VehicleKey)>, AskError> {
    let statement = history.work.prepare_cached(text).await?;
    let rows = history.work.query(&statement, parameters).await?;
    let row = |row: &tokio_postgres::Row| {
        let place = (row.try_get(0)?, row.try_get(1)?);
        Ok((place, VehicleKey(row.try_get(2)?)))
    };
    rows.iter().map(row).collect()
}

/// The next lower bound in the search for the start of an attribution period, after a search down to `low` has
/// found `start`. `None` means that `start` is the true start, or that there are no older readings.
pub(super) async fn further_back(
    history: &History<'_>,
    window: Interval,
    low: Timestamp,
    start: Timestamp,
) -> Result<Option<Timestamp>, AskError> {
    let oldest = history.ranges(Stream::Vehicle).await?;
    let oldest = oldest.iter().map(|range| range.from).min();
    if start > low || oldest.is_none_or(|oldest| low <= oldest) {
        return Ok(None);
    }
    let so_far = window.start().as_micros().saturating_sub(low.as_micros());
    let low = low.plus_micros(-so_far.max(CHAIN_MICROS));
    Ok(Some(low.max(oldest.unwrap_or(low))))
}

/// Joins intervals that are less than a day apart.
pub(super) fn joined(intervals: &Intervals) -> Vec<Interval> {
    let mut joined: Vec<Interval> = Vec::new();
    for &interval in intervals.as_slice() {
        let close = joined
            .last()
            .filter(|last| interval.start() <= last.end().plus_micros(JOIN_MICROS))
            .and_then(|last| Interval::new(last.start(), interval.end()));
        match close {
            Some(both) => {
                joined.pop();
                joined.push(both);
            }
            None => joined.push(interval),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_less_than_a_day_apart_are_fetched_as_one() {
        let interval = |from: i64, to: i64| {
            let at = |hour: i64| Timestamp::from_micros(hour * 3_600_000_000);
            Interval::new(at(from), at(to)).unwrap()
        };
        let intervals = Intervals::from_iter([
            interval(0, 1),
            interval(20, 21),
            interval(45, 46),
            interval(71, 72),
        ]);
        assert_eq!(joined(&intervals), [interval(0, 46), interval(71, 72)]);
    }
}
