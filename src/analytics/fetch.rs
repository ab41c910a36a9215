//! Fetches what the answer for one vehicle depends on.

use std::collections::HashMap;

use futures_util::future::try_join;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio_postgres::Row;

use super::AskError;
use super::history::History;
use super::hour_rows::Readings;
use super::reach;
use super::reach::{BEHIND_MICROS, joined};
use super::vehicles;
use super::vehicles::{Fetched, FetchedMeter, meter_ids};
use crate::energy::answer::divided_since;
use crate::energy::attribution::{CLAIM_MICROS_MAX, MeterKey, VehicleKey};
use crate::energy::device::{EnergyReading, SUSPECT_WATTS_DEFAULT};
use crate::energy::interval::{Interval, Intervals};
use crate::energy::plan;
use crate::reading::{ExternalId, Stream, Timestamp};

/// How many meters are fetched at the same time.
const METERS_AT_ONCE: usize = 8;

/// Fetches what [`Question`](crate::energy::Question) requires; `None` for an unknown vehicle.
///
/// A meter's readings are fetched only for the intervals in which the vehicle was there, with their neighbours,
/// because no other energy can be credited to it. Other vehicles are fetched only if they are at a meter at the
/// same time as this one (by rule 3: at a time when this one could be there). Only those can share an amount with
/// it.
pub(super) async fn fetch(
    history: &mut History<'_>,
    id: ExternalId<'_>,
    window: Interval,
    now: Timestamp,
) -> Result<Option<Fetched>, AskError> {
    let Some(row) = known(history, id).await? else {
        return Ok(None);
    };
    let key = VehicleKey(row.try_get(0)?);
    let has_session: bool = row.try_get(1)?;
    let same_id_meter: Option<i32> = row.try_get(2)?;
    let behind = window.end().plus_micros(BEHIND_MICROS);
    let span = Interval::new(window.start(), behind).unwrap_or(window);
    let vehicle = vehicles::vehicle(history, key, span).await?;
    if vehicle.readings.is_empty() && !has_session {
        return Ok(None);
    }
    let plan = plan(&vehicle.borrow(), window, now);
    let same_id = same_id_meter.map(MeterKey).filter(|_| plan.asks_same_id);
    let wanted = reach::wanted(plan, same_id, window);
    for (meter, wanted) in &wanted {
        let intervals = wanted.intervals.as_slice().iter();
        let ends = intervals.flat_map(|r| [r.start(), r.end()]);
        history.exclude_at(Stream::Meter, meter.0, ends);
    }
    let shared: &History<'_> = history;
    let mut at = Vec::with_capacity(wanted.len());
    for (&meter, wanted) in &wanted {
        let looked = wanted.looked(window, now);
        at.push(at_meter(shared, meter, key, &wanted.intervals, looked));
    }
    let at = stream::iter(at).buffered(METERS_AT_ONCE).try_collect();
    let keys: Vec<i32> = wanted.keys().map(|meter| meter.0).collect();
    let (at, meter_ids): (Vec<_>, _) = try_join(at, meter_ids(shared.work, &keys)).await?;
    let mut meters = Vec::with_capacity(wanted.len());
    for ((key, wanted), (readings, others)) in wanted.into_iter().zip(at) {
        meters.push(FetchedMeter {
            key,
            wanted,
            readings,
            owner: None,
            others: others.into_iter().collect(),
        });
    }
    let fetched = Fetched {
        vehicle,
        meters,
        others: HashMap::new(),
        meter_ids,
        lease: None,
    };
    complete(history, fetched, window, now).await.map(Some)
}

/// Fetches what lies beyond the window, as far as the meters' readings require, and the other vehicles that may be
/// at the meters.
async fn complete(
    history: &mut History<'_>,
    mut fetched: Fetched,
    window: Interval,
    now: Timestamp,
) -> Result<Fetched, AskError> {
    let key = fetched.vehicle.key;
    let behind = window.end().plus_micros(BEHIND_MICROS);
    // How far back to search if the first reading ever of a meter is divided among vehicles.
    let mut first_low: Option<Timestamp> = None;
    loop {
        let places = fetched.places(window, now, first_low);
        let owners = reach::owners(history, &places).await?;
        let mut unseen = reach::unseen(history, &places, &owners, window, now).await?;
        let low = places.iter().map(|place| place.reach.low).min();
        let high = places.iter().map(|place| place.reach.high).max();
        let is_first = places.iter().any(|place| place.reach.is_first);
        let low = low.unwrap_or(window.start()).min(window.start());
        let high = high.map_or(behind, |high| {
            high.plus_micros(CLAIM_MICROS_MAX).max(behind)
        });
        for meter in &mut fetched.meters {
            meter.owner = owners.get(&meter.key).copied();
            if meter.wanted.by_same_id {
                meter.owner = Some(key);
            }
            meter
                .others
                .extend(unseen.remove(&(key.0, meter.key.0)).unwrap_or_default());
        }
        let span = Interval::new(low, high).unwrap_or(window);
        if low < window.start() || high > behind {
            fetched.vehicle = vehicles::vehicle(history, key, span).await?;
        }
        // A vehicle that is at several meters is fetched once.
        let others = fetched.meters.iter().flat_map(|meter| &meter.others);
        let others = others.map(|other| (other.0, span)).collect();
        fetched.others = vehicles::vehicles(history, &others).await?;
        if !is_first {
            return Ok(fetched);
        }
        let start = fetched.asked(window, now, SUSPECT_WATTS_DEFAULT, divided_since);
        let further = match start {
            Some(start) => reach::further_back(history, window, low, start).await?,
            None => None,
        };
        match further {
            Some(low) => first_low = Some(low),
            None => return Ok(fetched),
        }
    }
}

/// Looks up a vehicle, and loads the partitions in the same round trip, because round trips are slow on a busy
/// machine.
async fn known(history: &History<'_>, id: ExternalId<'_>) -> Result<Option<Row>, AskError> {
    let vehicle = async {
        let statement = history.work.prepare_cached(sql!("performance_vehicle"));
        let statement = statement.await?;
        Ok(history.work.query_opt(&statement, &[&id.as_str()]).await?)
    };
    let (row, _) = try_join(vehicle, history.ranges(Stream::Vehicle)).await?;
    Ok(row)
}

/// A meter's readings while a vehicle was there, and the other vehicles there.
async fn at_meter(
    history: &History<'_>,
    meter: MeterKey,
    vehicle: VehicleKey,
    intervals: &Intervals,
    looked: Intervals,
) -> Result<(Readings<EnergyReading>, Vec<VehicleKey>), AskError> {
    let spans = joined(intervals);
    let readings = history.around::<EnergyReading>(meter.0, &spans);
    try_join(readings, vehicles::others(history, meter, vehicle, &looked)).await
}
