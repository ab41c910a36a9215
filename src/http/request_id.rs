//! The name of a request, in its answer and in what is logged of it.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

/// The header that carries it.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest that is taken from a client.
const BYTES_MAX: usize = 128;

/// The id of a request.
#[derive(Debug, Clone)]
pub(super) struct RequestId(HeaderValue);

impl RequestId {
    /// The client's id where it sends one that can be logged as it is, else a new one.
    pub(super) fn of(headers: &HeaderMap) -> RequestId {
        match headers.get(X_REQUEST_ID) {
            Some(id) if is_plain(id.as_bytes()) => RequestId(id.clone()),
            _ => RequestId::new(),
        }
    }

    /// A number of this process behind random digits of its own: two gateways do not share any.
    fn new() -> RequestId {
        static RUN: OnceLock<u32> = OnceLock::new();
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let run = RUN.get_or_init(|| getrandom::u32().unwrap_or_default());
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Digits and a dash are always a value.
        let value = HeaderValue::try_from(format!("{run:08x}-{number:x}"));
        RequestId(value.unwrap_or_else(|_| HeaderValue::from_static("none")))
    }

    /// As the answer carries it.
    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_str().unwrap_or_default())
    }
}

fn is_plain(id: &[u8]) -> bool {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:/+=".contains(b);
    (1..=BYTES_MAX).contains(&id.len()) && id.iter().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_id_is_kept_where_it_can_be_logged_and_replaced_elsewhere() {
        let of = |id: &str| {
            let value = HeaderValue::from_str(id).unwrap();
            RequestId::of(&HeaderMap::from_iter([(X_REQUEST_ID, value)])).to_string()
        };
        assert_eq!(of("9b2f-41/a.b:c_d"), "9b2f-41/a.b:c_d");
        for wrong in ["", "a b", "a\"b", &"x".repeat(129)] {
            assert_ne!(of(wrong), wrong);
        }
        let none = HeaderMap::new();
        assert_ne!(
            RequestId::of(&none).to_string(),
            RequestId::of(&none).to_string()
        );
    }
}
