//! Health, metrics and the API's description.

use std::sync::OnceLock;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::HeaderValue;

use crate::http::request::call::Call;
use crate::http::request::decompress::BROKEN_ENCODING;
use crate::http::response::json;
use crate::http::response::problem::{Kind, Problem};
use crate::http::response::reply::{JSON, Reply, with_body};
use crate::ingest::decode::{BodyError, Code};
use crate::metrics;

/// The API's description.
pub(crate) const OPENAPI_YAML: &str = include_str!("../openapi.yaml");

/// Every reason for which a request is refused and may be retried: the labels of `http_shed_total`.
const SHED_REASONS: [&str; 8] = [
    "memory",
    "queue",
    "log_full",
    "closed",
    "rate",
    "commit_timeout",
    "log_failed",
    "untaken",
];

/// Sets every shed counter to 0, so that its first increase is visible.
pub(crate) fn count_from_zero() {
    let of_bodies = BodyError::CODES.into_iter().chain([BROKEN_ENCODING]);
    let codes: Vec<&'static str> = of_bodies.chain(Code::ALL.map(Code::as_str)).collect();
    metrics::refusals_from_zero(&SHED_REASONS, &codes);
    metrics::http_evicted(0);
}

/// Responds that the gateway runs.
pub(crate) fn health_live() -> Reply {
    with_body(StatusCode::OK, JSON, r#"{"status":"live"}"#)
}

/// Responds with the state of every part; 503 unless the gateway is ready.
pub(crate) fn health_ready(call: &Call<'_>) -> Result<Reply, Problem> {
    let context = call.context;
    let report = context.health.report(&context.progress);
    if report.is_ready() {
        return json::reply(StatusCode::OK, &report);
    }
    let mut reply = json::reply(StatusCode::SERVICE_UNAVAILABLE, &report)?;
    reply
        .headers_mut()
        .insert(hyper::header::RETRY_AFTER, HeaderValue::from_static("1"));
    Ok(reply)
}

/// Responds with every metric in Prometheus text format.
pub(crate) fn metrics(call: &Call<'_>) -> Reply {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    with_body(StatusCode::OK, kind, (call.context.metrics)())
}

/// Responds with the API's description as YAML, unchanged.
pub(crate) fn openapi_yaml() -> Reply {
    with_body(
        StatusCode::OK,
        HeaderValue::from_static("application/yaml"),
        OPENAPI_YAML,
    )
}

/// Responds with the API's description as JSON, converted once.
pub(crate) fn openapi_json() -> Result<Reply, Problem> {
    static DOCUMENT: OnceLock<Option<Bytes>> = OnceLock::new();
    let document = DOCUMENT.get_or_init(|| {
        let value: Result<serde_json::Value, _> = serde_saphyr::from_str(OPENAPI_YAML);
        value
            .ok()
            .and_then(|value| serde_json::to_vec(&value).ok())
            .map(Bytes::from)
    });
    match document {
        Some(body) => Ok(with_body(StatusCode::OK, JSON, body.clone())),
        // A test parses the document, so this is a defect of the build.
        None => Err(Problem::new(
            Kind::Internal,
            "the description cannot be parsed",
        )),
    }
}
