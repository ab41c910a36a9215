//! Problems: errors for people and programs (RFC 9457).

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::StatusCode;
use hyper::header::{
    ACCEPT_ENCODING, ALLOW, CONNECTION, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use serde::Serialize;

use super::reply::{Reply, with_body};
use crate::ingest::decode::{Outcome, ReadingError};

/// The longest `Retry-After`, in seconds.
const RETRY_AFTER_SECONDS_MAX: u64 = 3600;

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// The kinds of problems. Each has a stable URI, a title and a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The request violates HTTP.
    BadRequest,
    /// An id in the path or a query parameter is invalid.
    BadParameter,
    /// The body as a whole cannot be parsed.
    UnreadableBody,
    /// The body was parsed, but violates a rule.
    InvalidContent,
    /// None of the body's readings is valid.
    NoValidReading,
    /// The key is missing or not valid.
    Unauthorized,
    /// The key lacks the right, or does not cover the device.
    Forbidden,
    /// More readings than the key's rate allows.
    RateLimited,
    /// The path does not exist, or nothing stored has this id.
    NotFound,
    /// The path exists, but not with this method.
    MethodNotAllowed,
    /// The client does not accept JSON.
    NotAcceptable,
    /// The body did not arrive in time.
    BodyTimeout,
    /// The request contradicts stored data.
    Conflict,
    /// The body is larger than the gateway accepts.
    BodyTooLarge,
    /// The body's type or encoding is not supported.
    UnsupportedMedia,
    /// A defect of the gateway.
    Internal,
    /// The gateway cannot take more requests right now.
    Overloaded,
    /// The database did not respond in time.
    DatabaseUnavailable,
    /// `ack=committed` was not confirmed in time.
    CommitTimeout,
    /// The log's disk has failed.
    LogFailed,
}

impl Kind {
    fn parts(self) -> (&'static str, &'static str, StatusCode) {
        use StatusCode as S;
        match self {
            Kind::BadRequest => ("bad-request", "Bad request", S::BAD_REQUEST),
            Kind::BadParameter => ("bad-parameter", "Bad parameter", S::BAD_REQUEST),
            Kind::UnreadableBody => ("unreadable-body", "Unreadable body", S::BAD_REQUEST),
            Kind::InvalidContent => ("invalid-content", "Invalid content", S::BAD_REQUEST),
            Kind::NoValidReading => ("no-valid-reading", "No valid reading", S::BAD_REQUEST),
            Kind::Unauthorized => ("unauthorized", "No valid key", S::UNAUTHORIZED),
            Kind::Forbidden => ("forbidden", "Forbidden", S::FORBIDDEN),
            Kind::RateLimited => ("rate-limited", "Too many readings", S::TOO_MANY_REQUESTS),
            Kind::NotFound => ("not-found", "Not found", S::NOT_FOUND),
            Kind::MethodNotAllowed => (
                "method-not-allowed",
                "Method not allowed",
                S::METHOD_NOT_ALLOWED,
            ),
            Kind::NotAcceptable => ("not-acceptable", "Not acceptable", S::NOT_ACCEPTABLE),
            Kind::BodyTimeout => ("body-timeout", "Body too slow", S::REQUEST_TIMEOUT),
            Kind::Conflict => ("conflict", "Conflict", S::CONFLICT),
            Kind::BodyTooLarge => ("body-too-large", "Body too large", S::PAYLOAD_TOO_LARGE),
            Kind::UnsupportedMedia => (
                "unsupported-media",
                "Unsupported media",
                S::UNSUPPORTED_MEDIA_TYPE,
            ),
            Kind::Internal => ("internal", "Internal error", S::INTERNAL_SERVER_ERROR),
            Kind::Overloaded => ("overloaded", "Overloaded", S::SERVICE_UNAVAILABLE),
            Kind::DatabaseUnavailable => (
                "database-unavailable",
                "Database unavailable",
                S::SERVICE_UNAVAILABLE,
            ),
            Kind::CommitTimeout => (
                "commit-timeout",
                "Commit not confirmed",
                S::SERVICE_UNAVAILABLE,
            ),
            Kind::LogFailed => (
                "log-failed",
                "Write-ahead log failed",
                S::SERVICE_UNAVAILABLE,
            ),
        }
    }
}

/// An error response before it is serialised.
#[derive(Debug)]
pub(crate) struct Problem {
    kind: Kind,
    detail: Cow<'static, str>,
    code: Option<&'static str>,
    rejected: Option<Box<Rejected>>,
    retry_after_seconds: Option<u64>,
    allow: Option<&'static str>,
    www_authenticate: Option<&'static str>,
    accept_encoding: Option<&'static str>,
    close: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    #[serde(rename = "type")]
    uri: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<&'a [ErrorItem<'static>]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors_truncated: Option<bool>,
}

/// The error of one reading or session as listed in responses.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorItem<'a> {
    pub(crate) index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) field: Option<Cow<'a, str>>,
    pub(crate) code: &'static str,
    pub(crate) message: Cow<'a, str>,
}

impl ErrorItem<'_> {
    /// The same with texts of its own.
    pub(crate) fn into_owned(self) -> ErrorItem<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        ErrorItem {
            index: self.index,
            field: self.field.map(owned),
            code: self.code,
            message: owned(self.message),
        }
    }
}

impl<'a> From<&'a ReadingError> for ErrorItem<'a> {
    fn from(error: &'a ReadingError) -> Self {
        ErrorItem {
            index: error.index,
            field: error.field.as_deref().map(Cow::Borrowed),
            code: error.code.as_str(),
            message: Cow::Borrowed(&error.message),
        }
    }
}

/// The items of a body that were rejected.
#[derive(Debug)]
pub(crate) struct Rejected {
    /// How many.
    pub(crate) rejected: u64,
    /// What is wrong with them.
    pub(crate) errors: Vec<ErrorItem<'static>>,
    /// Whether there were more errors.
    pub(crate) is_truncated: bool,
}

impl From<Outcome> for Rejected {
    fn from(outcome: Outcome) -> Self {
        let errors = outcome.errors.iter().map(ErrorItem::from);
        Rejected {
            rejected: outcome.rejected,
            errors: errors.map(ErrorItem::into_owned).collect(),
            is_truncated: outcome.errors_truncated,
        }
    }
}

impl Problem {
    pub(crate) fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        let retry = kind.parts().2 == StatusCode::SERVICE_UNAVAILABLE;
        Problem {
            kind,
            detail: detail.into(),
            code: None,
            rejected: None,
            // Every 503 has a Retry-After. Most callers set a more precise one.
            retry_after_seconds: retry.then_some(1),
            allow: None,
            www_authenticate: None,
            accept_encoding: None,
            close: false,
        }
    }

    /// Adds the violated rule's code, for programs.
    pub(crate) fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// Whether the violated rule has this code.
    pub(crate) fn is(&self, code: &str) -> bool {
        self.code == Some(code)
    }

    /// The code of the violated rule, and the sentence about it.
    pub(crate) fn explained(&self) -> (Option<&'static str>, &str) {
        (self.code, &self.detail)
    }

    /// Adds what was rejected.
    pub(crate) fn rejected(mut self, rejected: impl Into<Rejected>) -> Self {
        self.rejected = Some(Box::new(rejected.into()));
        self
    }

    /// Sets the seconds of `Retry-After`.
    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// Sets the methods that the path allows.
    pub(crate) fn allow(mut self, allow: &'static str) -> Self {
        self.allow = Some(allow);
        self
    }

    /// Sets the `WWW-Authenticate` challenge.
    pub(crate) fn www_authenticate(mut self, challenge: &'static str) -> Self {
        self.www_authenticate = Some(challenge);
        self
    }

    /// Sets the encodings that bodies may have.
    pub(crate) fn accept_encoding(mut self, encodings: &'static str) -> Self {
        self.accept_encoding = Some(encodings);
        self
    }

    /// Closes the connection after the response.
    pub(crate) fn close(mut self) -> Self {
        self.close = true;
        self
    }

    pub(crate) fn into_reply(self) -> Reply {
        let (slug, title, status) = self.kind.parts();
        let rejected = self.rejected.as_deref();
        let document = Document {
            uri: format!("urn:wattgate:problem:{slug}"),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            code: self.code,
            rejected: rejected.map(|r| r.rejected),
            errors: rejected.map(|r| r.errors.as_slice()),
            errors_truncated: rejected.and_then(|r| r.is_truncated.then_some(true)),
        };
        // Serialising texts and numbers cannot fail.
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut reply = with_body(status, PROBLEM_JSON, body);
        let headers = reply.headers_mut();
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(RETRY_AFTER, HeaderValue::from(spread(seconds)));
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if let Some(challenge) = self.www_authenticate {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(encodings) = self.accept_encoding {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(encodings));
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        reply
    }
}

/// Lengthens a wait by up to a half, so that clients that are refused together do not retry together.
fn spread(seconds: u64) -> u64 {
    static REFUSALS: AtomicU64 = AtomicU64::new(0);
    let refusals = REFUSALS.fetch_add(1, Ordering::Relaxed);
    let seconds = seconds.clamp(1, RETRY_AFTER_SECONDS_MAX);
    // An odd stride visits all residues and spreads successive refusals far apart.
    (seconds + refusals.wrapping_mul(7) % (seconds / 2 + 2)).min(RETRY_AFTER_SECONDS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_503_has_a_retry_after() {
        for kind in [
            Kind::Overloaded,
            Kind::DatabaseUnavailable,
            Kind::CommitTimeout,
            Kind::LogFailed,
        ] {
            let reply = Problem::new(kind, "").into_reply();
            assert_eq!(reply.status(), StatusCode::SERVICE_UNAVAILABLE);
            let seconds: u64 = reply.headers()[RETRY_AFTER]
                .to_str()
                .unwrap()
                .parse()
                .unwrap();
            assert!((1..=3600).contains(&seconds));
        }
    }

    #[test]
    fn waits_are_spread_and_stay_within_their_bounds() {
        for seconds in [0, 1, 30, 3600, u64::MAX] {
            let waits: Vec<u64> = (0..50).map(|_| spread(seconds)).collect();
            let least = seconds.clamp(1, 3600);
            assert!(
                waits.iter().all(|w| (least..=3600).contains(w)),
                "{seconds}: {waits:?}"
            );
        }
        let waits: std::collections::BTreeSet<u64> = (0..100).map(|_| spread(30)).collect();
        assert!(waits.len() > 10, "{waits:?}");
    }
}
