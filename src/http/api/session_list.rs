//! `GET /v1/sessions`: sessions by id or newest first, with their energy on request.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use hyper::StatusCode;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::energy_view::ChargeView;
use super::performance::{instant, zone_of};
use super::sessions::{View, ViewWithEnergy, charged};
use crate::analytics::{Charge, Patience, Uncharged};
use crate::http::request::auth::not_your_device;
use crate::http::request::call::Call;
use crate::http::request::query;
use crate::http::request::query::Query;
use crate::http::response::json;
use crate::http::response::problem::{Kind, Problem};
use crate::http::response::reply::Reply;
use crate::reading::{ExternalId, Timestamp};
use crate::store::session_list::{self, Filter, Order};
use crate::store::sessions::Session;

/// The most sessions on a page with energy.
const LIMIT_WITH_ENERGY: usize = 200;
/// The most pages with energy at once. Each takes one of the 8 connections for queries, which other queries need
/// too.
pub(crate) const PAGES_MAX: usize = 2;
/// How long a page with energy waits for its permit.
const PLACE_WITHIN: Duration = Duration::from_secs(2);
const BUSY_RETRY_SECONDS: u64 = 3;
const PATIENCE: Patience = Patience {
    list: Duration::from_secs(3),
    session: Duration::from_secs(5),
};

pub(crate) static PAGES: LazyLock<Arc<Semaphore>> =
    LazyLock::new(|| Arc::new(Semaphore::new(PAGES_MAX)));

/// After the start of any session.
const NEVER: Timestamp = Timestamp::from_micros(253_402_300_800_000_000);

#[derive(Serialize)]
struct Page<'a> {
    items: Vec<ViewWithEnergy<'a>>,
    next: Option<String>,
}

/// The sessions of a page, and the energy of the first ones.
struct Found {
    sessions: Vec<Session>,
    more: bool,
    charges: Vec<Result<Charge, Uncharged>>,
}

/// A permit for a page with energy.
///
/// # Errors
/// 503 if none becomes free in time.
async fn place() -> Result<OwnedSemaphorePermit, Problem> {
    let place = timeout(PLACE_WITHIN, Arc::clone(&PAGES).acquire_owned()).await;
    place.ok().and_then(Result::ok).ok_or_else(|| {
        let detail = format!(
            "{PAGES_MAX} pages with energy=true are being computed; retry later, or omit energy"
        );
        Problem::new(Kind::Overloaded, detail).retry_after(BUSY_RETRY_SECONDS)
    })
}

const fn reason(why: Uncharged) -> &'static str {
    match why {
        Uncharged::Unknown => "unknown_vehicle",
        Uncharged::TooManyReadings => "too_many_readings",
        Uncharged::TooSlow => "too_slow",
    }
}

/// Lists sessions, in pages.
pub(crate) async fn list(call: Call<'_>) -> Result<Reply, Problem> {
    let (query, prefix) = (&call.query, call.caller.prefix());
    let filter = Filter {
        vehicle: query.id("vehicleId")?,
        meter: query.id("meterId")?,
        active: query.flag("active")?,
        order: order(query)?,
        limit: query.limit()?,
    };
    let with_energy = query.flag("energy")?.unwrap_or_default();
    let named = [filter.vehicle, filter.meter].into_iter().flatten();
    let mut own = named.map(|id| prefix.is_none_or(|p| id.as_str().starts_with(p)));
    if prefix.is_some() && !own.any(|own| own) {
        // Any other list would include sessions of other devices.
        return Err(not_your_device());
    }
    if with_energy && filter.limit > LIMIT_WITH_ENERGY {
        let detail = format!("limit must be 1 to {LIMIT_WITH_ENERGY} with energy=true");
        return Err(query::bad(detail));
    }
    let (reads, analyst) = (call.reads(), &call.context.analyst);
    let place = match with_energy {
        true => Some(place().await?),
        false => None,
    };
    let page = reads.ask(async |client| session_list::list(client, &filter).await);
    let page = page.await?;
    let mut found = Found {
        more: page.more,
        sessions: page.items,
        charges: Vec::new(),
    };
    if with_energy {
        let now = Timestamp::now();
        let of_page = found.sessions.iter().map(|s| charged(s, now));
        let wanted = of_page.collect::<Result<Vec<_>, Problem>>()?;
        found.charges = analyst.charges(reads, &wanted, now, PATIENCE).await?;
        // The next page begins with the first session whose energy was not computed.
        found.more |= found.charges.len() < found.sessions.len();
        found.sessions.truncate(found.charges.len());
    }
    drop(place);
    let view = |(n, session)| {
        let charge = found.charges.get(n).map(Result::as_ref);
        let energy = charge.and_then(Result::ok);
        ViewWithEnergy {
            session: View::from(session),
            energy: energy.map(|charge| ChargeView::new(charge, analyst.tariff())),
            energy_reason: charge.and_then(Result::err).copied().map(reason),
        }
    };
    let last = found.sessions.last().filter(|_| found.more);
    let page = Page {
        items: found.sessions.iter().enumerate().map(view).collect(),
        next: last.map(|last| cursor(filter.order, last)),
    };
    json::reply(StatusCode::OK, &page)
}

/// The requested order, and where the page begins.
fn order<'q>(query: &'q Query<'_>) -> Result<Order<'q>, Problem> {
    let zone = zone_of(query)?;
    let (from, to) = (instant(query, "from", &zone)?, instant(query, "to", &zone)?);
    match query.get("order") {
        None if from.is_some() || to.is_some() => {
            Err(query::bad("from and to need order=-startedAt"))
        }
        None => Ok(Order::Id {
            after: query.id("after")?,
        }),
        Some("-startedAt") => {
            let end = (to.unwrap_or(NEVER), "");
            let after = query.get("after").map(read_cursor).transpose()?;
            let before = after.map_or(end, |after| after.min(end));
            Ok(Order::Newest { from, before })
        }
        Some(_) => Err(query::bad("order must be -startedAt")),
    }
}

/// The cursor after a session: its id, preceded by its start if the list is sorted by start.
fn cursor(order: Order<'_>, last: &Session) -> String {
    match order {
        Order::Id { .. } => last.session.clone(),
        Order::Newest { .. } => format!("{}~{}", last.started_at.as_micros(), last.session),
    }
}

fn read_cursor(text: &str) -> Result<(Timestamp, &str), Problem> {
    let parts = text.split_once('~').and_then(|(at, id)| {
        let at = Timestamp::from_micros(at.parse().ok()?);
        let id = ExternalId::new(id).ok()?;
        (at.is_writable() && at >= Timestamp::Y2000).then_some((at, id.as_str()))
    });
    parts.ok_or_else(|| query::bad("after is not a cursor that this endpoint and order returned"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_returns_its_start_and_id() {
        let (at, id) = read_cursor("1707492600000001~S~1").unwrap();
        assert_eq!((at.as_micros(), id), (1_707_492_600_000_001, "S~1"));
        for wrong in [
            "",
            "S1",
            "1707492600000000",
            "x~S1",
            "1707492600000000~",
            "-5~S1",
        ] {
            assert!(read_cursor(wrong).is_err(), "{wrong}");
        }
    }
}
