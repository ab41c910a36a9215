//! The Host of a request: whether it is valid, and whether the gateway accepts it.
//!
//! After a web page was loaded, its name may be made to resolve to the operator's machine (DNS rebinding). The
//! browser then takes both for one origin and lets the page read and write. But a page cannot send a Host other
//! than its own name, so a gateway without keys accepts only addresses and `localhost`.

use std::net::IpAddr;
use std::sync::OnceLock;

use hyper::Version;
use hyper::http::request::Parts;

use super::fields::Fields;
use crate::http::response::problem::{Kind, Problem};

/// The Host of a connection's first request, if it was accepted.
///
/// Later requests usually have the same Host. They need no further check, because the result depends on its text
/// alone.
#[derive(Debug, Default)]
pub(crate) struct AcceptedHost(OnceLock<Box<[u8]>>);

/// Checks the Host of a request, and the authority in its target, if there is one.
///
/// # Errors
/// 400: it is not a valid host. 403 if `local_only`: it is a name that anyone could own.
///
/// Source: RFC 9112 §3.2, RFC 9113 §8.3.1
pub(crate) fn check(
    parts: &Parts,
    fields: &Fields<'_>,
    local_only: bool,
    accepted: &AcceptedHost,
) -> Result<(), Problem> {
    let named = fields.host.first().map(|host| host.as_bytes());
    let authority = parts.uri.authority().map(|a| a.as_str().as_bytes());
    let only = match (named, authority) {
        (Some(only), None) | (None, Some(only)) => Some(only),
        _ => None,
    };
    if let (Some(only), Some(accepted)) = (only, accepted.0.get())
        && only == &**accepted
    {
        return Ok(());
    }
    if ![named, authority].into_iter().flatten().all(is_host) {
        let detail = "the Host header is not a valid host";
        return Err(Problem::new(Kind::BadRequest, detail).close());
    }
    // HTTP/2 may have both. If they differ, a proxy may have used one and this gateway the other.
    if parts.version == Version::HTTP_2
        && let (Some(host), Some(authority)) = (named, authority)
        && !host.eq_ignore_ascii_case(authority)
    {
        let detail = "the Host header must equal :authority";
        return Err(Problem::new(Kind::BadRequest, detail));
    }
    if local_only && ![named, authority].into_iter().flatten().all(is_local) {
        let detail = "without keys the Host header must be an IP address or localhost, so that no \
                      web page can reach the gateway through a name of its own; require keys \
                      (--auth keys), or name the proxy (--trusted-proxies)";
        return Err(Problem::new(Kind::Forbidden, detail));
    }
    if let Some(only) = only {
        accepted.0.get_or_init(|| only.into());
    }
    Ok(())
}

/// Whether a text is empty or a host with an optional port: no user, no path, no spaces.
///
/// Source: RFC 3986 §3.2.2; RFC 9110 §4.2.4 on user information
fn is_host(text: &[u8]) -> bool {
    let known = |b: &u8| b.is_ascii_alphanumeric() || b".-_~%!$&'()*+,;=:[]".contains(b);
    text.iter().all(known)
}

/// Whether a host, with an optional port, is an address or a name of this machine.
///
/// Source: RFC 6761 §6.3 on `localhost` and names below it
fn is_local(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else {
        return false;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name);
    let label = name.strip_suffix('.').unwrap_or(name).rsplit('.').next();
    // Some health checks send an empty Host, and web pages cannot.
    host.is_empty()
        || label.is_some_and(|label| label.eq_ignore_ascii_case("localhost"))
        || address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_localhost_are_local_and_other_names_are_not() {
        for local in [
            "",
            "localhost",
            "localhost.:3000",
            "LocalHost:3000",
            "fleet.localhost:3000",
            "127.0.0.1",
            "192.0.2.7:3000",
            "[::1]:3000",
            "[::1]",
        ] {
            assert!(is_local(local.as_bytes()), "{local}");
        }
        for other in [
            ".",
            ":3000",
            "evil.example",
            "evil.example:3000",
            "localhost.evil.example",
            "127.0.0.1.evil.example:3000",
            "notlocalhost",
            "2130706433.example",
            "[::1].evil.example",
        ] {
            assert!(!is_local(other.as_bytes()), "{other}");
        }
    }
}
