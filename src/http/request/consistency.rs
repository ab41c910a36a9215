//! The headers with which a client sees what it has written, and how old an answer is.
//!
//! They matter only with read replicas. Without replicas, the primary answers every query.

use std::sync::OnceLock;

use hyper::header::{HeaderName, HeaderValue};

use super::fields::{Field, Fields};
use crate::http::response::problem::{Kind, Problem};
use crate::http::response::reply::Reply;
use crate::postgres::{ReadServers, Reads, Written};

/// The token of what a request has written.
const WRITTEN: HeaderName = HeaderName::from_static("wattgate-written");
/// The moment up to which an answer is complete.
const AS_OF: HeaderName = HeaderName::from_static("wattgate-as-of");

/// Reads the token of what the client has written, which the answer must hold.
///
/// # Errors
/// 400: the header was repeated, or is not a token.
pub(crate) fn read_after(fields: &Fields<'_>) -> Result<Option<Written>, Problem> {
    let token = match fields.read_after {
        Field::Absent => return Ok(None),
        Field::Once(value) => value.to_str().ok().and_then(|text| text.parse().ok()),
        Field::Repeated(_) => None,
    };
    token.map(Some).ok_or_else(|| {
        let detail = "Wattgate-Read-After must be one token, as Wattgate-Written returned it";
        Problem::new(Kind::BadParameter, detail)
    })
}

/// Adds the token of what a request has written, if there are replicas.
pub(crate) async fn add_written(reply: &mut Reply, reads: &ReadServers) {
    if let Some(written) = reads.written().await {
        add(reply, WRITTEN, written.to_string());
    }
}

/// Adds the moment up to which the answer is complete, if a replica has answered.
pub(crate) fn add_as_of(reply: &mut Reply, reads: &OnceLock<Reads>) {
    let complete_to = reads.get().and_then(|it| it.provenance().complete_to);
    if let Some(complete_to) = complete_to {
        add(reply, AS_OF, complete_to.to_string());
    }
}

fn add(reply: &mut Reply, name: HeaderName, text: String) {
    // Both texts are ASCII.
    if let Ok(value) = HeaderValue::try_from(text) {
        reply.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;

    use super::*;

    #[test]
    fn a_token_is_read_strictly() {
        let read = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                let name = HeaderName::from_static("wattgate-read-after");
                headers.append(name, HeaderValue::from_static(value));
            }
            read_after(&Fields::of(&headers))
        };
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&["primary"]).unwrap(), Some(Written::Unknown));
        let token = read(&["7a.2.16b374d848"]).unwrap().unwrap();
        assert_eq!(token.to_string(), "7a.2.16b374d848");
        for wrong in [&[""][..], &["x"], &["1.2"], &["primary", "primary"]] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}
