//! The Host headers that a gateway without keys accepts.
//!
//! After a web page was loaded, its name may resolve to the operator's machine (DNS rebinding). To the
//! browser both are one origin then, and the page may read and write. But the page cannot send a
//! Host other than its own name, so the gateway accepts only addresses and `localhost`.

use std::net::IpAddr;

use hyper::header::HOST;
use hyper::http::request::Parts;

use crate::http::response::problem::{Kind, Problem};

/// Checks that the Host is not a name that anyone could own.
///
/// # Errors
/// 403, with the next step.
pub(crate) fn check(parts: &Parts) -> Result<(), Problem> {
    let named = parts.headers.get(HOST).map(|host| host.as_bytes());
    let authority = parts.uri.authority().map(|a| a.as_str().as_bytes());
    if [named, authority].into_iter().flatten().all(is_local) {
        return Ok(());
    }
    let detail = "without keys the Host header must be an address or localhost, so that no web page \
        can call the gateway under a name of its own: require keys (--auth keys), or name the proxy \
        (--trusted-proxies)";
    Err(Problem::new(Kind::Forbidden, detail))
}

/// Whether a host, with a port or none, is an address or a name of this machine alone.
///
/// Source: RFC 6761 §6.3 on `localhost` and what is below it
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
    // Some health checks send an empty Host, and no page can.
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
