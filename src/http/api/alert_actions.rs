//! What operators do about alerts: acknowledge one, or mute a device until some time.
//!
//! Both need the right `admin`: a device's key, which may only send readings, must not silence alerts.

use std::time::Duration;

use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use super::alerts::{Alert, MuteView, device_of, kind_of};
use crate::http::request::call::Call;
use crate::http::request::query;
use crate::http::response::json;
use crate::http::response::problem::{Kind, Problem};
use crate::http::response::reply;
use crate::http::response::reply::Reply;
use crate::ingest::decode::timestamp;
use crate::reading::{Stream, Timestamp};
use crate::store::alert_actions::{self, MuteScope};
use crate::store::alerts::{Action, Mute, StoredAlert};

/// The longest note, in characters.
const NOTE_CHARS_MAX: usize = 500;
/// The longest mute. Why: a mute that nobody remembers hides a hot battery for ever.
const MUTE_MAX: Duration = Duration::from_secs(366 * 86_400);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AcknowledgeBody {
    note: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MuteBody {
    until: String,
    note: Option<String>,
}

/// A mute with its device.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeviceMute<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    vehicle_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meter_id: Option<&'a str>,
    #[serde(flatten)]
    mute: MuteView<'a>,
}

impl<'a> DeviceMute<'a> {
    fn new(stream: Stream, device: Option<&'a str>, mute: &'a Mute) -> Self {
        DeviceMute {
            vehicle_id: device.filter(|_| stream == Stream::Vehicle),
            meter_id: device.filter(|_| stream == Stream::Meter),
            mute: MuteView::from(mute),
        }
    }
}

#[derive(Serialize)]
struct Page<'a> {
    items: Vec<DeviceMute<'a>>,
    next: Option<String>,
}

/// Acknowledges an open alert. The first acknowledgement stays.
pub(crate) async fn acknowledge(mut call: Call<'_>) -> Result<Reply, Problem> {
    let document = call.document().await?;
    let id = alert_id(call.id)?;
    let AcknowledgeBody { note } = json::parse(&document.bytes)?;
    let action = action(&call, note)?;
    check_own(&call, id).await?;
    let reads = call.context.reads.primary();
    let found = reads.ask(async |client| alert_actions::acknowledge(client, id, &action).await);
    let alert = found.await?.ok_or_else(unknown)?;
    if alert.acknowledgement.is_none() {
        let detail = "the alert has closed, and only an open alert can be acknowledged";
        return Err(Problem::new(Kind::Conflict, detail).code("closed"));
    }
    json::reply(StatusCode::OK, &Alert::from(&alert))
}

/// Withdraws an acknowledgement. Responds with 404 if the alert is not acknowledged.
pub(crate) async fn unacknowledge(call: Call<'_>) -> Result<Reply, Problem> {
    let id = alert_id(call.id)?;
    check_own(&call, id).await?;
    let reads = call.context.reads.primary();
    let withdrawn = reads.ask(async |client| alert_actions::unacknowledge(client, id).await);
    if withdrawn.await? {
        return Ok(reply::empty(StatusCode::NO_CONTENT));
    }
    let detail = "there is no acknowledged alert with this id";
    Err(Problem::new(Kind::NotFound, detail))
}

/// Mutes a device, for one kind of alert or for all.
pub(crate) async fn mute(mut call: Call<'_>, stream: Stream) -> Result<Reply, Problem> {
    let document = call.document().await?;
    let body: MuteBody = json::parse(&document.bytes)?;
    let action = action(&call, body.note)?;
    let until = until(&body.until, action.at)?;
    let scope = scope(&call, stream)?;
    let reads = call.context.reads.primary();
    let muted = reads
        .ask(async |client| alert_actions::mute(client, scope, until, &action).await)
        .await?;
    if !muted {
        let detail = format!("no {stream} with this id is known");
        return Err(Problem::new(Kind::NotFound, detail));
    }
    let mute = Mute {
        until,
        kind: scope.kind.map(str::to_owned),
        action,
    };
    let view = DeviceMute::new(stream, Some(scope.device.as_str()), &mute);
    json::reply(StatusCode::OK, &view)
}

/// Ends a mute. Responds with 404 if the device is not muted.
pub(crate) async fn unmute(call: Call<'_>, stream: Stream) -> Result<Reply, Problem> {
    let scope = scope(&call, stream)?;
    let (reads, now) = (call.context.reads.primary(), Timestamp::now());
    let ended = reads.ask(async |client| alert_actions::unmute(client, scope, now).await);
    if ended.await? {
        return Ok(reply::empty(StatusCode::NO_CONTENT));
    }
    let of = scope.kind.map_or_else(
        || "for all kinds of alert".to_owned(),
        |kind| format!("for {kind}"),
    );
    let detail = format!("this {stream} is not muted {of}");
    Err(Problem::new(Kind::NotFound, detail))
}

/// The mutes in force, of all devices or of one, a page at a time.
pub(crate) async fn mutes(call: Call<'_>) -> Result<Reply, Problem> {
    let limit = call.query.limit()?;
    let before = match call.query.get("after") {
        None => i64::MAX,
        Some(text) => number(text)
            .ok_or_else(|| query::bad("after is not a cursor that this endpoint returned"))?,
    };
    let device = device_of(&call.query)?;
    let (reads, now) = (call.reads(), Timestamp::now());
    let found = reads
        .ask(async |client| alert_actions::mutes(client, device, (before, limit), now).await)
        .await?;
    let items = found
        .items
        .iter()
        .map(|stored| DeviceMute::new(stored.stream, stored.device.as_deref(), &stored.mute));
    let page = Page {
        items: items.collect(),
        next: found.last_before_more().map(|last| last.id.to_string()),
    };
    json::reply(StatusCode::OK, &page)
}

/// What the caller does now.
fn action(call: &Call<'_>, note: Option<String>) -> Result<Action, Problem> {
    if let Some(note) = &note {
        let chars = note.chars().count();
        if chars == 0 || chars > NOTE_CHARS_MAX || note.chars().any(char::is_control) {
            let detail =
                format!("note must be 1 to {NOTE_CHARS_MAX} characters without control characters");
            return Err(Problem::new(Kind::InvalidContent, detail).code("invalid_note"));
        }
    }
    let (key, name) = call.caller.signature().unzip();
    Ok(Action {
        at: Timestamp::now(),
        key: key.map(|id| id.to_string()),
        name: name.map(str::to_owned),
        note,
    })
}

/// When a mute ends: later than now, and at most [`MUTE_MAX`] later.
fn until(text: &str, now: Timestamp) -> Result<Timestamp, Problem> {
    let invalid = |detail: String, code| Problem::new(Kind::InvalidContent, detail).code(code);
    let until = timestamp::parse(text).ok_or_else(|| {
        let detail = "until must be an RFC 3339 time with an offset".to_owned();
        invalid(detail, "invalid_timestamp")
    })?;
    let longest = i64::try_from(MUTE_MAX.as_micros()).unwrap_or(i64::MAX);
    if until <= now || until > now.plus_micros(longest) {
        let days = MUTE_MAX.as_secs() / 86_400;
        let detail = format!("until must be in the future, and at most {days} days from now");
        return Err(invalid(detail, "out_of_range"));
    }
    Ok(until)
}

/// Which alerts the request mutes, by its path and its `kind`.
fn scope<'c>(call: &'c Call<'_>, stream: Stream) -> Result<MuteScope<'c>, Problem> {
    Ok(MuteScope {
        stream,
        device: query::path_id(call.id)?,
        kind: kind_of(&call.query)?,
    })
}

/// Checks that an alert is about one of the caller's devices; any other gets 404, as if it did not exist.
///
/// The device of an alert never changes, so that the check still holds when the handler acts.
async fn check_own(call: &Call<'_>, id: i64) -> Result<(), Problem> {
    let Some(prefix) = call.caller.prefix() else {
        return Ok(());
    };
    let (reads, now) = (call.context.reads.primary(), Timestamp::now());
    let found = reads.ask(async |client| alert_actions::find(client, id, now).await);
    let is_own = |alert: &StoredAlert| {
        let device = alert.device.as_deref();
        device.is_some_and(|device| device.starts_with(prefix))
    };
    found.await?.filter(is_own).map(drop).ok_or_else(unknown)
}

/// The number of an alert in a path. What no alert can have is as unknown as any other.
fn alert_id(text: &str) -> Result<i64, Problem> {
    number(text).ok_or_else(unknown)
}

fn number(text: &str) -> Option<i64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

fn unknown() -> Problem {
    Problem::new(Kind::NotFound, "there is no alert with this id")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mute_ends_in_the_future_and_within_a_year() {
        let now = Timestamp::from_micros(1_707_492_600_000_000);
        let end = |text| until(text, now).ok();
        let hour = "2024-02-09T16:30:00Z";
        assert_eq!(end(hour), Some(now.plus_micros(3_600_000_000)));
        for wrong in [
            "",
            "tomorrow",
            "2024-02-09T16:30:00",
            "2024-02-09T15:30:00Z",
            "2023-02-09T15:30:00Z",
            "2025-02-09T15:30:01Z",
            "9999-12-31T23:59:59Z",
        ] {
            assert_eq!(end(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_alert_has_a_number() {
        assert_eq!(alert_id("17").ok(), Some(17));
        for wrong in ["", "+5", "-5", "x", "1.0", "99999999999999999999"] {
            assert!(alert_id(wrong).is_err(), "{wrong}");
        }
    }
}
