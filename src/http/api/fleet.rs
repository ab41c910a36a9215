//! `GET /v1/analytics/fleet`: the totals of all vehicles and meters over one window.
//!
//! They come from the same report as rankings. It is cached for up to a minute; `asOf` is its time.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::StatusCode;
use serde::{Serialize, Serializer};

use super::energy_view::{FleetSliceView, number, optional_number};
use super::performance::{self, series_of, window_of, zone_of};
use crate::analytics::{FleetSlice, KeptReport, ReportKey, Timeframe};
use crate::energy::exact::Exact;
use crate::energy::format::Decimal;
use crate::energy::interval::Interval;
use crate::energy::report::EfficiencyStatus;
use crate::energy::tariff::{Costs, Priced, Tariff};
use crate::energy::{PrintedFleet, Slice};
use crate::http::context::Context;
use crate::http::request::call::Call;
use crate::http::request::query::Query;
use crate::http::response::json;
use crate::http::response::problem::{Kind, Problem};
use crate::http::response::reply::Reply;
use crate::reading::Timestamp;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Fleet {
    time_window_start: String,
    time_window_end: String,
    vehicles: usize,
    #[serde(flatten)]
    energy: Energy,
    #[serde(serialize_with = "by_status")]
    vehicles_by_status: BTreeMap<EfficiencyStatus, usize>,
    /// One percent of the vehicles' AC energy: what one more percent of efficiency saves.
    #[serde(serialize_with = "number")]
    one_percent_energy_ac: Decimal,
    #[serde(flatten)]
    money: Option<Money>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "series")]
    series: Option<Vec<PrintedFleet>>,
    as_of: String,
}

fn by_status<S: Serializer>(
    counts: &BTreeMap<EfficiencyStatus, usize>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(counts.iter().map(|(status, count)| (status.name(), count)))
}

fn series<S: Serializer>(
    series: &Option<Vec<PrintedFleet>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(series.iter().flatten().map(FleetSliceView::from))
}

/// The cost of the vehicles' energy, if a tariff is configured.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Money {
    #[serde(serialize_with = "number")]
    consumed_cost: Decimal,
    #[serde(serialize_with = "number")]
    lost_cost: Decimal,
    #[serde(serialize_with = "number")]
    one_percent_cost: Decimal,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<String>,
}

impl Money {
    fn new(costs: &Costs, currency: Option<String>) -> Self {
        Money {
            consumed_cost: Decimal::cost(&costs.consumed),
            lost_cost: Decimal::cost(&costs.lost),
            one_percent_cost: Decimal::cost_percent(&costs.consumed),
            currency,
        }
    }
}

/// The sums without the ends of the window, which have other names here.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Energy {
    #[serde(serialize_with = "number")]
    meter_energy_ac: Decimal,
    #[serde(serialize_with = "number")]
    total_energy_consumed_ac: Decimal,
    #[serde(serialize_with = "number")]
    unattributed_energy_ac: Decimal,
    #[serde(serialize_with = "number")]
    total_energy_delivered_dc: Decimal,
    #[serde(serialize_with = "number")]
    matched_energy_delivered_dc: Decimal,
    #[serde(serialize_with = "optional_number")]
    efficiency_ratio: Option<Decimal>,
}

impl From<PrintedFleet> for Energy {
    fn from(printed: PrintedFleet) -> Self {
        Energy {
            meter_energy_ac: printed.meter_energy_ac,
            total_energy_consumed_ac: printed.vehicles.total_energy_consumed_ac,
            unattributed_energy_ac: printed.unattributed_energy_ac,
            total_energy_delivered_dc: printed.vehicles.total_energy_delivered_dc,
            matched_energy_delivered_dc: printed.vehicles.matched_energy_delivered_dc,
            efficiency_ratio: printed.vehicles.efficiency_ratio,
        }
    }
}

/// Responds with the energy of all meters, and how much of it the vehicles received.
pub(crate) async fn fleet(call: Call<'_>) -> Result<Reply, Problem> {
    let (context, query) = (call.context, &call.query);
    let now = Timestamp::now();
    let window = window_of(query, now)?;
    let series = series_of(query, window)?;
    let name = series.as_ref().map_or_else(String::new, |_| {
        format!(
            "{} {}",
            query.get("bucket").unwrap_or_default(),
            query.get("tz").unwrap_or_default()
        )
    });
    let asked = asked_of(query, name)?;
    // The report has the costs of the whole window, so only a series needs the parts.
    let tariff = context.analyst.tariff();
    let parts = series.map_or_else(Vec::new, |buckets| {
        Priced::new(tariff, &buckets).intervals()
    });
    let kept = fleet_report(&call, asked, window, parts, now).await?;
    // A cached report may be for a window that ended a few seconds earlier.
    let series = series_of(query, kept.window)?;
    let series = series.map(|buckets| Priced::new(tariff, &buckets));
    let currency = currency(context).map(str::to_owned);
    // Adding fractions with thousands of denominators takes some milliseconds, so do it off the async workers.
    let printed = tokio::task::spawn_blocking(move || print(&kept, series.as_ref(), currency));
    match printed.await {
        Ok(printed) => json::reply(StatusCode::OK, &printed),
        Err(_) => Err(Problem::new(
            Kind::Internal,
            "the answer could not be computed",
        )),
    }
}

pub(super) fn currency(context: &Context) -> Option<&str> {
    context.analyst.tariff().and_then(Tariff::currency)
}

fn print(kept: &KeptReport, series: Option<&Priced>, currency: Option<String>) -> Fleet {
    let report = &kept.report;
    let mut vehicles_by_status: BTreeMap<EfficiencyStatus, usize> = EfficiencyStatus::ALL
        .into_iter()
        .map(|status| (status, 0))
        .collect();
    for vehicle in &report.vehicles {
        *vehicles_by_status.entry(vehicle.rank.status).or_default() += 1;
    }
    let whole = &report.whole;
    Fleet {
        time_window_start: kept.window.start().to_string(),
        time_window_end: kept.window.end().to_string(),
        vehicles: report.vehicles.len(),
        energy: PrintedFleet::new(&whole.meter_ac, &whole.vehicles).into(),
        vehicles_by_status,
        one_percent_energy_ac: Decimal::kwh_percent(&whole.vehicles.consumed_ac),
        money: report.costs.as_ref().map(|c| Money::new(c, currency)),
        series: series.map(|priced| fleet_series(priced, &report.parts)),
        as_of: kept.as_of.to_string(),
    }
}

fn fleet_series(priced: &Priced, parts: &[FleetSlice]) -> Vec<PrintedFleet> {
    let printed = priced.by_bucket(parts).map(|(bucket, parts, prices)| {
        let (mut meter_ac, mut vehicles) = (Exact::default(), Slice::empty(bucket));
        for part in parts {
            meter_ac.add(&part.meter_ac);
            vehicles.add(&part.vehicles);
        }
        let costs = prices.map(|prices| {
            let parts = parts.iter().map(|part| &part.vehicles);
            Costs::of(parts, prices.iter().copied())
        });
        let mut printed = PrintedFleet::new(&meter_ac, &vehicles);
        printed.vehicles = printed.vehicles.with_costs(costs.as_ref());
        printed
    });
    printed.collect()
}

pub(super) async fn fleet_report(
    call: &Call<'_>,
    key: ReportKey,
    window: Interval,
    parts: Vec<Interval>,
    now: Timestamp,
) -> Result<Arc<KeptReport>, Problem> {
    // If the report must be computed again for a later page, use the time of the first page.
    let now = key.as_of.unwrap_or(now);
    let timeframe = Timeframe { window, parts, now };
    let analyst = &call.context.analyst;
    let report = analyst.fleet_report(call.reads(), key, timeframe);
    Ok(report.await?)
}

pub(super) fn asked_of(query: &Query<'_>, series: String) -> Result<ReportKey, Problem> {
    let zone = zone_of(query)?;
    let instant = |name: &str| performance::instant(query, name, &zone);
    Ok(ReportKey {
        from: instant("from")?,
        to: instant("to")?,
        series,
        as_of: None,
    })
}
