//! `/`, `/docs` and `/assets/…`: the dashboard and the API reference, served from the binary.
//!
//! There is no build step and no foreign source: browsers get the files of `ui/` unchanged. The pages need no key,
//! but their requests do.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, HeaderMap, HeaderName, HeaderValue,
    IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};

use crate::http::request::call::Call;
use crate::http::response::problem::{Kind, Problem};
use crate::http::response::reply;
use crate::http::response::reply::{Reply, with_body};

/// What a page may do: load scripts and styles from this gateway, call this gateway, and nothing else. Markup in
/// an id could not execute even if a script inserted it into the page, and the last directive forbids that too.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'",
);
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// A file of the dashboard.
struct Asset {
    name: &'static str,
    kind: &'static str,
    body: &'static [u8],
}

macro_rules! asset {
    ($name:literal, $kind:expr) => {
        asset!($name, $name, $kind)
    };
    ($name:literal, $path:literal, $kind:expr) => {
        Asset {
            name: $name,
            kind: $kind,
            body: include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/ui/", $path)),
        }
    };
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// All files, by their name after `/assets/`.
static ASSETS: &[Asset] = &[
    asset!("index.html", HTML),
    asset!("docs.html", HTML),
    asset!("app.css", STYLE),
    asset!("icon.svg", "image/svg+xml"),
    asset!("theme.js", SCRIPT),
    asset!("main.js", SCRIPT),
    asset!("api.js", SCRIPT),
    asset!("dom.js", SCRIPT),
    asset!("format.js", SCRIPT),
    asset!("stream.js", SCRIPT),
    asset!("store.js", SCRIPT),
    asset!("charts.js", SCRIPT),
    asset!("fleet.js", SCRIPT),
    asset!("energy.js", SCRIPT),
    asset!("devices.js", SCRIPT),
    asset!("vehicle.js", SCRIPT),
    asset!("meter.js", SCRIPT),
    asset!("sessions.js", SCRIPT),
    asset!("charging.js", SCRIPT),
    asset!("alerts.js", SCRIPT),
    asset!("alert_actions.js", SCRIPT),
    asset!("open_alerts.js", SCRIPT),
    asset!("docs.js", SCRIPT),
    asset!("uplot.js", "vendor/uplot.js", SCRIPT),
    asset!("uplot.css", "vendor/uplot.css", STYLE),
    asset!("uplot.LICENSE", "vendor/uplot.LICENSE", TEXT),
];

/// Responds with the dashboard.
pub(super) fn page(call: &Call<'_>) -> Result<Reply, Problem> {
    file("index.html", &call.parts.headers)
}

/// Responds with the API reference.
pub(super) fn docs(call: &Call<'_>) -> Result<Reply, Problem> {
    file("docs.html", &call.parts.headers)
}

/// Responds with a file of the dashboard.
pub(super) fn asset(call: &Call<'_>) -> Result<Reply, Problem> {
    file(call.id, &call.parts.headers)
}

/// One file; 304 if the browser already has it.
fn file(name: &str, headers: &HeaderMap) -> Result<Reply, Problem> {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return Err(Problem::new(Kind::NotFound, "there is no such file"));
    };
    let tag = format!("\"{:08x}\"", crc32c::crc32c(asset.body));
    let mut reply = if is_known(headers, &tag) {
        reply::empty(StatusCode::NOT_MODIFIED)
    } else {
        let kind = HeaderValue::from_static(asset.kind);
        with_body(StatusCode::OK, kind, Bytes::from_static(asset.body))
    };
    let headers = reply.headers_mut();
    // Revalidated each time, because pages and scripts must be of the same version.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::try_from(tag) {
        headers.insert(ETAG, tag);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(OPENER_POLICY, HeaderValue::from_static("same-origin"));
    Ok(reply)
}

/// Whether the browser has the file with this tag.
///
/// Source: RFC 9110 §13.1.2; tags are compared weakly
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).any(|known| {
        let known = known.trim();
        known == "*" || known.trim_start_matches("W/") == tag
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of our files in a text.
    fn mentioned(text: &str) -> Vec<String> {
        let quoted = text.split(['"', '\'']);
        let ours = quoted.filter_map(|part| {
            part.strip_prefix("/assets/")
                .or_else(|| part.strip_prefix("./"))
        });
        ours.map(str::to_owned).collect()
    }

    #[test]
    fn every_file_named_by_a_page_or_a_script_exists() {
        let mut found = 0;
        for asset in ASSETS.iter().filter(|a| [HTML, SCRIPT].contains(&a.kind)) {
            if asset.name == "uplot.js" {
                continue;
            }
            for name in mentioned(std::str::from_utf8(asset.body).unwrap()) {
                let is_there = ASSETS.iter().any(|other| other.name == name);
                assert!(is_there, "{name}, named by {}", asset.name);
                found += 1;
            }
        }
        assert!(found > 10, "the test sees only {found}");
    }

    #[test]
    fn pages_have_no_inline_script_and_no_foreign_source() {
        for asset in ASSETS.iter().filter(|asset| asset.kind == HTML) {
            let text = std::str::from_utf8(asset.body).unwrap();
            for forbidden in [
                "<style",
                " style=",
                " onclick=",
                " onload=",
                "http://",
                "https://",
            ] {
                assert!(!text.contains(forbidden), "{forbidden} in {}", asset.name);
            }
            for script in text.split("<script").skip(1) {
                let (_, rest) = script.split_once('>').unwrap();
                assert!(rest.starts_with("</script>"), "inline in {}", asset.name);
            }
        }
    }

    #[test]
    fn ids_can_only_become_text() {
        let ours = |a: &&Asset| a.kind == SCRIPT && a.name != "uplot.js";
        for asset in ASSETS.iter().filter(ours) {
            let text = std::str::from_utf8(asset.body).unwrap();
            for forbidden in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
            ] {
                assert!(!text.contains(forbidden), "{forbidden} in {}", asset.name);
            }
        }
    }

    #[test]
    fn a_cached_file_is_not_sent_again() {
        let page = |headers: &HeaderMap| file("index.html", headers);
        let first = page(&HeaderMap::new()).unwrap();
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(first.headers()[CONTENT_SECURITY_POLICY], POLICY);
        let tag = first.headers()[ETAG].to_str().unwrap();
        for known in [
            tag.to_owned(),
            format!("W/{tag}"),
            format!("\"x\", {tag}"),
            "*".to_owned(),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(IF_NONE_MATCH, known.parse().unwrap());
            assert_eq!(page(&headers).unwrap().status(), StatusCode::NOT_MODIFIED);
        }
        let mut headers = HeaderMap::new();
        headers.insert(IF_NONE_MATCH, "\"00000000\"".parse().unwrap());
        assert_eq!(page(&headers).unwrap().status(), StatusCode::OK);
        assert!(file("../mod.rs", &HeaderMap::new()).is_err());
    }
}
