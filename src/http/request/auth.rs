//! Who may do what: which right each endpoint needs, and what a caller shows for it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;

use super::router::{Ask, Endpoint};
use crate::auth::key::KeyId;
use crate::auth::{Certified, Fingerprint, Key, Rights};
use crate::http::Context;
use crate::http::response::problem::{Kind, Problem};
use crate::ingest::admission::Share;
use crate::metrics;
use crate::reading::Timestamp;

/// The rights of which an endpoint needs one; none: it is open to all.
///
/// This is the table of the whole interface: an endpoint that is not in it does not compile.
pub(crate) const fn needs(endpoint: Endpoint) -> Option<Rights> {
    match endpoint {
        Endpoint::Ingest(_) => Some(Rights::INGEST),
        Endpoint::Ask(asked) => Some(match asked {
            Ask::LiveList(_)
            | Ask::LiveOne(_)
            | Ask::LiveStream
            | Ask::History(_)
            | Ask::SessionList
            | Ask::SessionGet
            | Ask::Performance
            | Ask::Ranking
            | Ask::Fleet
            | Ask::Alerts
            | Ask::Export(_) => Rights::READ,
            Ask::SessionPost | Ask::SessionDelete | Ask::SessionEnd | Ask::MeterPut => {
                Rights::INGEST.or(Rights::ADMIN)
            }
        }),
        Endpoint::HealthLive
        | Endpoint::HealthReady
        | Endpoint::Metrics
        | Endpoint::OpenapiJson
        | Endpoint::OpenapiYaml
        | Endpoint::Dashboard
        | Endpoint::Docs
        | Endpoint::Asset => None,
    }
}

/// What a prefix of device ids means for a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// The id in the path is the device's.
    Path,
    /// It spans devices.
    All,
    /// The handler compares the vehicle and the meter.
    Session,
}

const fn reach(asked: Ask) -> Reach {
    match asked {
        Ask::LiveOne(_) | Ask::History(_) | Ask::MeterPut | Ask::Performance => Reach::Path,
        Ask::LiveList(_)
        | Ask::LiveStream
        | Ask::Ranking
        | Ask::Fleet
        | Ask::Alerts
        | Ask::Export(_) => Reach::All,
        Ask::SessionPost
        | Ask::SessionList
        | Ask::SessionGet
        | Ask::SessionDelete
        | Ask::SessionEnd => Reach::Session,
    }
}

/// What is known of a connection's other end before it asks for anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Where the connection comes from.
    pub(crate) address: IpAddr,
    /// The certificate of the configured authority that it has shown.
    pub(crate) certificate: Option<Fingerprint>,
}

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// Anyone: the endpoint is open, or the gateway asks for no keys.
    Anyone,
    /// The holder of a certificate that no key names: may send readings.
    Certificate,
    /// The holder of a key, or of the certificate that stands for it.
    Key(Arc<Key>),
}

impl Caller {
    /// Finds out who asks, and whether they may.
    ///
    /// Blocks: never
    pub(crate) fn admit(
        context: &Context,
        peer: Peer,
        endpoint: Endpoint,
        headers: &HeaderMap,
    ) -> Result<Caller, Problem> {
        let (Some(keys), Some(needed)) = (&context.keys, needs(endpoint)) else {
            return Ok(Caller::Anyone);
        };
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let now = Timestamp::now();
        let caller = match (values.next(), values.next(), peer.certificate) {
            (Some(value), None, _) => {
                let text = bearer(value.as_bytes());
                let key = text.and_then(|text| keys.find(text, now));
                // Which of these it is would help nobody but a thief.
                Caller::Key(key.ok_or_else(|| {
                    unauthorized("the key is unknown, was revoked or has expired", true)
                })?)
            }
            (None, _, Some(certificate)) => match keys.certified(certificate, now) {
                Certified::Unmapped => Caller::Certificate,
                Certified::As(key) => Caller::Key(key),
                Certified::Refused => {
                    let detail = "the certificate was revoked, or its time is over";
                    return Err(unauthorized(detail, true));
                }
            },
            (None, _, None) => {
                let detail = "this needs a key: Authorization: Bearer KEY";
                return Err(unauthorized(detail, false));
            }
            (Some(_), Some(_), _) => {
                return Err(unauthorized("there is more than one Authorization", true));
            }
        };
        let rights = match &caller {
            Caller::Key(key) => key.record.rights,
            Caller::Certificate | Caller::Anyone => Rights::INGEST,
        };
        if rights.any_of(needed) {
            return Ok(caller);
        }
        let needed = needed.to_string().replace(',', " or ");
        Err(forbidden(format!("this needs the right to {needed}")))
    }

    /// The key's id, for the log.
    pub(crate) fn key(&self) -> Option<KeyId> {
        match self {
            Caller::Key(key) => Some(key.record.id),
            Caller::Certificate | Caller::Anyone => None,
        }
    }

    /// What the ids of the caller's devices begin with; none: any.
    pub(crate) fn prefix(&self) -> Option<&str> {
        match self {
            Caller::Key(key) => key.record.prefix.as_deref(),
            Caller::Certificate | Caller::Anyone => None,
        }
    }

    /// The caller's share of the memory for readings.
    pub(crate) fn share(&self) -> Option<&Arc<Share>> {
        match self {
            Caller::Key(key) => Some(&key.share),
            Caller::Certificate | Caller::Anyone => None,
        }
    }

    /// Refuses a question about devices of others, as far as the path tells.
    pub(crate) fn may_ask(&self, asked: Ask, id: &str) -> Result<(), Problem> {
        let Some(prefix) = self.prefix() else {
            return Ok(());
        };
        match reach(asked) {
            Reach::Path if !id.starts_with(prefix) => Err(of_others()),
            Reach::All => Err(forbidden(
                "this spans devices, and the key is for some of them; ask for one by its id",
            )),
            Reach::Path | Reach::Session => Ok(()),
        }
    }

    /// Refuses a caller who is over its rate, before anything of the body is read.
    pub(crate) fn check_rate(&self) -> Result<(), Problem> {
        let Caller::Key(key) = self else {
            return Ok(());
        };
        let debt = key.bucket.as_ref().and_then(|b| b.debt(Instant::now()));
        debt.map_or(Ok(()), |wait| Err(too_many(wait)))
    }

    /// Counts readings towards the caller's rate.
    pub(crate) fn charge(&self, readings: u64) -> Result<(), Problem> {
        let Caller::Key(key) = self else {
            return Ok(());
        };
        match &key.bucket {
            Some(bucket) => bucket.charge(Instant::now(), readings).map_err(too_many),
            None => Ok(()),
        }
    }
}

/// Whether a session is one of a caller's devices: its vehicle is, or its meter.
pub(crate) fn owns_session(prefix: Option<&str>, vehicle: &str, meter: &str) -> bool {
    prefix.is_none_or(|prefix| vehicle.starts_with(prefix) || meter.starts_with(prefix))
}

/// The refusal of a device that is not the caller's.
pub(crate) fn of_others() -> Problem {
    forbidden("the key is not for this device").code("forbidden_device")
}

/// The key in a value of `Authorization`.
///
/// Source: RFC 6750 §2.1; the scheme in any case, RFC 9110 §11.1
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(b"Bearer ".len())?;
    let rest = rest.trim_ascii();
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(rest)
}

fn unauthorized(detail: &'static str, shown: bool) -> Problem {
    let challenge = if shown {
        r#"Bearer realm="wattgate", error="invalid_token""#
    } else {
        r#"Bearer realm="wattgate""#
    };
    Problem::new(Kind::Unauthorized, detail).www_authenticate(challenge)
}

fn forbidden(detail: impl Into<std::borrow::Cow<'static, str>>) -> Problem {
    Problem::new(Kind::Forbidden, detail)
}

fn too_many(wait: Duration) -> Problem {
    metrics::http_shed("rate");
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Problem::new(
        Kind::RateLimited,
        "the key has sent more readings than its rate allows",
    )
    .retry_after(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_taken_behind_bearer_in_any_case() {
        for value in ["Bearer k", "bearer k", "BEARER   k "] {
            assert_eq!(bearer(value.as_bytes()), Some(&b"k"[..]), "{value}");
        }
        for value in ["", "k", "Bearer", "Basic k", "Bearerk x", "Bearer\tk"] {
            assert_eq!(bearer(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn a_session_is_of_the_fleet_of_its_vehicle_or_of_its_meter() {
        assert!(owns_session(None, "V1", "M1"));
        assert!(owns_session(Some("V"), "V1", "M1"));
        assert!(owns_session(Some("M"), "V1", "M1"));
        assert!(!owns_session(Some("X"), "V1", "M1"));
    }
}
