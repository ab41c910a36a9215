//! `GET /v1/analytics/performance/{vehicleId}`: how much of the energy paid for reached the battery. Sessions use
//! this module for their energy too.

use hyper::StatusCode;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::energy_view::AnswerView;
use crate::analytics::{Answer, Timeframe};
use crate::energy::interval::Interval;
use crate::energy::series::{Bucket, buckets};
use crate::energy::tariff::{Costs, Priced};
use crate::energy::{Printed, PrintedSlice, Slice, window};
use crate::http::request::call::Call;
use crate::http::request::query;
use crate::http::request::query::Query;
use crate::http::response::json;
use crate::http::response::problem::{Kind, Problem};
use crate::http::response::reply::Reply;
use crate::ingest::decode::timestamp;
use crate::reading::{ExternalId, Timestamp};

/// The length of a date such as `2024-03-31`.
const DATE_LENGTH: usize = 10;

/// Responds with the answer for one vehicle over a window; 404 only for an unknown vehicle.
pub(crate) async fn one(call: Call<'_>) -> Result<Reply, Problem> {
    let (context, query) = (call.context, &call.query);
    let id = query::path_id(call.id)?;
    let now = Timestamp::now();
    let window = window_of(query, now)?;
    let series = series_of(query, window)?;
    let tariff = context.analyst.tariff();
    // Without a series, the whole window is the only bucket, split where prices change.
    let whole = tariff.map_or(&[][..], |_| std::slice::from_ref(&window));
    let priced = Priced::new(tariff, series.as_deref().unwrap_or(whole));
    let parts = priced.intervals();
    let timeframe = Timeframe { window, parts, now };
    let Some(answer) = ask(&call, id, timeframe).await? else {
        return Err(Problem::new(
            Kind::NotFound,
            "the vehicle has no readings and no sessions",
        ));
    };
    let bounds = context.analyst.judgement().bounds;
    let mut printed = Printed::new(&answer.performance, id.as_str(), answer.meter_ids, &bounds);
    let (parts, costs) = with_costs(&priced, &answer.parts);
    if let Some(tariff) = tariff {
        printed = printed.with_costs(&costs, tariff.currency());
    }
    if series.is_some() {
        printed = printed.with_series(parts);
    }
    json::reply(StatusCode::OK, &AnswerView::from(&printed))
}

/// The buckets of a series, and the cost of all their energy, which is zero without a tariff.
fn with_costs(priced: &Priced, parts: &[Slice]) -> (Vec<PrintedSlice>, Costs) {
    let mut sum = Costs::default();
    let printed = priced.by_bucket(parts).map(|(bucket, parts, prices)| {
        let costs = prices.map(|prices| Costs::of(parts, prices.iter().copied()));
        costs.iter().for_each(|costs| sum.add(costs));
        let mut slice = Slice::empty(bucket);
        parts.iter().for_each(|part| slice.add(part));
        PrintedSlice::from(&slice).with_costs(costs.as_ref())
    });
    (printed.collect(), sum)
}

/// Asks the analyst about a vehicle, within the time limit of a request.
async fn ask(
    call: &Call<'_>,
    vehicle: ExternalId<'_>,
    timeframe: Timeframe,
) -> Result<Option<Answer>, Problem> {
    let analyst = &call.context.analyst;
    let answer = call
        .reads()
        .ask(async |client| analyst.performance(client, vehicle, timeframe).await);
    Ok(answer.await?)
}

/// The window of a query.
pub(crate) fn window_of(query: &Query<'_>, now: Timestamp) -> Result<Interval, Problem> {
    let zone = zone_of(query)?;
    let from = instant(query, "from", &zone)?;
    let to = instant(query, "to", &zone)?;
    window::window(from, to, now).map_err(|why| query::bad(why.to_string()))
}

/// The time zone of a query's dates.
pub(crate) fn zone_of(query: &Query<'_>) -> Result<TimeZone, Problem> {
    let Some(name) = query.get("tz") else {
        return Ok(TimeZone::UTC);
    };
    let is_day = |name| {
        query
            .get(name)
            .is_some_and(|text| text.len() == DATE_LENGTH)
    };
    if query.get("bucket").is_none() && !is_day("from") && !is_day("to") {
        let detail = "tz applies only with bucket, or if from or to is a date such as 2024-03-31";
        return Err(query::bad(detail));
    }
    TimeZone::get(name)
        .map_err(|_| query::bad("tz must be an IANA time zone, such as Europe/Berlin"))
}

/// Parses a parameter that is an instant or a date. A date means its first instant in the time zone.
pub(crate) fn instant(
    query: &Query<'_>,
    name: &str,
    zone: &TimeZone,
) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = query.get(name) else {
        return Ok(None);
    };
    let at = timestamp::parse(text).or_else(|| start_of_day(text, zone));
    if at.is_some_and(|at| !at.is_writable()) {
        let detail = format!("{name} must be within the years 1 to 9999, in any offset");
        return Err(query::bad(detail));
    }
    let at = at.ok_or_else(|| {
        query::bad(format!(
            "{name} must be an RFC 3339 time with an offset (send + as %2B), or a day such as 2024-03-31"
        ))
    })?;
    Ok(Some(at))
}

/// The first instant of a date, which is not midnight if clocks go forward then.
fn start_of_day(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    let day: Date = text.parse().ok().filter(|_| text.len() == DATE_LENGTH)?;
    let first = zone.to_timestamp(day.at(0, 0, 0, 0)).ok()?;
    let at = Timestamp::from_micros(first.as_microsecond());
    (at >= Timestamp::Y2000).then_some(at)
}

/// The buckets of a query's series. `None` means that no series was requested.
pub(crate) fn series_of(
    query: &Query<'_>,
    window: Interval,
) -> Result<Option<Vec<Interval>>, Problem> {
    let bucket = match query.get("bucket") {
        None => return Ok(None),
        Some("hour") => Bucket::Hour,
        Some("day") => Bucket::Day,
        Some(_) => return Err(query::bad("bucket must be hour or day")),
    };
    Ok(Some(buckets(window, bucket, &zone_of(query)?)))
}
