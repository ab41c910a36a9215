//! What HTTP requires of a request's head and hyper does not check.

use hyper::Version;
use hyper::header::{HOST, HeaderValue, TRANSFER_ENCODING};
use hyper::http::request::Parts;

use crate::http::response::problem::{Kind, Problem};

/// Checks the Host and the Transfer-Encoding of a request.
///
/// If a request has both lengths, hyper follows RFC 9112 §6.3: Transfer-Encoding counts, and
/// hides Content-Length. Of several transfer codings hyper undoes the last, chunked, and presents
/// the output of the others as the body.
///
/// Source: RFC 9112 §3.2 and §6.1, RFC 9113 §8.3.1
pub(crate) fn check(parts: &Parts) -> Result<(), Problem> {
    let headers = &parts.headers;
    let mut hosts = headers.get_all(HOST).iter();
    let one = hosts.next().is_some() && hosts.next().is_none();
    if !one && (parts.version == Version::HTTP_11 || headers.contains_key(HOST)) {
        let detail = "the request must have exactly one Host header";
        return Err(Problem::new(Kind::BadRequest, detail).close());
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let is_chunked = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    if !codings.next().is_none_or(is_chunked) || codings.next().is_some() {
        let detail = "the Transfer-Encoding must be chunked alone";
        return Err(Problem::new(Kind::BadRequest, detail).close());
    }
    let named = headers.get(HOST).map(HeaderValue::as_bytes);
    let authority = parts.uri.authority().map(|a| a.as_str().as_bytes());
    if ![named, authority].into_iter().flatten().all(is_host) {
        let detail = "the Host header is not a valid host";
        return Err(Problem::new(Kind::BadRequest, detail).close());
    }
    // HTTP/2 has both. If they differ, a proxy and this gateway may use different ones.
    if parts.version == Version::HTTP_2
        && let (Some(host), Some(authority)) = (headers.get(HOST), parts.uri.authority())
        && !host
            .as_bytes()
            .eq_ignore_ascii_case(authority.as_str().as_bytes())
    {
        let detail = "the Host header must equal :authority";
        return Err(Problem::new(Kind::BadRequest, detail));
    }
    Ok(())
}

/// Whether a text can be a host with a port, or empty: no user, no path, no space.
///
/// Source: RFC 3986 §3.2.2; RFC 9110 §4.2.4 on users in it
fn is_host(text: &[u8]) -> bool {
    let known = |b: &u8| b.is_ascii_alphanumeric() || b".-_~%!$&'()*+,;=:[]".contains(b);
    text.iter().all(known)
}
