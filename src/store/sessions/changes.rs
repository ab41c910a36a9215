//! Changes of charging sessions and meters. The rules are decided in the database.
//!
//! Every change locks the vehicle's registry row, then the meter's, and only then reads what is stored. So changes
//! to the sessions of one vehicle or one meter are serialised, across gateways too, and the fixed order prevents
//! deadlocks.

use std::time::{Duration, Instant};

use deadpool_postgres::{Client, Transaction};
use tokio_postgres::{Error, IsolationLevel, Row};

use super::{Ended, MeterUse, Other, Posted, Refused, Session, Wanted, session};
use crate::postgres::ReadError;
use crate::postgres::registry::Registry;
use crate::reading::{ExternalId, Timestamp};
use crate::store::ids::registered;

/// How often to try a transaction that the database aborted in favour of another.
const TRIES: u32 = 3;

/// Where the id of a posted session comes from.
#[derive(Debug, Clone, Copy)]
enum Name {
    Given,
    Derived,
}

/// Stores a session, unless it is stored already or breaks a rule.
///
/// Blocks: until COMMIT
/// Cancel: the session may or may not be stored; repeat the request to find out
///
/// # Errors
/// [`Refused`]
pub async fn post(client: &mut Client, wanted: &Wanted<'_>) -> Result<Posted, Refused> {
    let vehicle_id = registered(client, Registry::Vehicles, wanted.vehicle.as_str()).await?;
    let meter_id = registered(client, Registry::Meters, wanted.meter.as_str()).await?;
    let (text, name) = match wanted.session {
        Some(id) => (id.as_str().to_owned(), Name::Given),
        None => (derived_name(client, wanted).await?, Name::Derived),
    };
    let session_id = registered(client, Registry::Sessions, &text).await?;
    let session = Session {
        session: text,
        vehicle: wanted.vehicle.as_str().to_owned(),
        meter: wanted.meter.as_str().to_owned(),
        started_at: wanted.started_at,
        ended_at: wanted.ended_at,
        vehicle_id,
        meter_id,
    };
    for _ in 1..TRIES {
        match try_post(client, &session, session_id, name).await {
            Err(refused) if refused.is_transient() => {}
            done => return done,
        }
    }
    try_post(client, &session, session_id, name).await
}

/// Stores sessions one after the other, each as [`post`] does, until the time is up. Returns the outcome of each that was
/// tried.
///
/// Order:  that of `wanted`; shorter if the time was up
/// Blocks: until each has its COMMIT; a session that began within the time is finished
/// Cancel: those before are stored; repeating all is safe
///
/// # Errors
/// [`ReadError`]: the database failed, and those before are stored.
pub async fn post_each(
    client: &mut Client,
    wanted: &[Wanted<'_>],
    within: Duration,
) -> Result<Vec<Result<Posted, Refused>>, ReadError> {
    let began = Instant::now();
    let mut outcomes = Vec::with_capacity(wanted.len());
    for wanted in wanted {
        if began.elapsed() > within {
            break;
        }
        match post(client, wanted).await {
            Err(refused) if refused.is_blocked() => outcomes.push(Err(refused)),
            Err(Refused::Database(error)) => return Err(error.into()),
            Err(Refused::Read(error)) => return Err(error),
            outcome => outcomes.push(outcome),
        }
    }
    Ok(outcomes)
}

async fn try_post(
    client: &mut Client,
    wanted: &Session,
    session_id: i32,
    name: Name,
) -> Result<Posted, Refused> {
    let work = transaction(client).await?;
    let meter_use = lock(&work, wanted.vehicle_id, wanted.meter_id).await?;
    let there = match name {
        Name::Given => by_name(&work, &wanted.session).await?,
        Name::Derived => by_content(&work, wanted).await?,
    };
    if let Some(there) = there {
        return if is_same(&there, wanted) {
            Ok(Posted::Same(there))
        } else {
            Err(Refused::OtherContent)
        };
    }
    refuse_overlaps(&work, wanted, meter_use).await?;
    let insert = work.prepare_cached(sql!("session_insert")).await?;
    let started_at = wanted.started_at;
    let ended_at = wanted.ended_at;
    let inserted = work
        .execute(
            &insert,
            &[
                &session_id,
                &wanted.vehicle_id,
                &wanted.meter_id,
                &started_at,
                &ended_at,
            ],
        )
        .await?;
    if inserted == 0 {
        // Another request has just stored this id with another vehicle or meter.
        return Err(Refused::OtherContent);
    }
    work.commit().await?;
    Ok(Posted::New(wanted.clone()))
}

/// Whether a posted session equals the stored one. If it has no end it repeats the start of the stored one, which
/// may have ended since.
fn is_same(there: &Session, wanted: &Session) -> bool {
    there.vehicle_id == wanted.vehicle_id
        && there.meter_id == wanted.meter_id
        && there.started_at == wanted.started_at
        && (wanted.ended_at.is_none() || wanted.ended_at == there.ended_at)
}

/// Ends a session, unless it has ended or this breaks a rule.
///
/// Blocks: until COMMIT
/// Cancel: the session may or may not have ended; repeat the request to find out
///
/// # Errors
/// [`Refused`]
pub async fn end(client: &mut Client, id: ExternalId<'_>, at: Timestamp) -> Result<Ended, Refused> {
    for _ in 1..TRIES {
        match try_end(client, id, at).await {
            Err(refused) if refused.is_transient() => {}
            done => return done,
        }
    }
    try_end(client, id, at).await
}

async fn try_end(client: &mut Client, id: ExternalId<'_>, at: Timestamp) -> Result<Ended, Refused> {
    let work = transaction(client).await?;
    let before = by_name(&work, id.as_str()).await?.ok_or(Refused::Unknown)?;
    let meter_use = lock(&work, before.vehicle_id, before.meter_id).await?;
    // The session may have changed before the locks were held. Its vehicle and meter can change only if it is
    // deleted and created again, and then it is another session.
    let there = by_name(&work, id.as_str()).await?.ok_or(Refused::Unknown)?;
    if (there.vehicle_id, there.meter_id) != (before.vehicle_id, before.meter_id) {
        return Err(Refused::OtherContent);
    }
    match there.ended_at {
        Some(ended) if ended == at => return Ok(Ended(there)),
        Some(ended) => return Err(Refused::EndedOtherwise(ended)),
        None if at <= there.started_at => return Err(Refused::EndNotAfterStart),
        None => {}
    }
    let ended = Session {
        ended_at: Some(at),
        ..there
    };
    refuse_overlaps(&work, &ended, meter_use).await?;
    let update = work.prepare_cached(sql!("session_end")).await?;
    if work.execute(&update, &[&ended.session, &at]).await? == 0 {
        // It was deleted in between, because a deletion takes no lock.
        return Err(Refused::Unknown);
    }
    work.commit().await?;
    Ok(Ended(ended))
}

/// Declares whether several vehicles may be at a meter at the same time.
///
/// Blocks: until COMMIT
///
/// # Errors
/// [`Refused`]
pub async fn share(
    client: &mut Client,
    meter: ExternalId<'_>,
    meter_use: MeterUse,
) -> Result<(), Refused> {
    let meter_id = registered(client, Registry::Meters, meter.as_str()).await?;
    let work = transaction(client).await?;
    let lock = work.prepare_cached(sql!("session_lock_meter")).await?;
    work.query_one(&lock, &[&meter_id]).await?;
    if meter_use == MeterUse::Single {
        let overlap = work.prepare_cached(sql!("meter_overlap")).await?;
        if work.query_opt(&overlap, &[&meter_id]).await?.is_some() {
            return Err(Refused::MeterInUse);
        }
    }
    let update = work.prepare_cached(sql!("meter_share")).await?;
    let is_shared = meter_use == MeterUse::Shared;
    work.execute(&update, &[&meter_id, &is_shared]).await?;
    work.commit().await?;
    Ok(())
}

/// Begins a change at read committed. After waiting for a lock, a statement must see what was committed during the
/// wait. With a single snapshot, sessions could overlap.
async fn transaction(client: &mut Client) -> Result<Transaction<'_>, Error> {
    client
        .build_transaction()
        .isolation_level(IsolationLevel::ReadCommitted)
        .start()
        .await
}

/// Locks a vehicle, then a meter. Returns whether the meter is shared.
async fn lock(work: &Transaction<'_>, vehicle_id: i32, meter_id: i32) -> Result<MeterUse, Error> {
    let vehicle = work.prepare_cached(sql!("session_lock_vehicle")).await?;
    work.query_one(&vehicle, &[&vehicle_id]).await?;
    let meter = work.prepare_cached(sql!("session_lock_meter")).await?;
    let row = work.query_one(&meter, &[&meter_id]).await?;
    Ok(MeterUse::from(row.try_get::<_, bool>(0)?))
}

async fn refuse_overlaps(
    work: &Transaction<'_>,
    wanted: &Session,
    meter_use: MeterUse,
) -> Result<(), Refused> {
    let by_vehicle = work.prepare_cached(sql!("session_overlap_vehicle")).await?;
    let (from, to) = (wanted.started_at, wanted.ended_at);
    let name = &wanted.session;
    let row = work
        .query_opt(&by_vehicle, &[&wanted.vehicle_id, &from, &to, name])
        .await?;
    if let Some(row) = row {
        return Err(Refused::OverlapsVehicle(other(&row)?));
    }
    if meter_use == MeterUse::Shared {
        return Ok(());
    }
    let by_meter = work.prepare_cached(sql!("session_overlap_meter")).await?;
    match work
        .query_opt(&by_meter, &[&wanted.meter_id, &from, &to, name])
        .await?
    {
        Some(row) => Err(Refused::OverlapsMeter(other(&row)?)),
        None => Ok(()),
    }
}

fn other(row: &Row) -> Result<Other, Error> {
    Ok(Other {
        session: row.try_get(0)?,
        vehicle: row.try_get(1)?,
        meter: row.try_get(2)?,
    })
}

async fn by_name(work: &Transaction<'_>, name: &str) -> Result<Option<Session>, Error> {
    let find = work.prepare_cached(sql!("session_by_name")).await?;
    work.query_opt(&find, &[&name])
        .await?
        .map(|row| session(&row))
        .transpose()
}

async fn by_content(work: &Transaction<'_>, wanted: &Session) -> Result<Option<Session>, Error> {
    let find = work.prepare_cached(sql!("session_by_content")).await?;
    let started_at = wanted.started_at;
    work.query_opt(&find, &[&wanted.vehicle_id, &wanted.meter_id, &started_at])
        .await?
        .map(|row| session(&row))
        .transpose()
}

async fn derived_name(client: &Client, wanted: &Wanted<'_>) -> Result<String, Error> {
    let derive = client.prepare_cached(sql!("session_derive_name")).await?;
    let (vehicle, meter) = (wanted.vehicle.as_str(), wanted.meter.as_str());
    let micros = wanted.started_at.as_micros();
    client
        .query_one(&derive, &[&vehicle, &meter, &micros])
        .await?
        .try_get(0)
}
