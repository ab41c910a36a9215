//! `GET /v1/analytics/performance/{vehicleId}`: how much of the energy paid for reached the
//! battery; also the energy of one session.

use deadpool_postgres::{Client, Object};
use hyper::StatusCode;
use tokio::time::timeout;

use super::Context;
use super::database::{self, WORK_TIMEOUT};
use super::problem::{Kind, Problem};
use super::query::{self, Query};
use super::reply::{self, Reply};
use crate::analytics::queries::{Answer, AskError};
use crate::analytics::runs::Run;
use crate::analytics::{Printed, StatusBounds, window};
use crate::decode::timestamp;
use crate::reading::{ExternalId, Timestamp};

/// When to come again where other questions hold the memory.
const BUSY_RETRY_SECONDS: u64 = 2;

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
            AskError::Failed => Problem::new(Kind::Internal, error.to_string()),
        }
    }
}

/// One vehicle over a window; 404 only for one never seen.
pub(super) async fn one(context: &Context, id: &str, text: Option<&str>) -> Result<Reply, Problem> {
    let id = query::path_id(id)?;
    let query = Query::parse(text, &["from", "to"])?;
    let now = Timestamp::now();
    let window = window_of(&query, now)?;
    let client = database::client(&context.reads).await?;
    let answer = ask(context, client, id, window, now).await?;
    let Some(Answer {
        performance,
        meter_ids,
    }) = answer
    else {
        return Err(Problem::new(
            Kind::NotFound,
            "no reading and no session of this vehicle was seen",
        ));
    };
    let bounds = StatusBounds::default();
    let printed = Printed::new(&performance, id.as_str(), meter_ids, &bounds);
    reply::json(StatusCode::OK, &printed)
}

/// Asks within the time that a request has.
pub(super) async fn ask(
    context: &Context,
    mut client: Client,
    vehicle: ExternalId<'_>,
    window: Run,
    now: Timestamp,
) -> Result<Option<Answer>, Problem> {
    let asking = context
        .analyst
        .performance(&mut client, vehicle, window, now);
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
    let instant = |name: &str| -> Result<Option<Timestamp>, Problem> {
        let Some(text) = query.get(name) else {
            return Ok(None);
        };
        let at = timestamp::parse(text).ok_or_else(|| {
            query::bad(format!(
                "{name} must be an RFC 3339 time with an offset, a plus as %2B"
            ))
        })?;
        Ok(Some(at))
    };
    window::window(instant("from")?, instant("to")?, now).map_err(|why| query::bad(why.to_string()))
}
