//! `/v1/sessions`: which vehicle charged at which meter, and when.
//!
//! `store::sessions` checks the rules in database transactions, so that of two overlapping sessions only one is
//! accepted, even by two gateways.

use hyper::StatusCode;
use hyper::header::{HeaderValue, LOCATION};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::energy_view::ChargeView;
use crate::energy::interval::Interval;
use crate::http::request::auth::{not_your_device, owns_session};
use crate::http::request::call::Call;
use crate::http::request::query;
use crate::http::response::json;
use crate::http::response::problem::{Kind, Problem};
use crate::http::response::reply;
use crate::http::response::reply::Reply;
use crate::ingest::decode::timestamp;
use crate::postgres::ReadError;
use crate::reading::{ExternalId, Timestamp};
use crate::store::sessions::{self, Ended, Posted, Refused, Session, Wanted};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PostBody {
    session_id: Option<String>,
    vehicle_id: String,
    meter_id: String,
    started_at: String,
    ended_at: Option<String>,
}

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
fn redacted(refused: Refused, prefix: Option<&str>) -> Problem {
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

/// Registers a session: 201, or 200 if it already exists.
pub(crate) async fn post(mut call: Call<'_>) -> Result<Reply, Problem> {
    let document = call.document().await?;
    let body: PostBody = json::parse(&document.bytes)?;
    let (reads, prefix) = (call.context.reads.primary(), call.caller.prefix());
    let wanted = Wanted {
        session: body
            .session_id
            .as_deref()
            .map(|id| field_id("sessionId", id))
            .transpose()?,
        vehicle: field_id("vehicleId", &body.vehicle_id)?,
        meter: field_id("meterId", &body.meter_id)?,
        started_at: field_time("startedAt", &body.started_at)?,
        ended_at: body
            .ended_at
            .as_deref()
            .map(|t| field_time("endedAt", t))
            .transpose()?,
    };
    if !owns_session(prefix, &body.vehicle_id, &body.meter_id) {
        return Err(not_your_device());
    }
    if wanted.ended_at.is_some_and(|end| end <= wanted.started_at) {
        return Err(Refused::EndNotAfterStart.into());
    }
    let posted = reads.ask(async |client| sessions::post(client, &wanted).await);
    match posted.await.map_err(|refused| redacted(refused, prefix))? {
        Posted::Same(session) => json::reply(StatusCode::OK, &View::from(&session)),
        Posted::New(session) => {
            let mut reply = json::reply(StatusCode::CREATED, &View::from(&session))?;
            let id = utf8_percent_encode(&session.session, NON_ALPHANUMERIC);
            if let Ok(path) = HeaderValue::try_from(format!("/v1/sessions/{id}")) {
                reply.headers_mut().insert(LOCATION, path);
            }
            Ok(reply)
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

/// Parses an id in a body. The id may be new.
fn field_id<'t>(field: &str, text: &'t str) -> Result<ExternalId<'t>, Problem> {
    ExternalId::of_new(text).map_err(|why| invalid(format!("{field} {why}"), "invalid_id"))
}

/// Parses the time of a session: any since 2000. Old times are allowed, because chargers report late.
fn field_time(field: &str, text: &str) -> Result<Timestamp, Problem> {
    let at = timestamp::parse(text).ok_or_else(|| {
        let detail = format!("{field} must be an RFC 3339 time with an offset");
        invalid(detail, "invalid_timestamp")
    })?;
    if at < Timestamp::Y2000 {
        return Err(invalid(
            format!("{field} must not be before {}", Timestamp::Y2000),
            "too_old",
        ));
    }
    if !at.is_writable() {
        let detail = format!("{field} must be before the end of the year 9999, in any offset");
        return Err(invalid(detail, "invalid_timestamp"));
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_read_strictly() {
        let good = br#"{"vehicleId":"V","meterId":"M","startedAt":"2024-01-01T00:00:00Z"}"#;
        assert!(json::parse::<PostBody>(good).is_ok());
        for wrong in [
            &br#"{"vehicleId":"V","meterId":"M"}"#[..],
            br#"{"vehicleId":"V","meterId":"M","startedAt":"2024-01-01T00:00:00Z","x":1}"#,
            br#"{"vehicleId":"V","vehicleId":"V","meterId":"M","startedAt":"t"}"#,
            br#"{"vehicleId":1,"meterId":"M","startedAt":"t"}"#,
            b"",
            b"[]",
            br#"[null,"V","M","2024-01-01T00:00:00Z",null]"#,
            b"{",
        ] {
            assert!(
                json::parse::<PostBody>(wrong).is_err(),
                "{}",
                wrong.escape_ascii()
            );
        }
    }

    #[test]
    fn times_need_an_offset_and_keep_their_microseconds() {
        let at = field_time("startedAt", "2024-02-09T15:30:00.1234569+01:00").unwrap();
        assert_eq!(at.to_string(), "2024-02-09T14:30:00.123456Z");
        for wrong in [
            "2024-02-09T15:30:00",
            "yesterday",
            "",
            "1999-12-31T23:59:59Z",
            "9999-12-31T23:59:59Z",
            "9999-12-30T00:00:00-23:59",
        ] {
            assert!(field_time("startedAt", wrong).is_err(), "{wrong}");
        }
    }
}
