//! Authorization: the rights and the scope that a route needs, and the credentials of a request.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fields::{Field, Fields};
use super::host::AcceptedHost;
use crate::auth::key::KeyId;
use crate::auth::{Certified, Fingerprint, Key, Rights};
use crate::http::context::Context;
use crate::http::response::problem::{Kind, Problem};
use crate::ingest::admission::Share;
use crate::metrics;
use crate::reading::Timestamp;

/// Who may call a route.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Access {
    /// Anyone, without a key.
    Public,
    /// A key with any of these rights, within a scope.
    Key(Rights, Scope),
}

/// How a route is limited by the device prefix of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The id in the path is a device id, which must begin with the prefix.
    Device,
    /// The response covers several devices, so a key with a prefix gets 403.
    Fleet,
    /// The body, the query or the stored session names the devices, and the handler compares them with the prefix.
    Content,
}

/// The client end of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Where the connection comes from.
    pub(crate) address: IpAddr,
    /// Its certificate, if it has one; signed by the configured authority.
    pub(crate) certificate: Option<Fingerprint>,
    /// The Host of its first request, once accepted.
    pub(crate) host: AcceptedHost,
}

/// The caller of a route.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// Anyone: the route is public, or the gateway requires no keys.
    Anyone,
    /// A certificate that no key names. It may send readings.
    Certificate,
    /// A key, or a certificate that stands for one.
    Key(Arc<Key>),
}

impl Caller {
    /// Identifies the caller and checks its rights.
    ///
    /// Blocks: never
    ///
    /// # Errors
    /// 401 without valid credentials, 403 without one of the rights.
    pub(crate) fn admit(
        context: &Context,
        peer: &Peer,
        access: Access,
        fields: &Fields<'_>,
    ) -> Result<Caller, Problem> {
        let (Some(keys), Access::Key(needed, _)) = (&context.keys, access) else {
            return Ok(Caller::Anyone);
        };
        let now = Timestamp::now();
        let caller = match (fields.authorization, peer.certificate) {
            (Field::Once(value), _) => {
                let text = bearer(value.as_bytes());
                let key = text.and_then(|text| keys.find(text, now));
                // The response does not tell which of the three is wrong, because that would help only a thief.
                Caller::Key(key.ok_or_else(|| {
                    let detail = "the key is unknown, was revoked or has expired";
                    unauthorized(detail, INVALID_TOKEN)
                })?)
            }
            (Field::Absent, Some(certificate)) => match keys.certified(certificate, now) {
                Certified::Unmapped => Caller::Certificate,
                Certified::As(key) => Caller::Key(key),
                Certified::Refused => {
                    let detail = "the certificate's key was revoked or has expired";
                    return Err(unauthorized(detail, INVALID_TOKEN));
                }
            },
            (Field::Absent, None) => {
                let detail = "this path needs a key: send Authorization: Bearer KEY";
                return Err(unauthorized(detail, NO_TOKEN));
            }
            (Field::Repeated(_), _) => {
                let detail = "the request must have one Authorization header";
                return Err(unauthorized(detail, INVALID_TOKEN));
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
        Err(forbidden(format!(
            "this request needs the right to {needed}"
        )))
    }

    /// The key's id, for the log.
    pub(crate) fn key(&self) -> Option<KeyId> {
        match self {
            Caller::Key(key) => Some(key.record.id),
            Caller::Certificate | Caller::Anyone => None,
        }
    }

    /// The key's id and its name, for what operators do. `None` without a key.
    pub(crate) fn signature(&self) -> Option<(KeyId, &str)> {
        match self {
            Caller::Key(key) => Some((key.record.id, &key.record.name)),
            Caller::Certificate | Caller::Anyone => None,
        }
    }

    /// The prefix of the caller's device ids. `None` means any device.
    pub(crate) fn prefix(&self) -> Option<&str> {
        match self {
            Caller::Key(key) => key.record.prefix.as_deref(),
            Caller::Certificate | Caller::Anyone => None,
        }
    }

    /// The memory share of the caller's key.
    pub(crate) fn share(&self) -> Option<&Arc<Share>> {
        match self {
            Caller::Key(key) => Some(&key.share),
            Caller::Certificate | Caller::Anyone => None,
        }
    }

    /// Checks that the device in the path, if there is one, belongs to the caller.
    ///
    /// # Errors
    /// 403
    pub(crate) fn check_scope(&self, scope: Scope, id: &str) -> Result<(), Problem> {
        let Some(prefix) = self.prefix() else {
            return Ok(());
        };
        match scope {
            Scope::Device if !id.starts_with(prefix) => Err(not_your_device()),
            Scope::Fleet => Err(forbidden(
                "this path covers all devices, but the key is limited to a prefix; use a path with \
                 a device id",
            )),
            Scope::Device | Scope::Content => Ok(()),
        }
    }

    /// Checks the caller's rate before the body is read.
    ///
    /// # Errors
    /// 429: it has sent more readings than its rate allows.
    pub(crate) fn check_rate(&self) -> Result<(), Problem> {
        let Caller::Key(key) = self else {
            return Ok(());
        };
        let debt = key.bucket.as_ref().and_then(|b| b.debt(Instant::now()));
        debt.map_or(Ok(()), |wait| Err(too_many(wait)))
    }

    /// Counts readings towards the caller's rate.
    ///
    /// # Errors
    /// 429, like [`Caller::check_rate`].
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

/// Whether a session belongs to the caller: its vehicle or its meter has the prefix.
pub(crate) fn owns_session(prefix: Option<&str>, vehicle: &str, meter: &str) -> bool {
    prefix.is_none_or(|prefix| vehicle.starts_with(prefix) || meter.starts_with(prefix))
}

/// The response if a device does not belong to the caller.
pub(crate) fn not_your_device() -> Problem {
    forbidden("the key does not cover this device").code("forbidden_device")
}

/// The key in an `Authorization` header.
///
/// Source: RFC 6750 §2.1; the scheme is case-insensitive, RFC 9110 §11.1
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(b"Bearer ".len())?;
    let rest = rest.trim_ascii();
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(rest)
}

/// The challenge to a request without credentials.
const NO_TOKEN: &str = r#"Bearer realm="wattgate""#;
/// The challenge to a request whose credentials are not valid.
const INVALID_TOKEN: &str = r#"Bearer realm="wattgate", error="invalid_token""#;

fn unauthorized(detail: &'static str, challenge: &'static str) -> Problem {
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
    fn a_key_follows_bearer_in_any_case() {
        for value in ["Bearer k", "bearer k", "BEARER   k "] {
            assert_eq!(bearer(value.as_bytes()), Some(&b"k"[..]), "{value}");
        }
        for value in ["", "k", "Bearer", "Basic k", "Bearerk x", "Bearer\tk"] {
            assert_eq!(bearer(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn a_session_belongs_to_its_vehicle_and_to_its_meter() {
        assert!(owns_session(None, "V1", "M1"));
        assert!(owns_session(Some("V"), "V1", "M1"));
        assert!(owns_session(Some("M"), "V1", "M1"));
        assert!(!owns_session(Some("X"), "V1", "M1"));
    }
}
