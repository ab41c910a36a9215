//! Charging sessions and shared meters, as stored.

use deadpool_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Error, Row};

use crate::postgres::ReadError;
use crate::reading::{ExternalId, Timestamp};

mod changes;

pub use changes::{end, post, post_each, share};

/// A charging session as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub session: String,
    /// Its vehicle.
    pub vehicle: String,
    /// Its meter.
    pub meter: String,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended; `None` while it is open.
    pub ended_at: Option<Timestamp>,
    vehicle_id: i32,
    meter_id: i32,
}

/// A session to store. Its end, if any, is after its start.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// Its id; `None` derives one from the vehicle, the meter and the start.
    pub session: Option<ExternalId<'a>>,
    /// Its vehicle.
    pub vehicle: ExternalId<'a>,
    /// Its meter.
    pub meter: ExternalId<'a>,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// Whether several vehicles may be at a meter at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MeterUse {
    /// One vehicle at a time.
    Single,
    /// Several vehicles at the same time.
    Shared,
}

impl From<bool> for MeterUse {
    fn from(is_shared: bool) -> Self {
        match is_shared {
            true => MeterUse::Shared,
            false => MeterUse::Single,
        }
    }
}

/// The outcome of a posted session.
#[derive(Debug)]
pub enum Posted {
    /// It was stored.
    New(Session),
    /// The same session was stored already.
    Same(Session),
}

/// A session that ended, through this request or earlier.
#[derive(Debug)]
pub struct Ended(pub Session);

/// A session that overlaps the requested one.
#[derive(Debug)]
pub struct Other {
    /// Its id.
    pub session: String,
    /// Its vehicle.
    pub vehicle: String,
    /// Its meter.
    pub meter: String,
}

/// Why a change was refused.
#[derive(Debug)]
pub enum Refused {
    /// No session has this id.
    Unknown,
    /// The end is not after the start.
    EndNotAfterStart,
    /// The id belongs to a session with other content.
    OtherContent,
    /// The session already ended, at this other time.
    EndedOtherwise(Timestamp),
    /// It overlaps this session of the same vehicle.
    OverlapsVehicle(Other),
    /// It overlaps this session at the same meter.
    OverlapsMeter(Other),
    /// The meter cannot become single-use, because sessions at it overlap.
    MeterInUse,
    /// An error of the database.
    Database(Error),
    /// The query did not reach the database.
    Read(ReadError),
}

impl From<ReadError> for Refused {
    fn from(error: ReadError) -> Self {
        Refused::Read(error)
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Refused::Database(error)
    }
}

impl Refused {
    /// Whether other transactions hold what this one needs, while the database serves as usual.
    pub fn is_blocked(&self) -> bool {
        let Refused::Database(error) = self else {
            return false;
        };
        self.is_transient() || error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
    }

    /// Whether trying the transaction again may succeed.
    fn is_transient(&self) -> bool {
        let transient = [
            &SqlState::T_R_SERIALIZATION_FAILURE,
            &SqlState::T_R_DEADLOCK_DETECTED,
        ];
        let Refused::Database(error) = self else {
            return false;
        };
        error.code().is_some_and(|code| transient.contains(&code))
    }
}

/// Finds a session.
///
/// # Errors
/// [`ReadError`]
pub async fn find(client: &Client, id: ExternalId<'_>) -> Result<Option<Session>, ReadError> {
    let find = client.prepare_cached(sql!("session_by_name")).await?;
    let row = client.query_opt(&find, &[&id.as_str()]).await?;
    Ok(row.map(|row| session(&row)).transpose()?)
}

/// Removes a session; returns whether there was one.
///
/// # Errors
/// [`ReadError`]
pub async fn delete(client: &Client, id: ExternalId<'_>) -> Result<bool, ReadError> {
    let delete = client.prepare_cached(sql!("session_delete")).await?;
    Ok(client.execute(&delete, &[&id.as_str()]).await? > 0)
}

pub(super) fn session(row: &Row) -> Result<Session, Error> {
    Ok(Session {
        session: row.try_get(0)?,
        vehicle: row.try_get(1)?,
        meter: row.try_get(2)?,
        started_at: row.try_get(3)?,
        ended_at: row.try_get(4)?,
        vehicle_id: row.try_get(5)?,
        meter_id: row.try_get(6)?,
    })
}
