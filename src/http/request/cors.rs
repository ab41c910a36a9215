//! CORS: a web page may call the gateway from a browser only if its origin is configured.
//!
//! Source: the Fetch standard, "CORS protocol"

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ALLOW,
    HeaderValue, ORIGIN, VARY,
};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method};

/// The headers that pages may send.
const ALLOWED: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, content-encoding, wattgate-read-after, x-request-id",
);
/// The response headers that pages may read.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "location, retry-after, wattgate-as-of, wattgate-written, www-authenticate, x-request-id",
);
/// How long a browser may cache the response to a preflight, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// Whether a text is an origin in the form in which browsers send it: without a path, a trailing slash or upper
/// case. `*` means any origin.
pub fn is_origin(text: &str) -> bool {
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-:[]".contains(&b);
    text == "*" || host.is_some_and(|host| !host.is_empty() && host.bytes().all(known))
}

/// Adds the CORS headers to a response.
///
/// Credentials of the browser (cookies) are never allowed, because pages send a key.
pub(crate) fn decorate(origins: &[String], parts: &Parts, headers: &mut HeaderMap) {
    if origins.is_empty() {
        return;
    }
    headers.append(VARY, HeaderValue::from_static("origin"));
    let mut sent = parts.headers.get_all(ORIGIN).iter();
    let (Some(origin), None) = (sent.next(), sent.next()) else {
        return;
    };
    let known = |allowed: &String| allowed == "*" || allowed.as_bytes() == origin.as_bytes();
    if !origins.iter().any(known) {
        return;
    }
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    let is_options = parts.method == Method::OPTIONS;
    if is_options && parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        if let Some(allow) = headers.get(ALLOW).cloned() {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, allow);
        }
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED);
        headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    } else {
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
}
