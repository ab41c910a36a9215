//! `POST /v1/ingestion/{meter,vehicle}`: from a body to an acknowledgement.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::http::request::Parts;

use crate::http::request::auth::{Caller, of_others};
use crate::http::request::body::{Limits, Received, Upload, overloaded};
use crate::http::request::decompress::{BROKEN_ENCODING, unfold};
use crate::http::request::dispatch::Shared;
use crate::http::request::negotiate;
use crate::http::request::query;
use crate::http::request::query::Query;
use crate::http::response::problem::{ErrorItem, Kind, Problem};
use crate::http::response::reply::{JSON, Reply, with_body};
use crate::ingest::admission::{AckMode, Admitted};
use crate::ingest::decode::{BodyError, Bounds, Code, Decoder, Format, Outcome};
use crate::ingest::plausible_time;
use crate::metrics;
use crate::reading::{Reading, Stream};
use crate::wal::append::RequestRecords;

/// Bodies up to this size are decoded where they are received. Why 256 KiB: decoding one takes
/// about as long as handing it to another thread and back costs in latency under load, and an
/// async worker is not held for more than a millisecond.
const INLINE_BYTES_MAX: usize = 256 << 10;

/// A request's readings on their way into the log, and the answer for when they are there.
pub(crate) struct Taken {
    pub(crate) admitted: Admitted,
    outcome: Outcome,
    ack: AckMode,
}

/// Takes a request's readings.
///
/// Blocks: until the body is there
/// Cancel: before the gate, nothing was taken; after it, the readings are stored
pub(crate) async fn ingest(
    shared: &Arc<Shared>,
    caller: &Caller,
    stream: Stream,
    parts: &Parts,
    upload: &mut Upload,
) -> Result<Taken, Problem> {
    let ack = ack_mode(parts.uri.query())?;
    let format = negotiate::readings_format(&parts.headers)?;
    let encoding = negotiate::encoding(&parts.headers)?;
    caller.check_rate()?;
    let settings = &shared.context.settings;
    let limits = Limits {
        bytes_max: settings.body_bytes_max,
        share: caller.share(),
        timeout: settings.body_timeout,
    };
    let gate = &shared.context.gate;
    let received = upload.receive(gate, limits).await?;
    let decoding = &shared.decoding;
    let unfolded = unfold(gate, decoding, encoding, received, limits).await;
    let unfolded = match unfolded {
        Err(problem) if problem.is(BROKEN_ENCODING) => {
            caller.charge(1)?;
            metrics::readings_rejected(stream, BROKEN_ENCODING, 1);
            return Err(problem);
        }
        unfolded => unfolded?,
    };
    let Received { bytes, memory } = unfolded;

    let (earliest, latest) = plausible_time::now();
    let job = Job {
        caller: caller.clone(),
        stream,
        format,
        bounds: Bounds::between(earliest, latest, settings.reading_age_max()),
        shards: gate.shards(),
    };
    let (decoded, records) = if bytes.len() <= INLINE_BYTES_MAX {
        job.run(&bytes)
    } else {
        decode_elsewhere(shared, job, bytes).await?
    };
    let outcome = match decoded {
        Ok(outcome) => outcome,
        Err(error) => {
            caller.charge(1)?;
            metrics::readings_rejected(stream, error.code(), 1);
            let problem = Problem::new(Kind::UnreadableBody, error.to_string());
            return Err(problem.code(error.code()));
        }
    };
    caller.charge(outcome.accepted + outcome.rejected)?;
    if outcome.accepted == 0 {
        count_rejected(stream, &outcome);
        if outcome.rejected == outcome.rejected_by_code[Code::ForbiddenDevice.index()] {
            return Err(of_others().readings(outcome));
        }
        let problem = Problem::new(Kind::NoValidReading, "no reading of the body can be taken");
        return Err(problem.readings(outcome));
    }
    let admitted = gate
        .submit(records, memory, ack)
        .map_err(|shed| overloaded(gate, shed))?;
    if outcome.rejected > 0 {
        count_rejected(stream, &outcome);
    }
    Ok(Taken {
        admitted,
        outcome,
        ack,
    })
}

impl Taken {
    /// Whether the answer waits for the log, and for nothing else.
    pub(crate) fn is_on_its_way(&self) -> bool {
        self.ack == AckMode::Durable
    }

    /// The answer for when the readings are durable, and what they wait for until then.
    pub(crate) fn promised(self) -> (Reply, Admitted) {
        (taken(&self.outcome, self.ack, None), self.admitted)
    }

    /// The answer, once the readings are as safe as was asked.
    ///
    /// Blocks: as [`AckMode`] says
    /// Cancel: the readings are stored all the same
    pub(crate) async fn when_safe(self, shared: &Shared) -> Result<Reply, Problem> {
        let quarantined = safe(shared, self.admitted, self.ack).await?;
        Ok(taken(&self.outcome, self.ack, quarantined))
    }
}

/// Waits until what was admitted is as safe as was asked for. Returns how many readings a commit has
/// put into quarantine, as [`Gate::acknowledge`](crate::ingest::admission::Gate::acknowledge) does.
async fn safe(shared: &Shared, admitted: Admitted, ack: AckMode) -> Result<Option<u64>, Problem> {
    let safe = shared.context.gate.acknowledge(admitted);
    let safe = if ack == AckMode::Committed {
        let within = shared.context.settings.commit_timeout;
        let Ok(safe) = tokio::time::timeout(within, safe).await else {
            metrics::http_shed("commit_timeout");
            let detail = "the database has not confirmed the readings in time; they may be stored \
                          all the same, and may safely be sent again";
            return Err(Problem::new(Kind::CommitTimeout, detail).retry_after(COMMIT_RETRY_SECONDS));
        };
        safe
    } else {
        safe.await
    };
    safe.map_err(|error| {
        metrics::http_shed("log_failed");
        Problem::new(Kind::LogFailed, error.to_string())
    })
}

/// When to come again after a commit that was not confirmed: a database that restarts takes some
/// seconds.
const COMMIT_RETRY_SECONDS: u64 = 5;

/// The query of an ingestion: nothing but `ack`.
fn ack_mode(query: Option<&str>) -> Result<AckMode, Problem> {
    // What most devices send.
    if query.is_none() {
        return Ok(AckMode::default());
    }
    let query = Query::parse(query, &["ack"])?;
    match query.get("ack") {
        None => Ok(AckMode::default()),
        Some(text) => [AckMode::Buffered, AckMode::Durable, AckMode::Committed]
            .into_iter()
            .find(|mode| mode.name() == text)
            .ok_or_else(|| query::bad("ack must be buffered, durable or committed".to_owned())),
    }
}

/// What decoding needs to know.
struct Job {
    caller: Caller,
    stream: Stream,
    format: Format,
    bounds: Bounds,
    shards: u16,
}

thread_local! {
    /// A decoder keeps its buffers, so each thread has one.
    static DECODER: RefCell<Decoder> = RefCell::new(Decoder::new());
}

impl Job {
    fn run(self, body: &[u8]) -> (Result<Outcome, BodyError>, RequestRecords) {
        let mut records = RequestRecords::new(self.shards);
        let decoded = DECODER.with_borrow_mut(|decoder| {
            let take = |reading: Reading<'_>| records.push(&reading);
            let prefix = self.caller.prefix();
            decoder.decode_of(prefix, self.stream, self.format, body, &self.bounds, take)
        });
        (decoded, records)
    }
}

/// Decodes a large body on a thread that may block, as many at once as there are cores.
async fn decode_elsewhere(
    shared: &Shared,
    job: Job,
    body: Bytes,
) -> Result<(Result<Outcome, BodyError>, RequestRecords), Problem> {
    let failed = |_| Problem::new(Kind::Internal, "the body could not be decoded");
    let permit = Arc::clone(&shared.decoding)
        .acquire_owned()
        .await
        .map_err(|_| Problem::new(Kind::Overloaded, "the gateway is stopping"))?;
    let work = move || {
        // Held until the work ends, whether or not someone still waits for it.
        let _permit = permit;
        job.run(&body)
    };
    tokio::task::spawn_blocking(work).await.map_err(failed)
}

fn count_rejected(stream: Stream, outcome: &Outcome) {
    for code in Code::ALL {
        let readings = outcome.rejected_by_code[code.index()];
        if readings > 0 {
            metrics::readings_rejected(stream, code.as_str(), readings);
        }
    }
}

/// What nearly every device that sends one reading is told.
const ONE_DURABLE: &str =
    r#"{"success":true,"accepted":1,"rejected":0,"ack":"durable","errors":[]}"#;

/// The answer to a request of which something was taken.
fn taken(outcome: &Outcome, ack: AckMode, quarantined: Option<u64>) -> Reply {
    let status = if ack == AckMode::Committed {
        StatusCode::CREATED
    } else {
        StatusCode::ACCEPTED
    };
    if outcome.accepted == 1 && outcome.rejected == 0 && ack == AckMode::Durable {
        return with_body(status, JSON, ONE_DURABLE);
    }
    with_body(status, JSON, told(outcome, ack, quarantined))
}

/// What was taken, in words for the client. After a commit it says how many readings went into
/// quarantine: `null` where that is not known any more.
fn told(outcome: &Outcome, ack: AckMode, quarantined: Option<u64>) -> String {
    let mut text = String::with_capacity(96 + 160 * outcome.errors.len());
    let Outcome {
        accepted, rejected, ..
    } = outcome;
    // Writing to a String does not fail.
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
    use crate::ingest::decode::ReadingError;

    #[test]
    fn the_ack_mode_is_read_strictly() {
        assert_eq!(ack_mode(None).unwrap(), AckMode::Durable);
        assert_eq!(ack_mode(Some("")).unwrap(), AckMode::Durable);
        assert_eq!(ack_mode(Some("ack=buffered")).unwrap(), AckMode::Buffered);
        assert_eq!(ack_mode(Some("ack=committed")).unwrap(), AckMode::Committed);
        for wrong in [
            "ack=",
            "ack",
            "ack=Durable",
            "ack=durable&ack=durable",
            "ak=durable",
        ] {
            assert!(ack_mode(Some(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_answer_to_one_reading_is_what_would_be_written_of_it() {
        let outcome = Outcome {
            accepted: 1,
            ..Outcome::default()
        };
        assert_eq!(told(&outcome, AckMode::Durable, None), ONE_DURABLE);
    }

    #[tokio::test]
    async fn an_answer_lists_what_was_not_taken() {
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
        let reply = taken(&outcome, AckMode::Durable, None);
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
