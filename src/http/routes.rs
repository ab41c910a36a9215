//! The table of routes: one row for each method of each path.
//!
//! A row has its handler, the rights of which a key needs one, the scope of a key's prefix, and the query
//! parameters. A row without a decision on rights does not compile, because it is still an
//! [`Unguarded`](super::request::router::Unguarded).

use std::future::ready;
use std::sync::LazyLock;

use super::api::{
    alert_actions, alerts, events, export, fleet, history, live, meters, operations, performance,
    ranking, session_list, session_post, sessions,
};
use super::request::auth::Scope;
use super::request::query::Parameters::{Ignored, Once, Repeated};
use super::request::router::{
    BoxedHandler, ReplyFuture, Route, Routes, delete, get, ingest, post, put,
};
use super::response::problem::Problem;
use super::response::reply::Reply;
use super::ui;
use crate::auth::Rights;
use crate::reading::Stream::{Meter, Vehicle};

const READ: Rights = Rights::READ;
const INGEST: Rights = Rights::INGEST;
const ADMIN: Rights = Rights::ADMIN;
const CHANGE: Rights = Rights::INGEST.or(Rights::ADMIN);

/// All routes, the busiest first. The rows of a path are adjacent.
#[rustfmt::skip] // One shape for all rows.
pub(crate) static ROUTES: &[Route] = &[
    ingest("/v1/ingestion/meter", Meter)
        .needs(INGEST, Scope::Content).query(Once(&["ack", "time", "unknown"])),
    ingest("/v1/ingestion/vehicle", Vehicle)
        .needs(INGEST, Scope::Content).query(Once(&["ack", "time", "unknown"])),
    get("/v1/live/meters", |c| Box::pin(live::list(c, Meter)))
        .needs(READ, Scope::Fleet).query(Once(&["limit", "after"])),
    get("/v1/live/vehicles", |c| Box::pin(live::list(c, Vehicle)))
        .needs(READ, Scope::Fleet).query(Once(&["limit", "after"])),
    get("/v1/live/stream", |c| Box::pin(events::open(c)))
        .needs(READ, Scope::Fleet).query(Repeated(&["kind", "id"])).any_accept(),
    get("/v1/live/meters/{meterId}", |c| Box::pin(live::one(c, Meter)))
        .needs(READ, Scope::Device),
    get("/v1/live/vehicles/{vehicleId}", |c| Box::pin(live::one(c, Vehicle)))
        .needs(READ, Scope::Device),
    get("/v1/history/meter/{meterId}", |c| Box::pin(history::page(c, Meter)))
        .needs(READ, Scope::Device).query(Once(&["from", "to", "tz", "limit", "after"])),
    get("/v1/history/vehicle/{vehicleId}", |c| Box::pin(history::page(c, Vehicle)))
        .needs(READ, Scope::Device).query(Once(&["from", "to", "tz", "limit", "after"])),
    get("/v1/sessions", |c| Box::pin(session_list::list(c)))
        .needs(READ, Scope::Content)
        .query(Once(&["vehicleId", "meterId", "active", "from", "to", "tz", "order", "energy",
            "limit", "after"])),
    post("/v1/sessions", |c| Box::pin(session_post::post(c)))
        .needs(CHANGE, Scope::Content),
    get("/v1/sessions/{sessionId}", |c| Box::pin(sessions::get(c)))
        .needs(READ, Scope::Content),
    delete("/v1/sessions/{sessionId}", |c| Box::pin(sessions::delete(c)))
        .needs(CHANGE, Scope::Content),
    post("/v1/sessions/{sessionId}/end", |c| Box::pin(sessions::end(c)))
        .needs(CHANGE, Scope::Content),
    put("/v1/meters/{meterId}", |c| Box::pin(meters::put(c)))
        .needs(CHANGE, Scope::Device),
    put("/v1/meters/{meterId}/mute", |c| Box::pin(alert_actions::mute(c, Meter)))
        .needs(ADMIN, Scope::Device).query(Once(&["kind"])),
    delete("/v1/meters/{meterId}/mute", |c| Box::pin(alert_actions::unmute(c, Meter)))
        .needs(ADMIN, Scope::Device).query(Once(&["kind"])),
    put("/v1/vehicles/{vehicleId}/mute", |c| Box::pin(alert_actions::mute(c, Vehicle)))
        .needs(ADMIN, Scope::Device).query(Once(&["kind"])),
    delete("/v1/vehicles/{vehicleId}/mute", |c| Box::pin(alert_actions::unmute(c, Vehicle)))
        .needs(ADMIN, Scope::Device).query(Once(&["kind"])),
    get("/v1/analytics/performance", |c| Box::pin(ranking::ranking(c)))
        .needs(READ, Scope::Fleet)
        .query(Once(&["from", "to", "tz", "sort", "status", "limit", "after"])),
    get("/v1/analytics/fleet", |c| Box::pin(fleet::fleet(c)))
        .needs(READ, Scope::Fleet).query(Once(&["from", "to", "bucket", "tz"])),
    get("/v1/alerts", |c| Box::pin(alerts::list(c)))
        .needs(READ, Scope::Fleet)
        .query(Once(&["state", "kind", "severity", "vehicleId", "meterId", "prefix", "acknowledged",
            "muted", "order", "limit", "after"])),
    post("/v1/alerts/{alertId}/acknowledgement", |c| Box::pin(alert_actions::acknowledge(c)))
        .needs(ADMIN, Scope::Content),
    delete("/v1/alerts/{alertId}/acknowledgement", |c| Box::pin(alert_actions::unacknowledge(c)))
        .needs(ADMIN, Scope::Content),
    get("/v1/alerts/mutes", |c| Box::pin(alert_actions::mutes(c)))
        .needs(READ, Scope::Fleet).query(Once(&["vehicleId", "meterId", "limit", "after"])),
    get("/v1/export/meter", |c| Box::pin(export::export(c, Meter)))
        .needs(READ, Scope::Fleet)
        .query(Once(&["from", "to", "tz", "format"])).any_accept(),
    get("/v1/export/vehicle", |c| Box::pin(export::export(c, Vehicle)))
        .needs(READ, Scope::Fleet)
        .query(Once(&["from", "to", "tz", "format"])).any_accept(),
    get("/v1/analytics/performance/{vehicleId}", |c| Box::pin(performance::one(c)))
        .needs(READ, Scope::Device).query(Once(&["from", "to", "bucket", "tz"])),
    page("/health", |c| at_once(operations::health_ready(&c))).options_as_get(),
    page("/health/live", |_| at_once(Ok(operations::health_live()))).options_as_get(),
    page("/health/ready", |c| at_once(operations::health_ready(&c))).options_as_get(),
    get("/metrics", |c| at_once(Ok(operations::metrics(&c)))).public().any_accept(),
    get("/openapi.json", |_| at_once(operations::openapi_json())).public().query(Ignored),
    page("/", |c| at_once(ui::page(&c))),
    page("/docs", |c| at_once(ui::docs(&c))),
    page("/assets/{file}", |c| at_once(ui::asset(&c))),
    page("/openapi.yaml", |_| at_once(Ok(operations::openapi_yaml()))),
];

/// The routes by path.
pub(crate) static PATHS: LazyLock<Routes> = LazyLock::new(|| Routes::new(ROUTES));

/// A public page. It ignores the query and the client's `Accept`.
const fn page(pattern: &'static str, handler: BoxedHandler) -> Route {
    let route = get(pattern, handler).public();
    route.query(Ignored).any_accept()
}

/// A response that needs no waiting.
fn at_once<'a>(answer: Result<Reply, Problem>) -> ReplyFuture<'a> {
    Box::pin(ready(answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::auth::Access;
    use crate::http::request::router::Lost;

    #[test]
    fn every_route_is_found_by_its_own_pattern() {
        for route in ROUTES {
            let path = match route.pattern.split_once('{') {
                Some((before, rest)) => {
                    format!("{before}an%20id{}", rest.split_once('}').unwrap().1)
                }
                None => route.pattern.to_owned(),
            };
            let (found, id) = PATHS.find(&path).unwrap();
            assert_eq!(found.pattern, route.pattern);
            assert_eq!(
                id.as_deref(),
                route.pattern.contains('{').then_some("an id")
            );
            let method = route.method.parse().unwrap();
            assert!(std::ptr::eq(found.route(&method).unwrap(), route));
        }
    }

    #[test]
    fn exactly_the_paths_of_one_device_have_its_scope() {
        for route in ROUTES {
            let is_one_device = ["{meterId}", "{vehicleId}"]
                .iter()
                .any(|id| route.pattern.contains(id));
            let has_its_scope = matches!(route.access, Access::Key(_, Scope::Device));
            let Route {
                method, pattern, ..
            } = route;
            assert_eq!(has_its_scope, is_one_device, "{method} {pattern}");
        }
    }

    #[test]
    fn what_a_path_allows_follows_from_its_rows() {
        let allow = |path| PATHS.find(path).unwrap().0.allow.as_str();
        assert_eq!(allow("/v1/ingestion/meter"), "POST, OPTIONS");
        assert_eq!(allow("/v1/live/meters"), "GET, HEAD, OPTIONS");
        assert_eq!(allow("/v1/sessions"), "GET, HEAD, POST, OPTIONS");
        assert_eq!(allow("/v1/sessions/S"), "GET, HEAD, DELETE, OPTIONS");
        assert_eq!(allow("/v1/meters/M"), "PUT, OPTIONS");
        assert_eq!(PATHS.allow, "GET, HEAD, POST, PUT, DELETE, OPTIONS");
    }

    #[test]
    fn paths_that_resemble_a_route_have_none() {
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
            assert_eq!(PATHS.find(path).err(), Some(Lost::Unknown), "{path}");
        }
    }
}
