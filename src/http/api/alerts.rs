//! `GET /v1/alerts`: problems that operators should look at, by time or by severity.
//!
//! What operators do about them is in [`alert_actions`](super::alert_actions).

use std::sync::LazyLock;

use hyper::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::alerts::{Kind, Severity};
use crate::http::request::call::Call;
use crate::http::request::query;
use crate::http::request::query::Query;
use crate::http::response::json;
use crate::http::response::problem::Problem;
use crate::http::response::reply::Reply;
use crate::reading::{ExternalId, Stream, Timestamp};
use crate::store::alerts::{self, Action, Filter, Mute, Order, StoredAlert};

/// What an operator did.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ActionView<'a> {
    at: String,
    key_id: Option<&'a str>,
    key_name: Option<&'a str>,
    note: Option<&'a str>,
}

/// A mute; `kind` is null if it covers every kind.
#[derive(Serialize)]
pub(super) struct MuteView<'a> {
    kind: Option<&'a str>,
    until: String,
    #[serde(flatten)]
    action: ActionView<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Alert<'a> {
    alert_id: String,
    kind: &'a str,
    severity: &'static str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    vehicle_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meter_id: Option<&'a str>,
    opened_at: String,
    updated_at: String,
    closed_at: Option<String>,
    value: f64,
    bound: f64,
    details: Box<RawValue>,
    acknowledgement: Option<ActionView<'a>>,
    mute: Option<MuteView<'a>>,
}

#[derive(Serialize)]
struct Page<'a> {
    items: Vec<Alert<'a>>,
    next: Option<String>,
}

/// The kinds that come first when the list is sorted by severity.
static CRITICAL: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let critical = Kind::ALL.into_iter();
    let critical = critical.filter(|kind| kind.severity() == Severity::Critical);
    critical.map(Kind::name).collect()
});

/// The order of a list. A cursor is valid only for the order that it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Newest,
    Severity,
}

impl By {
    fn of(order: Option<&str>) -> Result<Self, Problem> {
        match order {
            None | Some("-openedAt") => Ok(By::Newest),
            Some("-severity") => Ok(By::Severity),
            Some(_) => Err(query::bad("order must be -openedAt or -severity")),
        }
    }

    /// The cursor after an alert: its number and, if sorted by severity, its severity.
    fn cursor(self, last: &StoredAlert) -> String {
        match self {
            By::Newest => last.id.to_string(),
            By::Severity => format!("{}.{}", Kind::severity_of(&last.kind).name(), last.id),
        }
    }

    /// Parses a cursor: whether the last alert before the page is critical, and its number.
    fn read(self, cursor: &str) -> Result<(bool, i64), Problem> {
        let wrong = || query::bad("after is not a cursor that this endpoint and order returned");
        let (severity, id) = match self {
            By::Newest => (Severity::Warning, cursor),
            By::Severity => {
                let (severity, id) = cursor.split_once('.').ok_or_else(wrong)?;
                let mut known = [Severity::Critical, Severity::Warning].into_iter();
                let severity = known.find(|known| known.name() == severity);
                (severity.ok_or_else(wrong)?, id)
            }
        };
        let id = id.parse().map_err(|_| wrong())?;
        Ok((severity == Severity::Critical, id))
    }
}

/// Lists alerts.
pub(crate) async fn list(call: Call<'_>) -> Result<Reply, Problem> {
    let query = &call.query;
    let limit = query.limit()?;
    let open = match query.get("state") {
        None => None,
        Some("open") => Some(true),
        Some("closed") => Some(false),
        Some(_) => return Err(query::bad("state must be open or closed")),
    };
    let kind = kind_of(query)?;
    let is_critical = match query.get("severity") {
        None => None,
        Some("critical") => Some(true),
        Some("warning") => Some(false),
        Some(_) => return Err(query::bad("severity must be critical or warning")),
    };
    let device = device_of(query)?;
    let by = By::of(query.get("order"))?;
    let after = query.get("after").map(|cursor| by.read(cursor));
    let before = after.transpose()?.unwrap_or((true, i64::MAX));
    let order = match by {
        By::Newest => Order::Newest { before: before.1 },
        By::Severity => Order::CriticalFirst { before },
    };
    let filter = Filter {
        order,
        critical: &CRITICAL,
        is_critical,
        kind,
        open,
        device,
        prefix: query.id("prefix")?,
        acknowledged: query.flag("acknowledged")?,
        muted: query.flag("muted")?,
        now: Timestamp::now(),
        limit,
    };
    let reads = call.reads();
    let found = reads
        .ask(async |client| alerts::list(client, filter).await)
        .await?;
    let page = Page {
        items: found.items.iter().map(Alert::from).collect(),
        next: found.last_before_more().map(|last| by.cursor(last)),
    };
    json::reply(StatusCode::OK, &page)
}

/// The device of a query, if it names one.
pub(super) fn device_of<'q>(
    query: &'q Query<'_>,
) -> Result<Option<(Stream, ExternalId<'q>)>, Problem> {
    Ok(match (query.id("vehicleId")?, query.id("meterId")?) {
        (None, None) => None,
        (Some(id), None) => Some((Stream::Vehicle, id)),
        (None, Some(id)) => Some((Stream::Meter, id)),
        (Some(_), Some(_)) => {
            let both = "an alert belongs to one device: give vehicleId or meterId, not both";
            return Err(query::bad(both));
        }
    })
}

/// The kind of a query, if it names one.
pub(super) fn kind_of<'q>(query: &'q Query<'_>) -> Result<Option<&'q str>, Problem> {
    let kind = query.get("kind");
    if kind.is_some_and(|kind| Kind::ALL.iter().all(|known| known.name() != kind)) {
        let names = Kind::ALL.map(Kind::name).join(", ");
        return Err(query::bad(format!("kind must be one of {names}")));
    }
    Ok(kind)
}

/// An alert as one line of JSON.
pub(crate) fn alert_json(alert: &StoredAlert) -> String {
    // Serialising texts and finite numbers cannot fail, and escapes control characters.
    serde_json::to_string(&Alert::from(alert)).unwrap_or_default()
}

impl<'a> From<&'a StoredAlert> for Alert<'a> {
    fn from(alert: &'a StoredAlert) -> Self {
        let device = alert.device.as_deref();
        Alert {
            alert_id: alert.id.to_string(),
            kind: &alert.kind,
            severity: Kind::severity_of(&alert.kind).name(),
            state: match alert.closed_at {
                Some(_) => "closed",
                None => "open",
            },
            vehicle_id: device.filter(|_| alert.stream == Stream::Vehicle),
            meter_id: device.filter(|_| alert.stream == Stream::Meter),
            opened_at: alert.opened_at.to_string(),
            updated_at: alert.updated_at.to_string(),
            closed_at: alert.closed_at.map(|at| at.to_string()),
            value: alert.value,
            bound: alert.limit,
            details: RawValue::from_string(alert.details.clone()).unwrap_or_default(),
            acknowledgement: alert.acknowledgement.as_ref().map(ActionView::from),
            mute: alert.mute.as_ref().map(MuteView::from),
        }
    }
}

impl<'a> From<&'a Action> for ActionView<'a> {
    fn from(action: &'a Action) -> Self {
        ActionView {
            at: action.at.to_string(),
            key_id: action.key.as_deref(),
            key_name: action.name.as_deref(),
            note: action.note.as_deref(),
        }
    }
}

impl<'a> From<&'a Mute> for MuteView<'a> {
    fn from(mute: &'a Mute) -> Self {
        MuteView {
            kind: mute.kind.as_deref(),
            until: mute.until.to_string(),
            action: ActionView::from(&mute.action),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_fits_only_the_order_that_made_it() {
        assert_eq!(By::Newest.read("17").unwrap().1, 17);
        assert_eq!(By::Severity.read("critical.17").unwrap(), (true, 17));
        assert_eq!(By::Severity.read("warning.-3").unwrap(), (false, -3));
        for wrong in ["", "17", "critical", "critical.", "grave.17", "warning.x"] {
            assert!(By::Severity.read(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "critical.17", "x"] {
            assert!(By::Newest.read(wrong).is_err(), "{wrong}");
        }
        assert!(By::of(Some("severity")).is_err());
    }
}
