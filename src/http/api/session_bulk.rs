//! `POST /v1/sessions` with a list: many sessions at once, each by itself.
//!
//! Each session is registered in a transaction of its own, as if it was sent alone, in the order of the list. So one that
//! is refused does not take the others with it, and a list that breaks off in the middle can be sent again. Why not all or
//! none: one transaction would lock the rows of many vehicles and meters at once, in an order that conflicts with that of
//! other requests.

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use serde::Serialize;
use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::session_body::{Fault, SessionBody};
use super::sessions::redacted;
use crate::http::request::auth::{not_your_device, owns_session};
use crate::http::request::call::Call;
use crate::http::response::json;
use crate::http::response::problem::{ErrorItem, Kind, Problem, Rejected};
use crate::http::response::reply::Reply;
use crate::ingest::decode::{ERRORS_MAX, Format};
use crate::store::sessions::{self, Posted};

/// The most sessions of a list.
pub(super) const SESSIONS_MAX: usize = 1_000;
/// The largest list, in bytes: a session with the longest ids has some 900.
pub(super) const LIST_BYTES_MAX: usize = 1 << 20;
/// The most lists at a time. Each holds one of the 8 connections for queries.
const LISTS_MAX: usize = 2;
/// How long a list waits for one of these places.
const PLACE_WITHIN: Duration = Duration::from_secs(2);
const BUSY_RETRY_SECONDS: u64 = 3;
/// How long sessions of a list are registered. Sessions that are not reached are rejected, so that the answer to the
/// others comes before clients give up, which is often after 10 s.
const WITHIN: Duration = Duration::from_secs(6);
/// The code of a session of another fleet.
const FORBIDDEN: &str = "forbidden_device";

static LISTS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(LISTS_MAX)));

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    success: bool,
    created: usize,
    existing: usize,
    rejected: usize,
    session_ids: Vec<Option<&'a str>>,
    errors: Vec<ErrorItem<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors_truncated: Option<bool>,
}

/// What became of one session.
enum Outcome {
    Created(String),
    Existing(String),
    Rejected(Vec<Fault>),
}

/// Registers the sessions of a list.
///
/// # Errors
/// None of them was registered; or the database failed, and some may be.
pub(super) async fn post(call: &Call<'_>, format: Format, body: &Bytes) -> Result<Reply, Problem> {
    let texts = split(format, body)?;
    if texts.is_empty() {
        let detail = "the body has no session";
        return Err(Problem::new(Kind::InvalidContent, detail));
    }
    if texts.len() > SESSIONS_MAX {
        let detail = format!("the body must have at most {SESSIONS_MAX} sessions; split it");
        return Err(Problem::new(Kind::InvalidContent, detail).code("too_many_sessions"));
    }
    let prefix = call.caller.prefix();
    let own = |body: SessionBody| match owns_session(prefix, &body.vehicle, &body.meter) {
        true => Ok(body),
        false => {
            let message = "the key does not cover this device";
            Err(vec![Fault::whole(FORBIDDEN, message)])
        }
    };
    let parsed = texts
        .iter()
        .map(|text| SessionBody::parse(text).and_then(own));
    let parsed: Vec<_> = parsed.collect();
    let outcomes = if parsed.iter().any(Result::is_ok) {
        register(call, parsed).await?
    } else {
        let faults = parsed.into_iter().filter_map(Result::err);
        faults.map(Outcome::Rejected).collect()
    };
    answer(&outcomes)
}

/// The texts of the sessions: the values of an array, or the lines that are not empty. Of too many sessions, only one more
/// than allowed.
fn split(format: Format, body: &Bytes) -> Result<Vec<&[u8]>, Problem> {
    match format {
        Format::Json => {
            let Texts(texts) = serde_json::from_slice(body)
                .map_err(|error| Problem::new(Kind::UnreadableBody, error.to_string()))?;
            Ok(texts)
        }
        Format::Ndjson => {
            let lines = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
            let lines = lines.filter(|line| !line.is_empty());
            Ok(lines.take(SESSIONS_MAX + 1).collect())
        }
    }
}

/// The texts of the first values of an array. The others are read, but not kept.
struct Texts<'a>(Vec<&'a [u8]>);

impl<'de> Deserialize<'de> for Texts<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(TextsVisitor)
    }
}

struct TextsVisitor;

impl<'de> Visitor<'de> for TextsVisitor {
    type Value = Texts<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Texts<'de>, A::Error> {
        let mut texts = Vec::new();
        while texts.len() <= SESSIONS_MAX {
            let Some(value) = values.next_element::<&RawValue>()? else {
                return Ok(Texts(texts));
            };
            texts.push(value.get().as_bytes());
        }
        while values.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Texts(texts))
    }
}

/// Registers the sessions that follow the rules, one after the other.
async fn register(
    call: &Call<'_>,
    parsed: Vec<Result<SessionBody, Vec<Fault>>>,
) -> Result<Vec<Outcome>, Problem> {
    let good = parsed.iter().filter_map(|body| body.as_ref().ok());
    let wanted = good
        .map(SessionBody::wanted)
        .collect::<Result<Vec<_>, _>>()?;
    let place = timeout(PLACE_WITHIN, Arc::clone(&LISTS).acquire_owned()).await;
    let _place = place.ok().and_then(Result::ok).ok_or_else(|| {
        let detail = format!("{LISTS_MAX} lists of sessions are being registered; retry later");
        Problem::new(Kind::Overloaded, detail).retry_after(BUSY_RETRY_SECONDS)
    })?;
    let (reads, prefix) = (call.context.reads.primary(), call.caller.prefix());
    let tried = reads
        .ask(async |client| sessions::post_each(client, &wanted, WITHIN).await)
        .await?;
    let mut tried = tried.into_iter();
    let outcome = |body: Result<SessionBody, Vec<Fault>>| match body.map(|_| tried.next()) {
        Err(faults) => Outcome::Rejected(faults),
        Ok(Some(Ok(Posted::New(session)))) => Outcome::Created(session.session),
        Ok(Some(Ok(Posted::Same(session)))) => Outcome::Existing(session.session),
        Ok(Some(Err(refused))) if refused.is_blocked() => {
            let message = "another request holds its vehicle or its meter; send it again";
            Outcome::Rejected(vec![Fault::whole("not_tried", message)])
        }
        Ok(Some(Err(refused))) => {
            let problem = redacted(refused, prefix);
            let (code, detail) = problem.explained();
            Outcome::Rejected(vec![Fault::whole(code.unwrap_or("conflict"), detail)])
        }
        Ok(None) => {
            let message = "the sessions before it took too long; send it again";
            Outcome::Rejected(vec![Fault::whole("not_tried", message)])
        }
    };
    drop(wanted);
    Ok(parsed.into_iter().map(outcome).collect())
}

fn answer(outcomes: &[Outcome]) -> Result<Reply, Problem> {
    let mut errors = Vec::new();
    let mut is_truncated = false;
    let mut session_ids = Vec::with_capacity(outcomes.len());
    let (mut created, mut existing, mut rejected, mut forbidden) = (0, 0, 0, 0);
    for (index, outcome) in (0_u64..).zip(outcomes) {
        let (id, faults) = match outcome {
            Outcome::Created(id) => {
                created += 1;
                (Some(id.as_str()), &[][..])
            }
            Outcome::Existing(id) => {
                existing += 1;
                (Some(id.as_str()), &[][..])
            }
            Outcome::Rejected(faults) => {
                rejected += 1;
                forbidden += usize::from(faults.iter().any(|fault| fault.code == FORBIDDEN));
                (None, faults.as_slice())
            }
        };
        session_ids.push(id);
        for fault in faults {
            if errors.len() == ERRORS_MAX {
                is_truncated = true;
                break;
            }
            errors.push(ErrorItem {
                index,
                field: fault.field.as_deref().map(Into::into),
                code: fault.code,
                message: fault.message.as_str().into(),
            });
        }
    }
    if created + existing == 0 {
        let problem = match forbidden == rejected {
            true => not_your_device(),
            false => Problem::new(
                Kind::InvalidContent,
                "no session of the body was registered",
            ),
        };
        return Err(problem.rejected(Rejected {
            rejected: rejected as u64,
            errors: errors.into_iter().map(ErrorItem::into_owned).collect(),
            is_truncated,
        }));
    }
    let status = match created {
        0 => StatusCode::OK,
        _ => StatusCode::CREATED,
    };
    let view = View {
        success: rejected == 0,
        created,
        existing,
        rejected,
        session_ids,
        errors,
        errors_truncated: is_truncated.then_some(true),
    };
    json::reply(status, &view)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(format: Format, body: &str) -> Option<Vec<String>> {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let texts = split(format, &body).ok()?;
        let text = |text: &&[u8]| String::from_utf8(text.to_vec()).unwrap();
        Some(texts.iter().map(text).collect())
    }

    #[test]
    fn a_list_is_an_array_or_lines() {
        let json = |body| texts(Format::Json, body);
        assert_eq!(json(" [ {} ,[1], 2 ] ").unwrap(), ["{}", "[1]", "2"]);
        assert_eq!(json("[]").unwrap(), [""; 0]);
        for wrong in ["", "[{}", "[{}]x", "[{},]", "\u{feff}[{}]"] {
            assert_eq!(json(wrong), None, "{wrong}");
        }
        // Of too many, no more is kept than shows that.
        for body in [
            format!("[{}0]", "0,".repeat(1 << 19)),
            "0\n".repeat(1 << 19),
        ] {
            let format = match body.starts_with('[') {
                true => Format::Json,
                false => Format::Ndjson,
            };
            assert_eq!(texts(format, &body).unwrap().len(), SESSIONS_MAX + 1);
        }
        assert_eq!(json(&format!("[{}0", "0,".repeat(2_000))), None);
        let lines = texts(Format::Ndjson, "{}\r\n\n  \n{\n").unwrap();
        assert_eq!(lines, ["{}", "{"]);
    }

    #[tokio::test]
    async fn the_answer_lists_at_most_100_errors_and_every_id() {
        use http_body_util::BodyExt;
        let mut outcomes = vec![Outcome::Created("a".to_owned())];
        outcomes.extend((0..101).map(|_| Outcome::Rejected(vec![Fault::whole("overlap", "x")])));
        let reply = answer(&outcomes).unwrap();
        assert_eq!(reply.status(), StatusCode::CREATED);
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (&value["created"], &value["rejected"]),
            (&1.into(), &101.into())
        );
        assert_eq!(value["errors"].as_array().unwrap().len(), 100);
        assert_eq!(value["errorsTruncated"], true);
        assert_eq!(value["sessionIds"].as_array().unwrap().len(), 102);
        assert_eq!(
            value["errors"][0],
            serde_json::json!({"index": 1, "code": "overlap", "message": "x"})
        );
    }
}
