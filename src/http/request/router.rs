//! Every route, and finding the one of a path.
//!
//! The pattern of a route, never the path that was asked for, is what metrics are labelled with.

use std::borrow::Cow;

use crate::reading::Stream;

/// What a method of a route does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Ingest(Stream),
    Ask(Ask),
    HealthLive,
    HealthReady,
    Metrics,
    OpenapiJson,
    OpenapiYaml,
    Dashboard,
    Docs,
    Asset,
}

/// What is answered with the database's help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    LiveList(Stream),
    LiveOne(Stream),
    LiveStream,
    History(Stream),
    SessionPost,
    SessionList,
    SessionGet,
    SessionDelete,
    SessionEnd,
    MeterPut,
    Performance,
    Ranking,
    Fleet,
    Alerts,
    Export(Stream),
}

/// A path pattern with its methods.
#[derive(Debug)]
pub(crate) struct Route {
    /// Segments; `{name}` stands for any one.
    pub(crate) pattern: &'static str,
    /// What each method does; HEAD is there where GET is, OPTIONS everywhere.
    pub(crate) methods: &'static [(&'static str, Endpoint)],
    /// The value of `Allow`.
    pub(crate) allow: &'static str,
}

const GET: &str = "GET, HEAD, OPTIONS";
const POST: &str = "POST, OPTIONS";

/// Every route; the busiest first.
pub(crate) static ROUTES: &[Route] = &[
    route(
        "/v1/ingestion/meter",
        &[("POST", Endpoint::Ingest(Stream::Meter))],
        POST,
    ),
    route(
        "/v1/ingestion/vehicle",
        &[("POST", Endpoint::Ingest(Stream::Vehicle))],
        POST,
    ),
    route(
        "/v1/live/meters",
        &[("GET", Endpoint::Ask(Ask::LiveList(Stream::Meter)))],
        GET,
    ),
    route(
        "/v1/live/vehicles",
        &[("GET", Endpoint::Ask(Ask::LiveList(Stream::Vehicle)))],
        GET,
    ),
    route(
        "/v1/live/stream",
        &[("GET", Endpoint::Ask(Ask::LiveStream))],
        GET,
    ),
    route(
        "/v1/live/meters/{meterId}",
        &[("GET", Endpoint::Ask(Ask::LiveOne(Stream::Meter)))],
        GET,
    ),
    route(
        "/v1/live/vehicles/{vehicleId}",
        &[("GET", Endpoint::Ask(Ask::LiveOne(Stream::Vehicle)))],
        GET,
    ),
    route(
        "/v1/history/meter/{meterId}",
        &[("GET", Endpoint::Ask(Ask::History(Stream::Meter)))],
        GET,
    ),
    route(
        "/v1/history/vehicle/{vehicleId}",
        &[("GET", Endpoint::Ask(Ask::History(Stream::Vehicle)))],
        GET,
    ),
    route(
        "/v1/sessions",
        &[
            ("GET", Endpoint::Ask(Ask::SessionList)),
            ("POST", Endpoint::Ask(Ask::SessionPost)),
        ],
        "GET, HEAD, POST, OPTIONS",
    ),
    route(
        "/v1/sessions/{sessionId}",
        &[
            ("GET", Endpoint::Ask(Ask::SessionGet)),
            ("DELETE", Endpoint::Ask(Ask::SessionDelete)),
        ],
        "GET, HEAD, DELETE, OPTIONS",
    ),
    route(
        "/v1/sessions/{sessionId}/end",
        &[("POST", Endpoint::Ask(Ask::SessionEnd))],
        POST,
    ),
    route(
        "/v1/meters/{meterId}",
        &[("PUT", Endpoint::Ask(Ask::MeterPut))],
        "PUT, OPTIONS",
    ),
    route(
        "/v1/analytics/performance",
        &[("GET", Endpoint::Ask(Ask::Ranking))],
        GET,
    ),
    route(
        "/v1/analytics/fleet",
        &[("GET", Endpoint::Ask(Ask::Fleet))],
        GET,
    ),
    route("/v1/alerts", &[("GET", Endpoint::Ask(Ask::Alerts))], GET),
    route(
        "/v1/export/meter",
        &[("GET", Endpoint::Ask(Ask::Export(Stream::Meter)))],
        GET,
    ),
    route(
        "/v1/export/vehicle",
        &[("GET", Endpoint::Ask(Ask::Export(Stream::Vehicle)))],
        GET,
    ),
    route(
        "/v1/analytics/performance/{vehicleId}",
        &[("GET", Endpoint::Ask(Ask::Performance))],
        GET,
    ),
    route("/health", &[("GET", Endpoint::HealthReady)], GET),
    route("/health/live", &[("GET", Endpoint::HealthLive)], GET),
    route("/health/ready", &[("GET", Endpoint::HealthReady)], GET),
    route("/metrics", &[("GET", Endpoint::Metrics)], GET),
    route("/openapi.json", &[("GET", Endpoint::OpenapiJson)], GET),
    route("/", &[("GET", Endpoint::Dashboard)], GET),
    route("/docs", &[("GET", Endpoint::Docs)], GET),
    route("/assets/{file}", &[("GET", Endpoint::Asset)], GET),
    route("/openapi.yaml", &[("GET", Endpoint::OpenapiYaml)], GET),
];

const fn route(
    pattern: &'static str,
    methods: &'static [(&'static str, Endpoint)],
    allow: &'static str,
) -> Route {
    Route {
        pattern,
        methods,
        allow,
    }
}

/// Why a path leads nowhere.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// No route has this form.
    Unknown,
    /// The id in the path is no percent-encoded UTF-8.
    Encoding,
}

/// Finds the route of a path, and the decoded id in it, if the route has one.
///
/// Literal segments are compared as they came: an encoded slash is part of an id, never a
/// separator, and there is one spelling of each route.
pub(crate) fn find(path: &str) -> Result<(&'static Route, Option<Cow<'_, str>>), Lost> {
    for route in ROUTES {
        if route.pattern == path {
            return Ok((route, None));
        }
        if let Some(raw) = captured(route.pattern, path) {
            return Ok((route, Some(decode(raw)?)));
        }
    }
    Err(Lost::Unknown)
}

/// The segment of the path that stands where the pattern has its `{name}`.
fn captured<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    let (before, rest) = pattern.split_once('{')?;
    let (_, after) = rest.split_once('}')?;
    let middle = path.strip_prefix(before)?.strip_suffix(after)?;
    (!middle.is_empty() && !middle.contains('/')).then_some(middle)
}

/// Undoes percent-encoding.
fn decode(raw: &str) -> Result<Cow<'_, str>, Lost> {
    let mut rest = raw.as_bytes();
    while let Some(at) = rest.iter().position(|b| *b == b'%') {
        match rest.get(at + 1..at + 3) {
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => rest = &rest[at + 3..],
            _ => return Err(Lost::Encoding),
        }
    }
    percent_encoding::percent_decode_str(raw)
        .decode_utf8()
        .map_err(|_| Lost::Encoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_found_by_its_own_pattern() {
        for route in ROUTES {
            let path = match route.pattern.split_once('{') {
                Some((before, rest)) => {
                    format!("{before}an%20id{}", rest.split_once('}').unwrap().1)
                }
                None => route.pattern.to_owned(),
            };
            let (found, id) = find(&path).unwrap();
            assert_eq!(found.pattern, route.pattern);
            assert_eq!(
                id.as_deref(),
                route.pattern.contains('{').then_some("an id")
            );
            let mut allowed: Vec<&str> = route.methods.iter().map(|(m, _)| *m).collect();
            if allowed.contains(&"GET") {
                allowed.push("HEAD");
            }
            allowed.push("OPTIONS");
            allowed.sort_unstable();
            let mut said: Vec<&str> = route.allow.split(", ").collect();
            said.sort_unstable();
            assert_eq!(said, allowed, "{}", route.pattern);
        }
    }

    #[test]
    fn paths_that_are_nearly_a_route_are_none() {
        for path in [
            "",
            "*",
            "/assets/",
            "/health/",
            "//health",
            "/v1/ingestion",
            "/Health",
            "/v1/%68",
        ] {
            assert_eq!(find(path).err(), Some(Lost::Unknown), "{path}");
        }
    }
}
