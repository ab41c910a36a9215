//! The types and encodings of bodies: `Content-Type`, `Content-Encoding`, `Accept`.

use hyper::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE};

use super::fields::{Field, Fields};
use crate::http::response::problem::{Kind, Problem};
use crate::ingest::decode::Format;

/// The value of `Accept-Encoding` in a 415 response.
const ACCEPTED_ENCODINGS: &str = "gzip, zstd, identity";

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

/// The format of a body of readings. Parameters of the type are ignored: JSON is UTF-8 whatever the `charset`, and
/// the decoder refuses other encodings.
///
/// A body without a type is refused, because a web page can make a browser send such a body to any address without
/// a preflight, even to a loopback address.
///
/// Source: RFC 8259 §8.1 and §11
pub(crate) fn readings_format(fields: &Fields<'_>) -> Result<Format, Problem> {
    match essence(fields)? {
        Media::Json => Ok(Format::Json),
        Media::Ndjson => Ok(Format::Ndjson),
        Media::Other => Err(Problem::new(
            Kind::UnsupportedMedia,
            "the Content-Type must be application/json or application/x-ndjson",
        )),
    }
}

/// Checks that the body is a JSON document.
pub(crate) fn expect_json(fields: &Fields<'_>) -> Result<(), Problem> {
    match essence(fields)? {
        Media::Json => Ok(()),
        _ => Err(Problem::new(
            Kind::UnsupportedMedia,
            "the Content-Type must be application/json",
        )),
    }
}

/// The encoding of a body. Only one is allowed.
pub(crate) fn encoding(fields: &Fields<'_>) -> Result<Encoding, Problem> {
    let mut found = Encoding::Identity;
    if fields.content_encoding == Field::Absent {
        return Ok(found);
    }
    let values = fields.all(CONTENT_ENCODING).into_iter();
    for name in values.flat_map(|value| value.as_bytes().split(|b| *b == b',')) {
        let name = name.trim_ascii().to_ascii_lowercase();
        let encoding = match name.as_slice() {
            // Empty list elements are ignored (RFC 9110 §5.6.1).
            b"" | b"identity" => continue,
            b"gzip" | b"x-gzip" => Encoding::Gzip,
            b"zstd" => Encoding::Zstd,
            _ => {
                let detail = "the Content-Encoding must be gzip, zstd or identity";
                return Err(Problem::new(Kind::UnsupportedMedia, detail)
                    .accept_encoding(ACCEPTED_ENCODINGS));
            }
        };
        if found != Encoding::Identity {
            let detail = "the body must be compressed at most once";
            return Err(
                Problem::new(Kind::UnsupportedMedia, detail).accept_encoding(ACCEPTED_ENCODINGS)
            );
        }
        found = encoding;
    }
    Ok(found)
}

#[derive(Debug, PartialEq, Eq)]
enum Media {
    Json,
    Ndjson,
    Other,
}

fn essence(fields: &Fields<'_>) -> Result<Media, Problem> {
    // The fast path: nearly every client sends exactly this.
    if fields.content_type.is(b"application/json") {
        return Ok(Media::Json);
    }
    let Some(value) = fields.content_type.first() else {
        let detail = "the body needs a Content-Type";
        return Err(Problem::new(Kind::UnsupportedMedia, detail));
    };
    // Some proxies repeat the header. Equal values do no harm.
    if fields.all(CONTENT_TYPE).iter().any(|other| other != value) {
        let detail = "the request must have one Content-Type, not several that differ";
        return Err(Problem::new(Kind::BadRequest, detail));
    }
    let value = value.as_bytes();
    let name = value.split(|b| *b == b';').next().unwrap_or_default();
    let name = std::str::from_utf8(name).unwrap_or_default().trim();
    let is = |names: &[&str]| names.iter().any(|n| name.eq_ignore_ascii_case(n));
    let media = if is(&["application/json"]) {
        Media::Json
    } else if is(&[
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
    ]) {
        Media::Ndjson
    } else {
        return Ok(Media::Other);
    };
    Ok(media)
}

/// Whether the client accepts JSON.
///
/// Source: RFC 9110 §12.5.1: the most specific matching range decides, and `q=0` means not acceptable
pub(crate) fn accepts_json(fields: &Fields<'_>) -> bool {
    if fields.accept == Field::Absent {
        return true;
    }
    let mut best: Option<(u8, bool)> = None;
    let mut any = false;
    for value in fields.all(ACCEPT) {
        if value.as_bytes() == b"*/*" || value.as_bytes() == b"application/json" {
            return true;
        }
        let text = String::from_utf8_lossy(value.as_bytes());
        for range in text.split(',').filter(|range| !range.trim().is_empty()) {
            any = true;
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let rank = match name.as_str() {
                "*/*" => 1,
                "application/*" => 2,
                "application/json" | "application/problem+json" => 3,
                _ => continue,
            };
            let refused = parts
                .filter_map(|p| p.split_once('='))
                .filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
                .any(|(_, q)| {
                    q.trim()
                        .trim_matches('"')
                        .parse::<f32>()
                        .is_ok_and(|q| q == 0.0)
                });
            best = match best {
                Some((r, accepted)) if r > rank || (r == rank && accepted) => Some((r, accepted)),
                _ => Some((rank, !refused)),
            };
        }
    }
    !any || best.is_some_and(|(_, accepted)| accepted)
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;
    use hyper::header::HeaderValue;

    use super::*;

    fn headers(name: hyper::header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn json_and_ndjson_are_accepted_with_any_charset() {
        let format = |v: &str| readings_format(&Fields::of(&headers(CONTENT_TYPE, v))).ok();
        for json in [
            "application/json",
            "Application/JSON; charset=\"UTF-8\"",
            "application/json;",
            "application/json; charset=utf8",
            "application/json;charset=us-ascii",
            "application/json; charset=latin1; x",
            "application/json ; charset=\"",
        ] {
            assert_eq!(format(json), Some(Format::Json), "{json}");
        }
        for lines in [
            "application/x-ndjson",
            "application/ndjson;charset=utf-8",
            "application/jsonl",
            "application/x-ndjson; charset=utf8",
        ] {
            assert_eq!(format(lines), Some(Format::Ndjson), "{lines}");
        }
        for other in [
            "",
            "text/plain",
            "charset=utf-8; application/json",
            "application/jsonx",
        ] {
            assert_eq!(format(other), None, "{other}");
        }
        let mut twice = headers(CONTENT_TYPE, "application/json");
        twice.append(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        assert!(expect_json(&Fields::of(&twice)).is_ok());
        twice.append(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        assert!(expect_json(&Fields::of(&twice)).is_err());
        assert!(readings_format(&Fields::of(&HeaderMap::new())).is_err());
        let lines = headers(CONTENT_TYPE, "application/x-ndjson");
        assert!(expect_json(&Fields::of(&lines)).is_err());
    }

    #[test]
    fn a_body_has_at_most_one_known_encoding() {
        let of = |v: &str| encoding(&Fields::of(&headers(CONTENT_ENCODING, v))).ok();
        let none = HeaderMap::new();
        assert_eq!(encoding(&Fields::of(&none)).ok(), Some(Encoding::Identity));
        assert_eq!(of("identity"), Some(Encoding::Identity));
        assert_eq!(of("GZip"), Some(Encoding::Gzip));
        assert_eq!(of("x-gzip, identity"), Some(Encoding::Gzip));
        assert_eq!(of("zstd"), Some(Encoding::Zstd));
        assert_eq!(of(""), Some(Encoding::Identity));
        for list in ["gzip,", ",gzip", "identity, , X-GZIP ,"] {
            assert_eq!(of(list), Some(Encoding::Gzip), "{list}");
        }
        for wrong in [
            "br",
            "gzip, gzip",
            "gzip,,gzip",
            "gzip;q=1",
            "zstd,gzip",
            "deflate",
        ] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn accept_headers_without_json_are_recognised() {
        let accepts = |v: &str| accepts_json(&Fields::of(&headers(ACCEPT, v)));
        assert!(accepts_json(&Fields::of(&HeaderMap::new())));
        for yes in [
            "*/*",
            "text/html, */*;q=0.1",
            "application/*",
            "application/problem+json",
            "",
            " , ",
            "text/html;p=\"a,b\", Application/JSON; Q=0.5",
        ] {
            assert!(accepts(yes), "{yes}");
        }
        for no in [
            "text/html",
            "*/*;q=0",
            "*/*, application/json;q=0",
            "application/json;q=0.0",
            "application/json; Q=\"0\"",
            "text/html,",
        ] {
            assert!(!accepts(no), "{no}");
        }
    }
}
