//! Energy in JSON: the numbers that `energy::report` has rounded.

use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::analytics::Charge;
use crate::energy::format::Decimal;
use crate::energy::report::{Insufficient, Printed, PrintedFleet, PrintedQuality, PrintedSlice};
use crate::energy::tariff::Tariff;

/// A number with all digits and without trailing zeros: 12.4, 0, 89.52. It never becomes a float, which could lose
/// digits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Number<'a>(pub(crate) &'a Decimal);

impl Serialize for Number<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.0.to_string())
            .map_err(S::Error::custom)?
            .serialize(serializer)
    }
}

#[derive(Debug, Serialize)]
struct Quality<'a> {
    coverage: Number<'a>,
    resets: u64,
    gaps: u64,
    suspect: u64,
}

impl<'a> From<&'a PrintedQuality> for Quality<'a> {
    fn from(quality: &'a PrintedQuality) -> Self {
        Quality {
            coverage: Number(&quality.coverage),
            resets: quality.resets,
            gaps: quality.gaps,
            suspect: quality.suspect,
        }
    }
}

#[derive(Debug, Serialize)]
struct Attribution<'a> {
    method: &'a str,
    meters: &'a [String],
    sessions: u64,
}

/// The answer for a vehicle, with fields in the order of the example in the OpenAPI document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AnswerView<'a> {
    vehicle_id: &'a str,
    total_energy_consumed_ac: Number<'a>,
    total_energy_delivered_dc: Number<'a>,
    efficiency_ratio: Option<Number<'a>>,
    average_battery_temp: Option<Number<'a>>,
    time_window_start: String,
    time_window_end: String,
    data_points: u64,
    meter_data_points: u64,
    matched_energy_delivered_dc: Number<'a>,
    efficiency_status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    efficiency_reason: Option<&'static str>,
    attribution: Attribution<'a>,
    quality: Quality<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    series: Option<Vec<SliceView<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost_cost: Option<Number<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<&'a str>,
}

impl<'a> From<&'a Printed> for AnswerView<'a> {
    fn from(printed: &'a Printed) -> Self {
        let series = printed.series.as_ref();
        AnswerView {
            vehicle_id: &printed.vehicle_id,
            total_energy_consumed_ac: Number(&printed.total_energy_consumed_ac),
            total_energy_delivered_dc: Number(&printed.total_energy_delivered_dc),
            efficiency_ratio: printed.efficiency_ratio.as_ref().map(Number),
            average_battery_temp: printed.average_battery_temp.as_ref().map(Number),
            time_window_start: printed.window.start().to_string(),
            time_window_end: printed.window.end().to_string(),
            data_points: printed.data_points,
            meter_data_points: printed.meter_data_points,
            matched_energy_delivered_dc: Number(&printed.matched_energy_delivered_dc),
            efficiency_status: printed.efficiency_status.name(),
            efficiency_reason: printed.insufficient.map(Insufficient::name),
            attribution: Attribution {
                method: printed.attribution.method,
                meters: &printed.attribution.meters,
                sessions: printed.attribution.sessions,
            },
            quality: Quality::from(&printed.quality),
            series: series.map(|parts| parts.iter().map(SliceView::from).collect()),
            lost_cost: printed.lost_cost.as_ref().map(Number),
            currency: printed.currency.as_deref(),
        }
    }
}

/// One part of a series.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SliceView<'a> {
    start: &'a str,
    end: &'a str,
    total_energy_consumed_ac: Number<'a>,
    total_energy_delivered_dc: Number<'a>,
    matched_energy_delivered_dc: Number<'a>,
    efficiency_ratio: Option<Number<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost_cost: Option<Number<'a>>,
}

impl<'a> From<&'a PrintedSlice> for SliceView<'a> {
    fn from(slice: &'a PrintedSlice) -> Self {
        SliceView {
            start: &slice.start,
            end: &slice.end,
            total_energy_consumed_ac: Number(&slice.total_energy_consumed_ac),
            total_energy_delivered_dc: Number(&slice.total_energy_delivered_dc),
            matched_energy_delivered_dc: Number(&slice.matched_energy_delivered_dc),
            efficiency_ratio: slice.efficiency_ratio.as_ref().map(Number),
            lost_cost: slice.lost_cost.as_ref().map(Number),
        }
    }
}

/// The energy of all meters and of all vehicles in a part of a window.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FleetSliceView<'a> {
    meter_energy_ac: Number<'a>,
    unattributed_energy_ac: Number<'a>,
    #[serde(flatten)]
    vehicles: SliceView<'a>,
}

impl<'a> From<&'a PrintedFleet> for FleetSliceView<'a> {
    fn from(fleet: &'a PrintedFleet) -> Self {
        FleetSliceView {
            meter_energy_ac: Number(&fleet.meter_energy_ac),
            unattributed_energy_ac: Number(&fleet.unattributed_energy_ac),
            vehicles: SliceView::from(&fleet.vehicles),
        }
    }
}

/// The energy of one session, which is the answer for its vehicle during the session, without the session's own
/// fields.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionEnergyView<'a> {
    total_energy_consumed_ac: Number<'a>,
    total_energy_delivered_dc: Number<'a>,
    matched_energy_delivered_dc: Number<'a>,
    efficiency_ratio: Option<Number<'a>>,
    efficiency_status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    efficiency_reason: Option<&'static str>,
    average_battery_temp: Option<Number<'a>>,
    data_points: u64,
    meter_data_points: u64,
    quality: Quality<'a>,
}

impl<'a> From<&'a Printed> for SessionEnergyView<'a> {
    fn from(printed: &'a Printed) -> Self {
        SessionEnergyView {
            total_energy_consumed_ac: Number(&printed.total_energy_consumed_ac),
            total_energy_delivered_dc: Number(&printed.total_energy_delivered_dc),
            matched_energy_delivered_dc: Number(&printed.matched_energy_delivered_dc),
            efficiency_ratio: printed.efficiency_ratio.as_ref().map(Number),
            efficiency_status: printed.efficiency_status.name(),
            efficiency_reason: printed.insufficient.map(Insufficient::name),
            average_battery_temp: printed.average_battery_temp.as_ref().map(Number),
            data_points: printed.data_points,
            meter_data_points: printed.meter_data_points,
            quality: Quality::from(&printed.quality),
        }
    }
}

/// The energy of one session, with its power and cost.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChargeView<'a> {
    #[serde(flatten)]
    energy: SessionEnergyView<'a>,
    average_power_kw: Number<'a>,
    peak_power_kw: Option<Number<'a>>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "optional_number"
    )]
    cost: Option<Decimal>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "optional_number"
    )]
    lost_cost: Option<Decimal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<&'a str>,
}

impl<'a> ChargeView<'a> {
    /// Makes the view of a session's energy. `tariff` must be the one that its costs were computed with.
    pub(crate) fn new(charge: &'a Charge, tariff: Option<&'a Tariff>) -> Self {
        let costs = charge.costs.as_ref();
        ChargeView {
            energy: SessionEnergyView::from(&charge.printed),
            average_power_kw: Number(&charge.power.average),
            peak_power_kw: charge.power.peak.as_ref().map(Number),
            cost: costs.map(|costs| Decimal::cost(&costs.consumed)),
            lost_cost: costs.map(|costs| Decimal::cost(&costs.lost)),
            currency: costs.and(tariff).and_then(Tariff::currency),
        }
    }
}

/// Serialises a [`Decimal`], for `serialize_with`.
pub(crate) fn number<S: Serializer>(number: &Decimal, serializer: S) -> Result<S::Ok, S::Error> {
    Number(number).serialize(serializer)
}

/// Serialises an optional [`Decimal`], for `serialize_with`.
pub(crate) fn optional_number<S: Serializer>(
    number: &Option<Decimal>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    number.as_ref().map(Number).serialize(serializer)
}
