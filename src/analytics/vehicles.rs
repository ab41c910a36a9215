//! Vehicles: their readings, their sessions, and the other vehicles at a meter.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use futures_util::future::try_join;

use super::AskError;
use super::budget::Lease;
use super::history::{History, RawVehicleReading};
use super::hour_rows::Readings;
use super::reach::{Place, Wanted};
use crate::energy::attribution::{
    CLAIM_MICROS_MAX, MeterKey, NamedPlace, Session, SessionKey, Vehicle, VehicleKey,
    VehicleReading,
};
use crate::energy::device::EnergyReading;
use crate::energy::hour::RolledUp;
use crate::energy::interval::{Interval, Intervals};
use crate::energy::question::{Meter, Question};
use crate::reading::{Stream, Timestamp};

/// Everything that one answer is computed from.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) vehicle: FetchedVehicle,
    pub(super) meters: Vec<FetchedMeter>,
    /// The other vehicles that may be at some of the meters; each appears once.
    pub(super) others: HashMap<i32, FetchedVehicle>,
    /// The external ids of the meters.
    pub(super) meter_ids: HashMap<i32, String>,
    /// Held as long as the readings.
    pub(super) lease: Option<Lease>,
}

/// A meter, with the other vehicles that may be there.
#[derive(Debug)]
pub(super) struct FetchedMeter {
    pub(super) key: MeterKey,
    pub(super) wanted: Wanted,
    pub(super) readings: Readings<EnergyReading>,
    /// The vehicle with the same id, if it matters.
    pub(super) owner: Option<VehicleKey>,
    pub(super) others: HashSet<VehicleKey>,
}

impl Fetched {
    /// Asks a question about what was fetched.
    pub(super) fn asked<R>(
        &self,
        window: Interval,
        now: Timestamp,
        suspect_watts: u64,
        ask: impl FnOnce(&Question<'_>) -> R,
    ) -> R {
        let others = |meter: &FetchedMeter| {
            let others = meter.others.iter();
            let others = others.filter_map(|other| self.others.get(&other.0));
            others.map(FetchedVehicle::borrow).collect()
        };
        let others: Vec<Vec<Vehicle<'_>>> = self.meters.iter().map(others).collect();
        let meters = self.meters.iter().zip(&others);
        let meters = meters.map(|(meter, others)| Meter {
            key: meter.key,
            owner: meter.owner,
            readings: &meter.readings.list,
            rolled_up: &meter.readings.rolled_up,
            others,
        });
        let meters: Vec<Meter<'_>> = meters.collect();
        ask(&Question {
            window,
            now,
            vehicle: self.vehicle.borrow(),
            meters: &meters,
            suspect_watts,
        })
    }

    /// How far the answer reaches at each meter. If a meter's first reading is divided, it goes back to
    /// `first_low`.
    pub(super) fn places<'a>(
        &'a self,
        window: Interval,
        now: Timestamp,
        first_low: Option<Timestamp>,
    ) -> Vec<Place<'a>> {
        let place = |meter: &'a FetchedMeter| {
            let readings = &meter.readings.list;
            let mut reach = meter.wanted.reach(readings, &meter.others, window, now);
            if let (true, Some(low)) = (reach.is_first, first_low) {
                reach.low = low;
            }
            Place {
                vehicle: self.vehicle.key,
                meter: meter.key,
                wanted: &meter.wanted,
                others: &meter.others,
                reach,
            }
        };
        self.meters.iter().map(place).collect()
    }
}

/// A vehicle, with what is known of it.
#[derive(Debug)]
pub(super) struct FetchedVehicle {
    pub(super) key: VehicleKey,
    pub(super) readings: Vec<VehicleReading>,
    pub(super) rolled_up: Vec<RolledUp>,
    pub(super) sessions: Vec<Session>,
}

impl FetchedVehicle {
    pub(super) fn borrow(&self) -> Vehicle<'_> {
        Vehicle {
            key: self.key,
            readings: &self.readings,
            rolled_up: &self.rolled_up,
            sessions: &self.sessions,
        }
    }
}

/// Fetches a vehicle's readings in a span, with neighbours, and the sessions that overlap it.
pub(super) async fn vehicle(
    history: &mut History<'_>,
    key: VehicleKey,
    span: Interval,
) -> Result<FetchedVehicle, AskError> {
    let mut one = vehicles(history, &BTreeMap::from([(key.0, span)])).await?;
    Ok(one.remove(&key.0).unwrap_or(FetchedVehicle {
        key,
        readings: Vec::new(),
        rolled_up: Vec::new(),
        sessions: Vec::new(),
    }))
}

/// The same for many vehicles, each with its own span.
pub(super) async fn vehicles(
    history: &mut History<'_>,
    spans: &BTreeMap<i32, Interval>,
) -> Result<HashMap<i32, FetchedVehicle>, AskError> {
    if spans.is_empty() {
        return Ok(HashMap::new());
    }
    let keys: Vec<i32> = spans.keys().copied().collect();
    let from = spans.values().map(|span| span.start()).min();
    let to = spans.values().map(|span| span.end()).max();
    let wanted = spans
        .iter()
        .map(|(&key, &span)| (key, vec![span]))
        .collect();
    let sessions = async {
        match from.zip(to) {
            Some((from, to)) => sessions(history, &keys, from, to).await,
            None => Ok(HashMap::new()),
        }
    };
    let (mut sessions, sought) =
        try_join(sessions, history.seek::<RawVehicleReading>(&wanted)).await?;
    // The start and the end of a session are edges of attribution periods.
    for (&device, of_device) in &sessions {
        let ends = of_device
            .iter()
            .flat_map(|s| [Some(s.started), s.ended])
            .flatten();
        history.exclude_at(Stream::Vehicle, device, ends);
    }
    let mut raw = history.settle(sought, &wanted).await?;
    let named: BTreeSet<i32> = raw
        .values()
        .flat_map(|readings| &readings.list)
        .filter_map(|r| r.named_session.map(|session| session.0))
        .collect();
    let places = named_places(history, &named).await?;
    let vehicle = |&key: &i32| {
        let raw = raw.remove(&key).unwrap_or_default();
        let fetched = FetchedVehicle {
            key: VehicleKey(key),
            readings: placed(raw.list, &places),
            rolled_up: raw.rolled_up,
            sessions: sessions.remove(&key).unwrap_or_default(),
        };
        (key, fetched)
    };
    Ok(keys.iter().map(vehicle).collect())
}

/// Readings, with the meters of the sessions that they name.
fn placed(
    raw: Vec<RawVehicleReading>,
    places: &HashMap<SessionKey, MeterKey>,
) -> Vec<VehicleReading> {
    let place = |raw: RawVehicleReading| {
        let mut reading = raw.reading;
        if let Some(session) = raw.named_session
            && let Some(meter) = places.get(&session)
        {
            reading.place = Some(NamedPlace::Session(session, *meter));
        }
        reading
    };
    raw.into_iter().map(place).collect()
}

/// The meters of the sessions that readings name. A session that is not known has none.
async fn named_places(
    history: &History<'_>,
    named: &BTreeSet<i32>,
) -> Result<HashMap<SessionKey, MeterKey>, AskError> {
    if named.is_empty() {
        return Ok(HashMap::new());
    }
    let named: Vec<i32> = named.iter().copied().collect();
    let work = history.work;
    let statement = work
        .prepare_cached(sql!("performance_named_sessions"))
        .await?;
    let rows = work.query(&statement, &[&named]).await?;
    let place =
        |row: &tokio_postgres::Row| Ok((SessionKey(row.try_get(0)?), MeterKey(row.try_get(1)?)));
    rows.iter().map(place).collect()
}

/// The sessions of the given vehicles that overlap (from, to].
async fn sessions(
    history: &History<'_>,
    keys: &[i32],
    from: Timestamp,
    to: Timestamp,
) -> Result<HashMap<i32, Vec<Session>>, AskError> {
    let work = history.work;
    let statement = work.prepare_cached(sql!("performance_sessions")).await?;
    let rows = work.query(&statement, &[&keys, &from, &to]).await?;
    let mut sessions: HashMap<i32, Vec<Session>> = HashMap::new();
    for row in &rows {
        sessions.entry(row.try_get(0)?).or_default().push(Session {
            key: SessionKey(row.try_get(1)?),
            meter: MeterKey(row.try_get(2)?),
            started: row.try_get(3)?,
            ended: row.try_get(4)?,
        });
    }
    Ok(sessions)
}

/// The other vehicles that are at a meter in the given intervals, by a session or a reading.
pub(super) async fn others(
    history: &History<'_>,
    meter: MeterKey,
    own: VehicleKey,
    intervals: &Intervals,
) -> Result<Vec<VehicleKey>, AskError> {
    let (Some(first), Some(last)) = (intervals.as_slice().first(), intervals.as_slice().last())
    else {
        return Ok(Vec::new());
    };
    let starts: Vec<Timestamp> = intervals
        .as_slice()
        .iter()
        .map(|interval| interval.start())
        .collect();
    let ends: Vec<Timestamp> = intervals
        .as_slice()
        .iter()
        .map(|interval| interval.end())
        .collect();
    let (low, high) = (first.start(), last.end().plus_micros(CLAIM_MICROS_MAX));
    let work = history.work;
    let statement = work.prepare_cached(sql!("performance_others")).await?;
    let rows = work
        .query(&statement, &[&meter.0, &own.0, &starts, &ends, &low, &high])
        .await?;
    let key = |row: &tokio_postgres::Row| Ok(VehicleKey(row.try_get(0)?));
    rows.iter().map(key).collect()
}

/// The external ids of the given meters.
pub(super) async fn meter_ids(
    work: &deadpool_postgres::Transaction<'_>,
    keys: &[i32],
) -> Result<HashMap<i32, String>, AskError> {
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let statement = work.prepare_cached(sql!("fleet_meter_names")).await?;
    let rows = work.query(&statement, &[&keys]).await?;
    let name = |row: &tokio_postgres::Row| Ok((row.try_get(0)?, row.try_get(1)?));
    rows.iter().map(name).collect()
}
