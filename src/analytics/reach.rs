//! How far beyond its window an answer reaches: in time, and to whom.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures_util::future::try_join;
use tokio_postgres::types::ToSql;

use super::history::History;
use super::{AskError, BEHIND_MICROS};
use crate::energy::attribution::{CLAIM_MICROS_MAX, MeterKey, VehicleKey};
use crate::energy::device::EnergyReading;
use crate::energy::interval::{Run, Runs};
use crate::energy::question::Plan;
use crate::energy::window::DAY_MICROS;
use crate::reading::{EnergyKind, Stream, Timestamp};

/// How far back from a window the start of an attribution period is looked for at first, where a
/// meter's first reading ever is divided among several vehicles.
const CHAIN_MICROS: i64 = DAY_MICROS;

/// A meter where a vehicle is in the window, or may be by rule 3.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// When, within the window: the meter's readings are fetched around it.
    pub(super) runs: Runs,
    /// Rules 1 or 2 put the vehicle there: it may share.
    shares: bool,
    /// The meter has the vehicle's id, and rule 3 may apply.
    pub(super) by_same_id: bool,
}

/// Says at which meters a vehicle is, or may be.
pub(super) fn wanted(
    plan: Plan,
    same_id: Option<MeterKey>,
    window: Run,
) -> BTreeMap<MeterKey, Wanted> {
    let named = |(meter, runs)| {
        let wanted = Wanted {
            runs,
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
                runs: Runs::from_iter([window]),
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
    /// From when on the vehicles' readings and sessions matter.
    pub(super) low: Timestamp,
    /// Up to which reading of the meter they matter.
    pub(super) high: Timestamp,
    /// The meter's first reading ever is divided: `low` is only where the search begins.
    pub(super) is_first: bool,
}

impl Wanted {
    /// When it matters at first that others are there. By rule 3, one that comes after the window
    /// and before the meter's next reading matters too; nearly always that reading is near.
    pub(super) fn looked(&self, window: Run, now: Timestamp) -> Runs {
        if !self.by_same_id {
            return self.runs.clone();
        }
        let behind = window.end().plus_micros(BEHIND_MICROS - CLAIM_MICROS_MAX);
        let end = behind.min(now).max(window.end());
        Run::new(window.start(), end).into_iter().collect()
    }

    /// Says how far the answer reaches, given the meter's readings and whether others are there.
    pub(super) fn reach(
        &self,
        readings: &[EnergyReading],
        with_others: bool,
        window: Run,
        now: Timestamp,
    ) -> Reach {
        let mut reach = Reach {
            low: window.start(),
            high: window.end(),
            is_first: false,
        };
        // A period that goes on behind the window is followed to the meter's next reading.
        let last_run = self.runs.as_slice().last();
        let next = readings.partition_point(|reading| reading.at <= window.end());
        if let Some(next) = readings.get(next)
            && last_run.is_some_and(|run| run.end() == window.end())
            && next.energy.kind == EnergyKind::Interval
            && next.at <= now
        {
            reach.high = next.at;
        }
        if !self.is_shared(with_others) {
            return reach;
        }
        if let (Some(first), Some(last)) = (readings.first(), readings.last()) {
            reach.low = reach.low.min(first.at);
            reach.high = reach.high.max(last.at);
            reach.is_first =
                first.energy.kind == EnergyKind::Interval && self.runs.contains(first.at);
        }
        if reach.is_first {
            reach.low = window.start().plus_micros(-CHAIN_MICROS);
        }
        reach
    }

    /// Tells whether amounts may be divided, given whether others are there.
    pub(super) fn is_shared(&self, with_others: bool) -> bool {
        self.shares && with_others
    }

    /// When else it matters who is there: rule 3 of the vehicle asked for, or of another that is
    /// there and has the meter's id, ends where another vehicle comes.
    fn unseen(
        &self,
        reach: Reach,
        owner_is_there: bool,
        window: Run,
        now: Timestamp,
    ) -> Option<Run> {
        if owner_is_there {
            return Run::new(reach.low, reach.high);
        }
        let seen = self.looked(window, now);
        let seen = seen.as_slice().last()?.end();
        match self.by_same_id {
            true => Run::new(seen, reach.high),
            false => None,
        }
    }
}

/// A vehicle at a meter, with what is known of both.
pub(super) struct Place<'a> {
    pub(super) vehicle: VehicleKey,
    pub(super) meter: MeterKey,
    pub(super) wanted: &'a Wanted,
    pub(super) others: &'a HashSet<VehicleKey>,
    pub(super) reach: Reach,
}

/// The vehicles at a meter, by the vehicle in question and the meter.
pub(super) type Others = HashMap<(i32, i32), HashSet<VehicleKey>>;

/// The vehicles with the ids of some meters.
pub(super) type Owners = HashMap<MeterKey, VehicleKey>;

/// Loads the vehicles with the ids of those meters that are shared.
pub(super) async fn owners(
    history: &History<'_>,
    places: &[Place<'_>],
) -> Result<Owners, AskError> {
    let shared = places.iter();
    let shared = shared.filter(|place| place.wanted.is_shared(!place.others.is_empty()));
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

/// Loads who else is at meters where rule 3 reaches beyond what was looked at so far.
pub(super) async fn unseen(
    history: &History<'_>,
    places: &[Place<'_>],
    owners: &Owners,
    window: Run,
    now: Timestamp,
) -> Result<Others, AskError> {
    let mut rows = Rows::default();
    for place in places {
        let owner = owners.get(&place.meter);
        let owner_is_there = place.wanted.is_shared(!place.others.is_empty())
            && owner.is_some_and(|owner| *owner == place.vehicle || place.others.contains(owner));
        let wanted = place.wanted;
        if let Some(run) = wanted.unseen(place.reach, owner_is_there, window, now) {
            rows.add(place.vehicle, place.meter, run);
        }
    }
    let mut found = Others::new();
    let (Some(low), Some(high)) = (rows.starts.iter().min(), rows.ends.iter().max()) else {
        return Ok(found);
    };
    // A reading claims up to 15 minutes before itself.
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

/// When it matters who else is at a meter: a row a vehicle, a meter and a run.
#[derive(Debug, Default)]
pub(super) struct Rows {
    vehicles: Vec<i32>,
    meters: Vec<i32>,
    starts: Vec<Timestamp>,
    ends: Vec<Timestamp>,
}

impl Rows {
    pub(super) fn add(&mut self, vehicle: VehicleKey, meter: MeterKey, run: Run) {
        self.vehicles.push(vehicle.0);
        self.meters.push(meter.0);
        self.starts.push(run.start());
        self.ends.push(run.end());
    }

    /// Who else has a session there.
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

/// Goes further back from a window, where the search for the start of an attribution period has
/// come to `low` and that start lies at `start`; `None` where no reading is older.
pub(super) async fn further_back(
    history: &History<'_>,
    window: Run,
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
