//! `POST /v1/ingestion/{meter,vehicle}`: from a body to its acknowledgement.

use std::fmt::Write as _;

use hyper::StatusCode;

use crate::http::context::Context;
use crate::http::request::auth::{Caller, not_your_device};
use crate::http::request::body::{Received, overloaded};
use crate::http::request::call::Call;
use crate::http::request::decompress::BROKEN_ENCODING;
use crate::http::request::negotiate;
use crate::http::request::poll;
use crate::http::request::query;
use crate::http::request::query::Query;
use crate::http::response::problem::{ErrorItem, Kind, Problem};
use crate::http::response::reply::{JSON, Reply, with_body};
use crate::ingest::admission::{AckMode, Admitted};
use crate::ingest::decode::{Code, Dialect, Outcome, TimeForm, UnknownFields};
use crate::ingest::pipeline::{AcceptedBody, Body, NotSafe, Pipeline, Refused, Sender};
use crate::metrics;
use crate::reading::Stream;

/// A request's readings that the log has admitted.
pub(crate) struct Ingested {
    taken: AcceptedBody,
    ack: AckMode,
}

impl Sender for Caller {
    type Refusal = Problem;

    fn prefix(&self) -> Option<&str> {
        Caller::prefix(self)
    }

    fn charge(&self, readings: u64) -> Result<(), Problem> {
        Caller::charge(self, readings)
    }
}

/// Decodes a request's readings and admits them to the log.
///
/// Blocks: until the body has arrived
/// Cancel: before admission nothing is stored; after it the readings are stored
pub(crate) async fn ingest(mut call: Call<'_>, stream: Stream) -> Result<Ingested, Problem> {
    let (context, caller) = (call.context, call.caller);
    let ack = ack_mode(&call.query)?;
    let dialect = dialect(&call.query)?;
    let format = negotiate::readings_format(call.fields)?;
    let encoding = negotiate::encoding(call.fields)?;
    caller.check_rate()?;
    let received = call.body(encoding, context.settings.body_bytes_max).await;
    let Received { bytes, memory } = match received {
        Err(problem) if problem.is(BROKEN_ENCODING) => {
            caller.charge(1)?;
            metrics::readings_rejected(stream, BROKEN_ENCODING, 1);
            return Err(problem);
        }
        received => received?,
    };
    let body = Body {
        stream,
        format,
        dialect,
        received_at: poll::moment(),
        bytes,
        memory,
    };
    let pipeline = &context.pipeline;
    let taken = pipeline.admit(caller, body, ack).await;
    let taken = taken.map_err(|refused| problem_of(pipeline, refused))?;
    Ok(Ingested { taken, ack })
}

fn problem_of(pipeline: &Pipeline, refused: Refused<Problem>) -> Problem {
    match refused {
        Refused::Rate(problem) => problem,
        Refused::Unreadable(error) => {
            Problem::new(Kind::UnreadableBody, error.to_string()).code(error.code())
        }
        Refused::NothingValid(outcome) => {
            let forbidden = outcome.rejected_by_code[Code::ForbiddenDevice.index()];
            if outcome.rejected == forbidden {
                return not_your_device().rejected(*outcome);
            }
            let detail = "the body has no valid reading";
            Problem::new(Kind::NoValidReading, detail).rejected(*outcome)
        }
        Refused::Shed(shed) => overloaded(pipeline.gate(), shed),
        Refused::Failed => Problem::new(Kind::Internal, "the body could not be decoded"),
    }
}

impl Ingested {
    /// The name of the requested ack mode.
    pub(crate) fn ack(&self) -> &'static str {
        self.ack.name()
    }

    /// Whether the response waits only for the log's sync.
    pub(crate) fn waits_for_the_log_alone(&self) -> bool {
        self.ack == AckMode::Durable
    }

    /// The response to send once the readings are durable, and what it must wait for.
    pub(crate) fn deferred(self) -> (Reply, Admitted) {
        let reply = reply_of(&self.taken.outcome, self.ack, None);
        (reply, self.taken.admitted)
    }

    /// The response, once the readings are as safe as the request demands.
    ///
    /// Blocks: as [`AckMode`] requires
    /// Cancel: safe; the readings are still stored
    pub(crate) async fn when_safe(self, context: &Context) -> Result<Reply, Problem> {
        let safe = context.pipeline.safe(self.taken.admitted, self.ack).await;
        let quarantined = safe.map_err(|error| match error {
            NotSafe::CommitTimeout => {
                metrics::http_shed("commit_timeout");
                let detail = "the database did not confirm the readings in time; they may still be \
                              stored, and it is safe to send them again";
                Problem::new(Kind::CommitTimeout, detail).retry_after(COMMIT_RETRY_SECONDS)
            }
            NotSafe::Log(error) => {
                metrics::http_shed("log_failed");
                Problem::new(Kind::LogFailed, error.to_string())
            }
        })?;
        Ok(reply_of(&self.taken.outcome, self.ack, quarantined))
    }
}

/// How soon to retry after an unconfirmed commit. A database needs a few seconds to restart.
const COMMIT_RETRY_SECONDS: u64 = 5;

/// How safe the readings must be before the response.
fn ack_mode(query: &Query<'_>) -> Result<AckMode, Problem> {
    match query.get("ack") {
        None => Ok(AckMode::default()),
        Some(text) => [AckMode::Buffered, AckMode::Durable, AckMode::Committed]
            .into_iter()
            .find(|mode| mode.name() == text)
            .ok_or_else(|| query::bad("ack must be buffered, durable or committed")),
    }
}

/// What the sender may write differently.
fn dialect(query: &Query<'_>) -> Result<Dialect, Problem> {
    let unknown = match query.get("unknown") {
        None | Some("refuse") => UnknownFields::Refuse,
        Some("ignore") => UnknownFields::Ignore,
        Some(_) => return Err(query::bad("unknown must be refuse or ignore")),
    };
    let time = match query.get("time") {
        None | Some("rfc3339") => TimeForm::Rfc3339,
        Some("unix_ms") => TimeForm::UnixMillis,
        Some(_) => return Err(query::bad("time must be rfc3339 or unix_ms")),
    };
    Ok(Dialect { unknown, time })
}

/// The response body for nearly every device that sends one reading per request.
const ONE_DURABLE: &str =
    r#"{"success":true,"accepted":1,"rejected":0,"ack":"durable","errors":[]}"#;

/// The response to a request with at least one valid reading.
fn reply_of(outcome: &Outcome, ack: AckMode, quarantined: Option<u64>) -> Reply {
    let status = if ack == AckMode::Committed {
        StatusCode::CREATED
    } else {
        StatusCode::ACCEPTED
    };
    if outcome.accepted == 1 && outcome.rejected == 0 && ack == AckMode::Durable {
        return with_body(status, JSON, ONE_DURABLE);
    }
    with_body(status, JSON, summary(outcome, ack, quarantined))
}

/// The numbers of accepted and rejected readings as JSON. After a commit, also the number of quarantined readings,
/// or `null` if it is no longer known.
fn summary(outcome: &Outcome, ack: AckMode, quarantined: Option<u64>) -> String {
    let mut text = String::with_capacity(96 + 160 * outcome.errors.len());
    let Outcome {
        accepted, rejected, ..
    } = outcome;
    // Writing to a String cannot fail.
    let written = write!(
        text,
        r#"{{"success":{},"accepted":{accepted},"rejected":{rejected},"ack":"{}""#,
        *rejected == 0 && quarantined.is_none_or(|readings| readings == 0),
        ack.name()
    );
    debug_assert!(written.is_ok());
    if ack == AckMode::Committed {
        text.push_str(r#","quarantined":"#);
        match quarantined {
            Some(readings) => text.push_str(&readings.to_string()),
            None => text.push_str("null"),
        }
    }
    text.push_str(r#","errors":["#);
    for (n, error) in outcome.errors.iter().enumerate() {
        if n > 0 {
            text.push(',');
        }
        text.push_str(&serde_json::to_string(&ErrorItem::from(error)).unwrap_or_default());
    }
    text.push(']');
    if outcome.errors_truncated {
        text.push_str(r#","errorsTruncated":true"#);
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::query::Parameters;
    use crate::ingest::decode::ReadingError;

    #[test]
    fn the_ack_mode_is_read_strictly() {
        let mode = |text| {
            let query = Parameters::Once(&["ack"]).parse(text)?;
            ack_mode(&query)
        };
        assert_eq!(mode(None).unwrap(), AckMode::Durable);
        assert_eq!(mode(Some("")).unwrap(), AckMode::Durable);
        assert_eq!(mode(Some("ack=buffered")).unwrap(), AckMode::Buffered);
        assert_eq!(mode(Some("ack=committed")).unwrap(), AckMode::Committed);
        for wrong in [
            "ack=",
            "ack",
            "ack=Durable",
            "ack=durable&ack=durable",
            "ak=durable",
        ] {
            assert!(mode(Some(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_constant_answer_is_the_summary_of_one_reading() {
        let outcome = Outcome {
            accepted: 1,
            ..Outcome::default()
        };
        assert_eq!(summary(&outcome, AckMode::Durable, None), ONE_DURABLE);
    }

    #[tokio::test]
    async fn an_answer_lists_the_rejected_readings() {
        use http_body_util::BodyExt;
        let error = ReadingError {
            index: 17,
            field: Some("soc".into()),
            code: Code::OutOfRange,
            message: "soc must be \"between\" 0 and 100".to_owned(),
        };
        let outcome = Outcome {
            accepted: 498,
            rejected: 2,
            errors: vec![error],
            errors_truncated: true,
            ..Outcome::default()
        };
        let reply = reply_of(&outcome, AckMode::Durable, None);
        assert_eq!(reply.status(), StatusCode::ACCEPTED);
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let expected = serde_json::json!({
            "success": false, "accepted": 498, "rejected": 2, "ack": "durable",
            "errors": [{"index": 17, "field": "soc", "code": "out_of_range",
                        "message": "soc must be \"between\" 0 and 100"}],
            "errorsTruncated": true
        });
        assert_eq!(value, expected);
    }
}
