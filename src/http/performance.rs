//! `GET /v1/analytics/performance/{vehicleId}`: how much of the energy paid for reached the
//! battery; also the energy of one session.

use deadpool_postgres::{Client, Object};
use hyper::StatusCode;
use jiff::tz::TimeZone;
use tokio::time::timeout;

use super::Context;
use super::database::{self, WORK_TIMEOUT};
use super::problem::{Kind, Problem};
use super::query::{self, Query};
use super::reply::{self, Reply};
use crate::analytics::queries::{Answer, AskError};
use crate::analytics::runs::Run;
use crate::analytics::series::{Bucket, buckets};
use crate::analytics::{Printed, window};
use crate::decode::timestamp;
use crate::reading::{ExternalId, Timestamp};

/// When to come again where other questions hold the memory.
const BUSY_RETRY_SECONDS: u64 = 2;
/// When to come again where a survey of the fleet is still being computed.
const SLOW_RETRY_SECONDS: u64 = 15;

impl From<AskError> for Problem {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Database(error) => error.into(),
            AskError::TooManyReadings => {
                Problem::new(Kind::BadParameter, error.to_string()).code("window_too_large")
            }
            AskError::Busy => {
                Problem::new(Kind::Overloaded, error.to_string()).retry_after(BUSY_RETRY_SECONDS)
            }
            AskError::TooSlow => {
                Problem::new(Kind::Overloaded, error.to_string()).retry_after(SLOW_RETRY_SECONDS)
            }
            AskError::Failed => Problem::new(Kind::Internal, error.to_string()),
        }
    }
}

/// One vehicle over a window; 404 only for one never seen.
pub(super) async fn one(context: &Context, id: &str, text: Option<&str>) -> Result<Reply, Problem> {
    let id = query::path_id(id)?;
    let query = Query::parse(text, &["from", "to", "bucket", "tz"])?;
    let now = Timestamp::now();
    let window = window_of(&query, now)?;
    let series = series_of(&query, window)?;
    let with_series = series.is_some();
    let client = database::client(&context.reads).await?;
    let parts = series.unwrap_or_default();
    let Some(answer) = ask(context, client, id, window, parts, now).await? else {
        return Err(Problem::new(
            Kind::NotFound,
            "no reading and no session of this vehicle was seen",
        ));
    };
    let bounds = context.analyst.judgement().bounds;
    let printed = Printed::new(&answer.performance, id.as_str(), answer.meter_ids, &bounds);
    let printed = match with_series {
        true => printed.with_series(&answer.parts),
        false => printed,
    };
    reply::json(StatusCode::OK, &printed)
}

/// Asks within the time that a request has.
pub(super) async fn ask(
    context: &Context,
    mut client: Client,
    vehicle: ExternalId<'_>,
    window: Run,
    parts: Vec<Run>,
    now: Timestamp,
) -> Result<Option<Answer>, Problem> {
    let asking = context
        .analyst
        .performance(&mut client, vehicle, window, parts, now);
    match timeout(WORK_TIMEOUT, asking).await {
        Ok(answer) => Ok(answer?),
        Err(_) => {
            // Statements are still on their way in it: nobody else is to wait behind them.
            drop(Object::take(client));
            Err(database::too_slow())
        }
    }
}

/// The window that a query asks for.
pub(super) fn window_of(query: &Query<'_>, now: Timestamp) -> Result<Run, Problem> {
    let (from, to) = (instant(query, "from")?, instant(query, "to")?);
    window::window(from, to, now).map_err(|why| query::bad(why.to_string()))
}

/// A parameter that is an instant.
pub(super) fn instant(query: &Query<'_>, name: &str) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = query.get(name) else {
        return Ok(None);
    };
    let at = timestamp::parse(text).ok_or_else(|| {
        query::bad(format!(
            "{name} must be an RFC 3339 time with an offset, a plus as %2B"
        ))
    })?;
    Ok(Some(at))
}

/// The parts of a window that a query asks for; `None` where it asks for no series.
pub(super) fn series_of(query: &Query<'_>, window: Run) -> Result<Option<Vec<Run>>, Problem> {
    let bucket = match query.get("bucket") {
        None if query.get("tz").is_some() => {
            return Err(query::bad("tz goes with bucket".to_owned()));
        }
        None => return Ok(None),
        Some("hour") => Bucket::Hour,
        Some("day") => Bucket::Day,
        Some(_) => return Err(query::bad("bucket must be hour or day".to_owned())),
    };
    let zone = match query.get("tz") {
        None => TimeZone::UTC,
        Some(name) => TimeZone::get(name).map_err(|_| {
            query::bad("tz must be a time zone of IANA, as Europe/Berlin".to_owned())
        })?,
    };
    Ok(Some(buckets(window, bucket, &zone)))
}
