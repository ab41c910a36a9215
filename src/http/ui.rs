//! `/`, `/docs` and `/assets/…`: the dashboard and the interface's reference, as they are in the
//! binary.
//!
//! Nothing is built and nothing comes from elsewhere: a browser gets the files as they lie in
//! `assets/`. The pages need no key; what they show asks for it.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, HeaderMap, HeaderName, HeaderValue,
    IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};

use super::response::reply;
use crate::http::response::problem::{Kind, Problem};
use crate::http::response::reply::{Reply, with_body};

/// What a page may do: run our scripts and styles, ask this gateway, and nothing else. An id that
/// holds markup could not run even if it were written into the page as markup, which the types
/// of the last directive forbid.
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

/// Every file, by the name after `/assets/`.
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
    asset!("alerts.js", SCRIPT),
    asset!("docs.js", SCRIPT),
    asset!("uplot.js", "vendor/uplot.js", SCRIPT),
    asset!("uplot.css", "vendor/uplot.css", STYLE),
    asset!("uplot.LICENSE", "vendor/uplot.LICENSE", TEXT),
];

/// The dashboard's page.
pub(super) fn page(headers: &HeaderMap) -> Result<Reply, Problem> {
    file("index.html", headers)
}

/// The page of the interface's reference.
pub(super) fn docs(headers: &HeaderMap) -> Result<Reply, Problem> {
    file("docs.html", headers)
}

/// One file; 304 where the browser has it already.
pub(super) fn file(name: &str, headers: &HeaderMap) -> Result<Reply, Problem> {
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
    // Asked for each time, so that a new version is whole: pages and scripts belong together.
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

    /// The names that a text mentions as files of ours.
    fn mentioned(text: &str) -> Vec<String> {
        let quoted = text.split(['"', '\'']);
        let ours = quoted.filter_map(|part| {
            part.strip_prefix("/assets/")
                .or_else(|| part.strip_prefix("./"))
        });
        ours.map(str::to_owned).collect()
    }

    #[test]
    fn every_file_that_a_page_or_a_script_asks_for_is_there() {
        let mut found = 0;
        for asset in ASSETS.iter().filter(|a| [HTML, SCRIPT].contains(&a.kind)) {
            if asset.name == "uplot.js" {
                continue;
            }
            for name in mentioned(std::str::from_utf8(asset.body).unwrap()) {
                let is_there = ASSETS.iter().any(|other| other.name == name);
                assert!(is_there, "{name}, asked for by {}", asset.name);
                found += 1;
            }
        }
        assert!(found > 10, "the test sees only {found}");
    }

    #[test]
    fn pages_hold_no_inline_script_and_fetch_nothing_foreign() {
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
    fn ids_can_become_nothing_but_text() {
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
    fn a_file_that_the_browser_has_is_not_sent_again() {
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
