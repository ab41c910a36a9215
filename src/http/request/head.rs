//! Checks of a request's head that HTTP requires and hyper does not make.

use hyper::Version;
use hyper::http::request::Parts;

use super::fields::{Field, Fields};
use crate::http::response::problem::{Kind, Problem};

/// Checks the number of Host headers and the Transfer-Encoding.
///
/// If a request has both lengths, hyper follows RFC 9112 §6.3: Transfer-Encoding wins, and Content-Length is
/// hidden. Of several transfer codings, hyper decodes only the last one, chunked, and passes on the others' output
/// as the body.
///
/// Source: RFC 9112 §3.2 and §6.1
pub(crate) fn check(parts: &Parts, fields: &Fields<'_>) -> Result<(), Problem> {
    let one_host = match fields.host {
        Field::Once(_) => true,
        Field::Absent => parts.version != Version::HTTP_11,
        Field::Repeated(_) => false,
    };
    if !one_host {
        let detail = "the request must have exactly one Host header";
        return Err(Problem::new(Kind::BadRequest, detail).close());
    }
    let chunked_alone = match fields.transfer_encoding {
        Field::Absent => true,
        Field::Once(coding) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        Field::Repeated(_) => false,
    };
    if !chunked_alone {
        let detail = "the Transfer-Encoding must be chunked alone";
        return Err(Problem::new(Kind::BadRequest, detail).close());
    }
    Ok(())
}
