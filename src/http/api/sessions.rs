//! `/v1/sessions`: which vehicle charged at which meter, and when.
//!
//! `store::sessions` checks the rules in database transactions, so that of two overlapping sessions only one is
//! accepted, even by two gateways.

use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use super::energy_view::ChargeView;
use super::session_body::field_time;
use crate::energy::interval::Interval;
use crate::http::request::auth::owns_session;
use crate::http::request::call::Call;
use crate::http::request::query;
use crate::http::response::json;
use crate::http::response::problem::{Kind, Problem};
use crate::http::response::reply;
use crate::http::response::reply::Reply;
use crate::postgres::ReadError;
use crate::reading::{ExternalId, Timestamp};
use crate::store::sessions::{self, Ended, Refused, Session};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EndBody {
    ended_at: String,
}

/// The JSON of a session.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct View<'a> {
    session_id: &'a str,
    vehicle_id: &'a str,
    meter_id: &'a str,
    started_at: String,
    ended_at: Option<String>,
}

#[derive(Serialize)]
pub(super) struct ViewWithEnergy<'a> {
    #[serde(flatten)]
    pub(super) session: View<'a>,
    #[serde(flatten)]
    pub(super) energy: Option<ChargeView<'a>>,
    /// Why there is no energy although it was requested.
    #[serde(rename = "energyReason", skip_serializing_if = "Option::is_none")]
    pub(super) energy_reason: Option<&'static str>,
}

impl<'a> From<&'a Session> for View<'a> {
    fn from(session: &'a Session) -> Self {
        View {
            session_id: &session.session,
            vehicle_id: &session.vehicle,
            meter_id: &session.meter,
            started_at: session.started_at.to_string(),
            ended_at: session.ended_at.map(|at| at.to_string()),
        }
    }
}

/// A refusal as this caller may see it, without the id of a session that belongs to another key.
pub(super) fn redacted(refused: Refused, prefix: Option<&str>) -> Problem {
    match &refused {
        Refused::OverlapsVehicle(other) | Refused::OverlapsMeter(other)
            if !owns_session(prefix, &other.vehicle, &other.meter) =>
        {
            conflict("the session overlaps a session of other devices").code("overlap")
        }
        _ => refused.into(),
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Unknown => unknown(),
            Refused::EndNotAfterStart => invalid("endedAt must be after startedAt", "out_of_range"),
            Refused::OtherContent => {
                conflict("a session with this id but other values exists; use another id")
            }
            Refused::EndedOtherwise(at) => conflict(format!("the session already ended at {at}")),
            Refused::OverlapsVehicle(other) => {
                let session = other.session;
                conflict(format!(
                    "the session overlaps the vehicle's session {session}"
                ))
                .code("overlap")
            }
            Refused::OverlapsMeter(other) => {
                let session = other.session;
                let detail = format!(
                    "the session overlaps session {session} at this meter, which is not declared \
                     shared"
                );
                conflict(detail).code("overlap")
            }
            Refused::MeterInUse => {
                let detail = "sessions at this meter overlap, so it must stay declared shared";
                conflict(detail).code("overlap")
            }
            Refused::Database(error) => ReadError::from(error).into(),
            Refused::Read(error) => error.into(),
        }
    }
}

/// Ends a session.
pub(crate) async fn end(mut call: Call<'_>) -> Result<Reply, Problem> {
    let document = call.document().await?;
    let id = query::path_id(call.id)?;
    let body: EndBody = json::parse(&document.bytes)?;
    let at = field_time("endedAt", &body.ended_at)?;
    check_own(&call, id).await?;
    let (reads, prefix) = (call.context.reads.primary(), call.caller.prefix());
    let ended = reads.ask(async |client| sessions::end(client, id, at).await);
    let Ended(session) = ended.await.map_err(|refused| redacted(refused, prefix))?;
    json::reply(StatusCode::OK, &View::from(&session))
}

/// Responds with one session and the energy of its vehicle during it. An open session counts until now.
pub(crate) async fn get(call: Call<'_>) -> Result<Reply, Problem> {
    let context = call.context;
    let (reads, id) = (call.reads(), query::path_id(call.id)?);
    let found: Result<_, ReadError> = reads
        .ask(async |client| sessions::find(client, id).await)
        .await;
    let session = own(&call, found?)?;
    let now = Timestamp::now();
    let (vehicle, window) = charged(&session, now)?;
    let analyst = &context.analyst;
    let charge = reads.ask(async |client| analyst.charge(client, vehicle, window, now).await);
    let charge = charge.await?.ok_or_else(unknown)?;
    let view = ViewWithEnergy {
        session: View::from(&session),
        energy: Some(ChargeView::new(&charge, analyst.tariff())),
        energy_reason: None,
    };
    json::reply(StatusCode::OK, &view)
}

/// Removes a session.
pub(crate) async fn delete(call: Call<'_>) -> Result<Reply, Problem> {
    let id = query::path_id(call.id)?;
    check_own(&call, id).await?;
    let reads = call.context.reads.primary();
    let deleted = reads.ask(async |client| sessions::delete(client, id).await);
    if deleted.await? {
        Ok(reply::empty(StatusCode::NO_CONTENT))
    } else {
        Err(unknown())
    }
}

/// The vehicle of a session and the time over which its energy counts. An open session counts until `now`.
pub(super) fn charged(
    session: &Session,
    now: Timestamp,
) -> Result<(ExternalId<'_>, Interval), Problem> {
    // The session may be older than the rules for new ids.
    let vehicle = ExternalId::new(&session.vehicle)
        .map_err(|why| invalid(format!("vehicleId {why}"), "invalid_id"))?;
    let started = session.started_at;
    let end = session.ended_at.unwrap_or(now);
    // A session that starts in the future has not lasted yet, so it gets the shortest possible window.
    let window =
        Interval::new(started, end).or_else(|| Interval::new(started, started.plus_micros(1)));
    Ok((vehicle, window.ok_or_else(unknown)?))
}

/// Checks that a session belongs to the caller. Any other gets 404, as if it did not exist.
///
/// A session's vehicle and meter never change, so the check still holds when the handler acts on the session.
async fn check_own(call: &Call<'_>, id: ExternalId<'_>) -> Result<(), Problem> {
    match call.caller.prefix() {
        None => Ok(()),
        Some(_) => {
            let reads = call.context.reads.primary();
            let found = reads.ask(async |client| sessions::find(client, id).await);
            own(call, found.await?).map(drop)
        }
    }
}

/// A session that was found, if it is the caller's; 404 for any other.
fn own(call: &Call<'_>, found: Option<Session>) -> Result<Session, Problem> {
    let prefix = call.caller.prefix();
    found
        .filter(|s| owns_session(prefix, &s.vehicle, &s.meter))
        .ok_or_else(unknown)
}

fn unknown() -> Problem {
    Problem::new(Kind::NotFound, "there is no session with this id")
}

fn conflict(detail: impl Into<std::borrow::Cow<'static, str>>) -> Problem {
    Problem::new(Kind::Conflict, detail)
}

fn invalid(detail: impl Into<std::borrow::Cow<'static, str>>, code: &'static str) -> Problem {
    Problem::new(Kind::InvalidContent, detail).code(code)
}
