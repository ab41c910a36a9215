//! The id of a request, for its response and its log lines.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::header::{HeaderName, HeaderValue};

use super::fields::Field;

/// The header with the id.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id that is accepted from a client.
const BYTES_MAX: usize = 128;

/// Random digits of this process that precede a number, so that two gateways generate different ids.
static PROCESS: OnceLock<u32> = OnceLock::new();
/// The digits of both and the dash between them.
const MADE_BYTES_MAX: usize = 8 + 1 + 16;

/// The id of a request.
///
/// A generated id is stored as a number, because its text is needed only once, in the response.
#[derive(Debug, Clone)]
pub(crate) enum RequestId {
    /// From the client.
    Given(HeaderValue),
    /// Generated: a number of this process.
    Made(u64),
}

impl RequestId {
    /// The client's id if it can be logged unchanged, otherwise a new one.
    pub(crate) fn of(sent: Field<'_>) -> RequestId {
        match sent.first() {
            Some(id) if is_plain(id.as_bytes()) => RequestId::Given(id.clone()),
            _ => RequestId::new(),
        }
    }

    fn new() -> RequestId {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        RequestId::Made(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// The response header.
    pub(crate) fn header(&self) -> HeaderValue {
        match self {
            RequestId::Given(id) => id.clone(),
            RequestId::Made(number) => {
                let mut text = [0; MADE_BYTES_MAX];
                // Digits and a dash are always a valid header value.
                HeaderValue::from_bytes(made(*number, &mut text))
                    .unwrap_or_else(|_| HeaderValue::from_static("none"))
            }
        }
    }
}

/// Writes the text of a generated id. It equals that of [`fmt::Display`], but costs less.
fn made(number: u64, text: &mut [u8; MADE_BYTES_MAX]) -> &[u8] {
    let nibble = |of: u64, place: u32| b"0123456789abcdef"[(of >> (4 * place) & 15) as usize];
    let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(1);
    let process = u64::from(process());
    let all = (0..8).rev().map(|place| nibble(process, place));
    let all = all.chain([b'-']);
    let all = all.chain((0..digits).rev().map(|place| nibble(number, place)));
    let mut length = 0;
    for (slot, byte) in text.iter_mut().zip(all) {
        *slot = byte;
        length += 1;
    }
    &text[..length]
}

fn process() -> u32 {
    *PROCESS.get_or_init(|| getrandom::u32().unwrap_or_default())
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestId::Given(id) => f.write_str(id.to_str().unwrap_or_default()),
            RequestId::Made(number) => write!(f, "{:08x}-{number:x}", process()),
        }
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
    fn a_clients_request_id_is_kept_if_it_can_be_logged() {
        let of = |id: &str| {
            let value = HeaderValue::from_str(id).unwrap();
            RequestId::of(Field::Once(&value)).to_string()
        };
        assert_eq!(of("9b2f-41/a.b:c_d"), "9b2f-41/a.b:c_d");
        for wrong in ["", "a b", "a\"b", &"x".repeat(129)] {
            assert_ne!(of(wrong), wrong);
        }
        for number in [0, 1, 15, 16, 0x1234_5678_9abc, u64::MAX] {
            let made = RequestId::Made(number);
            assert_eq!(made.header().to_str().unwrap(), made.to_string());
        }
        assert_ne!(
            RequestId::of(Field::Absent).to_string(),
            RequestId::of(Field::Absent).to_string()
        );
    }
}
