//! `GET /v1/analytics/performance`: all vehicles over one window, ranked.
//!
//! The cursors of a ranking contain its window and the time of its report. So all pages come from one report while
//! it is cached. After that, the report is computed again for the same window and time.

use std::cmp::{Ordering, Reverse};

use hyper::StatusCode;
use serde::Serialize;

use super::energy_view::AnswerView;
use super::fleet::{asked_of, currency, fleet_report};
use super::performance::window_of;
use crate::analytics::{KeptReport, Rank, Ranked, ReportKey};
use crate::energy::interval::Interval;
use crate::energy::report::EfficiencyStatus;
use crate::energy::window;
use crate::http::request::call::Call;
use crate::http::request::query;
use crate::http::response::json;
use crate::http::response::problem::Problem;
use crate::http::response::reply::Reply;
use crate::reading::Timestamp;

/// The order of vehicles. Equal ones are sorted by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    /// The lowest ratio first.
    Lowest,
    /// The highest ratio first.
    Highest,
    /// The most energy lost first.
    Lost,
}

const SORTS: [(&str, Sort); 3] = [
    ("efficiency", Sort::Lowest),
    ("-efficiency", Sort::Highest),
    ("lost", Sort::Lost),
];

/// The sort key of a vehicle: vehicles without a ratio last, the others by number, equal ones by id.
type Key<'a> = (bool, Reverse<i128>, &'a str);

impl Sort {
    fn key(self, vehicle: &Rank) -> Key<'_> {
        let number = match self {
            Sort::Lowest => vehicle.ratio.map(|ratio| -i128::from(ratio)),
            Sort::Highest => vehicle.ratio.map(i128::from),
            Sort::Lost => Some(vehicle.lost_mwh),
        };
        // A vehicle without AC has neither losses nor a ratio, so it is last in every order.
        let unrated = vehicle.ratio.is_none();
        let number = number.filter(|_| !unrated).unwrap_or_default();
        (unrated, Reverse(number), &vehicle.vehicle_id)
    }

    const fn name(self) -> &'static str {
        match self {
            Sort::Lowest => SORTS[0].0,
            Sort::Highest => SORTS[1].0,
            Sort::Lost => SORTS[2].0,
        }
    }
}

/// The end of the previous page, with the ranking's window, time and order.
#[derive(Debug, PartialEq, Eq)]
struct Cursor {
    sort: &'static str,
    window: Interval,
    as_of: Timestamp,
    /// Whether the last vehicle has no ratio.
    unrated: bool,
    number: i128,
    id: String,
}

impl Cursor {
    fn write(&self) -> String {
        let (from, to) = (self.window.start(), self.window.end());
        format!(
            "{}~{}~{}~{}~{}~{}~{}",
            self.sort,
            from.as_micros(),
            to.as_micros(),
            self.as_of.as_micros(),
            u8::from(self.unrated),
            self.number,
            self.id
        )
    }

    fn read(text: &str) -> Option<Self> {
        let mut fields = text.splitn(7, '~');
        let sort = fields.next()?;
        let (sort, _) = SORTS.into_iter().find(|(name, _)| *name == sort)?;
        let mut instant = || {
            let at = Timestamp::from_micros(fields.next()?.parse().ok()?);
            at.is_writable().then_some(at)
        };
        let (from, to, as_of) = (instant()?, instant()?, instant()?);
        Some(Cursor {
            sort,
            window: window::window(Some(from), Some(to), as_of).ok()?,
            as_of,
            unrated: fields.next()? == "1",
            number: fields.next()?.parse().ok()?,
            id: fields.next()?.to_owned(),
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Page<'a> {
    items: Vec<AnswerView<'a>>,
    next: Option<String>,
    as_of: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<&'a str>,
}

/// Lists all known vehicles in the requested order.
pub(crate) async fn ranking(call: Call<'_>) -> Result<Reply, Problem> {
    let (context, query) = (call.context, &call.query);
    let limit = query.limit()?;
    let status = query.get("status").map(status_of).transpose()?;
    let wanted = query.get("sort").map(sort_of).transpose()?;
    let now = Timestamp::now();
    let (asked, window, sort, after) = match query.get("after") {
        None => {
            let asked = asked_of(query, String::new())?;
            let sort = wanted.unwrap_or(Sort::Lowest);
            (asked, window_of(query, now)?, sort, None)
        }
        Some(cursor) => {
            let cursor = Cursor::read(cursor)
                .filter(|cursor| cursor.as_of <= now)
                .ok_or_else(|| query::bad("after is not a cursor that this endpoint returned"))?;
            let sort = sort_of(cursor.sort)?;
            let is_other = wanted.is_some_and(|wanted| wanted != sort);
            let mut window = ["from", "to", "tz"].into_iter();
            if is_other || window.any(|name| query.get(name).is_some()) {
                let detail =
                    "after contains the window and the order: leave out from, to, tz and sort";
                return Err(query::bad(detail));
            }
            let asked = ReportKey {
                from: Some(cursor.window.start()),
                to: Some(cursor.window.end()),
                as_of: Some(cursor.as_of),
                ..ReportKey::default()
            };
            (asked, cursor.window, sort, Some(cursor))
        }
    };
    let kept = fleet_report(&call, asked, window, Vec::new(), now).await?;
    let mut vehicles: Vec<&Ranked> = kept
        .report
        .vehicles
        .iter()
        .filter(|vehicle| status.is_none_or(|status| vehicle.rank.status == status))
        .filter(|vehicle| {
            after
                .as_ref()
                .is_none_or(|after| is_behind(sort, vehicle, after))
        })
        .collect();
    vehicles.sort_unstable_by(|a, b| sort.key(&a.rank).cmp(&sort.key(&b.rank)));
    let more = vehicles.len() > limit;
    vehicles.truncate(limit);
    let next = vehicles.last().filter(|_| more);
    let page = Page {
        next: next.map(|last| cursor_behind(sort, last, &kept).write()),
        items: vehicles
            .iter()
            .map(|vehicle| AnswerView::from(&vehicle.printed))
            .collect(),
        as_of: kept.as_of.to_string(),
        currency: currency(context),
    };
    json::reply(StatusCode::OK, &page)
}

/// The cursor after a page that ends with this vehicle.
fn cursor_behind(sort: Sort, last: &Ranked, kept: &KeptReport) -> Cursor {
    let (unrated, Reverse(number), id) = sort.key(&last.rank);
    Cursor {
        sort: sort.name(),
        window: kept.window,
        as_of: kept.as_of,
        unrated,
        number,
        id: id.to_owned(),
    }
}

fn is_behind(sort: Sort, vehicle: &Ranked, after: &Cursor) -> bool {
    let end: Key<'_> = (after.unrated, Reverse(after.number), &after.id);
    sort.key(&vehicle.rank).cmp(&end) == Ordering::Greater
}

fn sort_of(text: &str) -> Result<Sort, Problem> {
    let found = SORTS.into_iter().find(|(name, _)| *name == text);
    found
        .map(|(_, sort)| sort)
        .ok_or_else(|| query::bad("sort must be efficiency, -efficiency or lost"))
}

fn status_of(text: &str) -> Result<EfficiencyStatus, Problem> {
    let mut all = EfficiencyStatus::ALL.into_iter();
    all.find(|status| status.name() == text).ok_or_else(|| {
        let names = EfficiencyStatus::ALL.map(EfficiencyStatus::name).join(", ");
        query::bad(format!("status must be one of {names}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranked(id: &str, ratio: Option<i64>, lost: i128) -> Rank {
        Rank {
            vehicle_id: id.into(),
            status: EfficiencyStatus::Good,
            ratio,
            lost_mwh: lost,
        }
    }

    fn order(sort: Sort) -> Vec<String> {
        let mut fleet = [
            ranked("none", None, 0),
            ranked("b", Some(8_000), 5),
            ranked("a", Some(8_000), 5),
            ranked("best", Some(9_900), -3),
            ranked("also none", None, 0),
            ranked("worst", Some(100), 9),
        ];
        fleet.sort_by(|a, b| sort.key(a).cmp(&sort.key(b)));
        fleet.map(|v| v.vehicle_id.to_string()).to_vec()
    }

    #[test]
    fn vehicles_without_a_ratio_are_ordered_last() {
        let none = ["also none", "none"];
        assert_eq!(
            order(Sort::Lowest),
            [&["worst", "a", "b", "best"][..], &none].concat()
        );
        assert_eq!(
            order(Sort::Highest),
            [&["best", "a", "b", "worst"][..], &none].concat()
        );
        assert_eq!(
            order(Sort::Lost),
            [&["worst", "a", "b", "best"][..], &none].concat()
        );
    }

    #[test]
    fn a_cursor_survives_writing_and_reading_with_any_id() {
        let at = Timestamp::from_micros;
        let cursor = Cursor {
            sort: "-efficiency",
            window: Interval::new(at(5), at(9)).unwrap(),
            as_of: at(1_700_000_000_000_001),
            unrated: true,
            number: -7,
            id: "a~b & 1~".to_owned(),
        };
        assert_eq!(Cursor::read(&cursor.write()), Some(cursor));
        for wrong in [
            "",
            "lost",
            "lost~1~2~3~0~x~id",
            "lost~2~1~3~0~1~id",
            "other~1~2~3~0~1~id",
            // Times that neither the database nor JSON can represent.
            "lost~-9223372036854775808~-9223372036854775807~3~0~1~id",
            "lost~9223372036854775806~9223372036854775807~3~0~1~id",
            "lost~1~2~-9223372036854775808~0~1~id",
        ] {
            assert_eq!(Cursor::read(wrong), None, "{wrong}");
        }
    }
}
