//! `GET /v1/sessions`: sessions by their ids or the newest first, with their energy if it is requested.

use hyper::StatusCode;
use serde::Serialize;

use super::energy_view::ChargeView;
use super::performance::{instant, zone_of};
use super::sessions::{ENERGY_WITHIN, View, ViewWithEnergy, charged};
use crate::analytics::{AskError, Charge};
use crate::http::request::auth::not_your_device;
use crate::http::request::call::Call;
use crate::http::request::query;
use crate::http::request::query::Query;
use crate::http::response::json;
use crate::http::response::problem::Problem;
use crate::http::response::reply::Reply;
use crate::reading::{ExternalId, Timestamp};
use crate::store::session_list::{self, Filter, Order};
use crate::store::sessions::Session;

/// Later than any session starts.
const NEVER: Timestamp = Timestamp::from_micros(253_402_300_800_000_000);

#[derive(Serialize)]
struct Page<'a> {
    items: Vec<ViewWithEnergy<'a>>,
    next: Option<String>,
}

/// The sessions of a page, and the energy of the first of them.
struct Found {
    sessions: Vec<Session>,
    more: bool,
    charges: Vec<Option<Charge>>,
}

/// Sessions, a page at a time.
pub(crate) async fn list(call: Call<'_>) -> Result<Reply, Problem> {
    let (query, prefix) = (&call.query, call.caller.prefix());
    let filter = Filter {
        vehicle: query.id("vehicleId")?,
        meter: query.id("meterId")?,
        active: flag(query, "active")?,
        order: order(query)?,
        limit: query.limit()?,
    };
    let with_energy = flag(query, "energy")?.unwrap_or_default();
    let named = [filter.vehicle, filter.meter].into_iter().flatten();
    let mut own = named.map(|id| prefix.is_none_or(|p| id.as_str().starts_with(p)));
    if prefix.is_some() && !own.any(|own| own) {
        // Any other list would show sessions of other devices.
        return Err(not_your_device());
    }
    let analyst = &call.context.analyst;
    let now = Timestamp::now();
    let reads = &call.context.reads;
    let found = reads.ask(async |client| {
        let page = session_list::list(client, &filter).await?;
        let mut found = Found {
            more: page.more,
            sessions: page.items,
            charges: Vec::new(),
        };
        if with_energy {
            let of_page: Result<Vec<_>, Problem> =
                found.sessions.iter().map(|s| charged(s, now)).collect();
            let wanted = of_page.map_err(|_| AskError::Failed)?;
            let charges = analyst.charges(client, &wanted, now, ENERGY_WITHIN);
            found.charges = charges.await?;
            // What has no energy yet begins the next page.
            found.more |= found.charges.len() < found.sessions.len();
            found.sessions.truncate(found.charges.len());
        }
        Ok::<Found, AskError>(found)
    });
    let found = found.await?;
    let energy = |n: usize| {
        let charge = found.charges.get(n).and_then(Option::as_ref);
        charge.map(|charge| ChargeView::new(charge, analyst.tariff()))
    };
    let view = |(n, session)| ViewWithEnergy {
        session: View::from(session),
        energy: energy(n),
    };
    let last = found.sessions.last().filter(|_| found.more);
    let page = Page {
        items: found.sessions.iter().enumerate().map(view).collect(),
        next: last.map(|last| cursor(filter.order, last)),
    };
    json::reply(StatusCode::OK, &page)
}

/// The order of a query, and where its page begins.
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

/// The cursor behind a session: its id, after its start where that orders the list.
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

fn flag(query: &Query<'_>, name: &str) -> Result<Option<bool>, Problem> {
    match query.get(name) {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(_) => Err(query::bad(format!("{name} must be true or false"))),
    }
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
