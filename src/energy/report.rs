//! The answer as printed, with each number rounded once.

use std::cmp::Ordering;
use std::sync::Arc;

use super::answer::{Method, Performance, Slice};
use super::attribution::Rule;
use super::exact::{Exact, MWH_PER_KWH};
use super::format::Decimal;
use super::interval::Interval;
use super::tariff::Costs;

/// The bounds of [`EfficiencyStatus`].
///
/// Why configurable: single-phase AC charging runs at 66 to 90% by vehicle and current.
///
/// Units:  ratios in hundredths of a percent, as printed; energy in mWh; coverage in 1/10,000
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusBounds {
    /// AC below this is too little to judge.
    pub ac_mwh_min: i64,
    /// Coverage below this is too little to judge.
    pub coverage_min: u32,
    /// A ratio above this is impossible.
    pub inconsistent_above: i64,
    /// A ratio above this is excellent.
    pub excellent_above: i64,
    /// A ratio of at least this is good.
    pub good_from: i64,
    /// A ratio of at least this is a warning. Anything lower is critical.
    pub warning_from: i64,
}

impl StatusBounds {
    /// Whether the bounds ascend, so that a better status needs a higher ratio.
    pub fn rise(&self) -> bool {
        self.warning_from <= self.good_from && self.good_from <= self.excellent_above
    }
}

impl Default for StatusBounds {
    fn default() -> Self {
        StatusBounds {
            ac_mwh_min: MWH_PER_KWH,
            coverage_min: 8_000,
            inconsistent_above: 10_000,
            excellent_above: 9_000,
            good_from: 8_500,
            warning_from: 8_000,
        }
    }
}

/// What the ratio suggests: a reason to look closer, not a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EfficiencyStatus {
    /// No ratio, too little energy or too little coverage.
    InsufficientData,
    /// More DC than AC.
    Inconsistent,
    /// Above 90%.
    Excellent,
    /// From 85%.
    Good,
    /// From 80%.
    Warning,
    /// Below 80%.
    Critical,
}

impl EfficiencyStatus {
    /// Every status, in the order in which they are checked.
    pub const ALL: [EfficiencyStatus; 6] = [
        EfficiencyStatus::InsufficientData,
        EfficiencyStatus::Inconsistent,
        EfficiencyStatus::Excellent,
        EfficiencyStatus::Good,
        EfficiencyStatus::Warning,
        EfficiencyStatus::Critical,
    ];

    /// The name in responses.
    pub const fn name(self) -> &'static str {
        match self {
            EfficiencyStatus::InsufficientData => "insufficient_data",
            EfficiencyStatus::Inconsistent => "inconsistent",
            EfficiencyStatus::Excellent => "excellent",
            EfficiencyStatus::Good => "good",
            EfficiencyStatus::Warning => "warning",
            EfficiencyStatus::Critical => "critical",
        }
    }
}

/// Why there is not enough data for a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Insufficient {
    /// No meter is known for any time of the window.
    NoMeter,
    /// The meters measured too little AC.
    TooLittleEnergy,
    /// Too much of the time at a meter has no readings.
    LowCoverage,
}

impl Insufficient {
    /// The name in responses.
    pub const fn name(self) -> &'static str {
        match self {
            Insufficient::NoMeter => "no_meter",
            Insufficient::TooLittleEnergy => "too_little_energy",
            Insufficient::LowCoverage => "low_coverage",
        }
    }
}

/// The first reason that leaves an answer without a status; `None` if it has one.
pub fn insufficient(answer: &Performance, bounds: &StatusBounds) -> Option<Insufficient> {
    let ac_min = Exact::from_mwh(i128::from(bounds.ac_mwh_min));
    if answer.method == Method::None {
        Some(Insufficient::NoMeter)
    } else if answer.consumed_ac.is_zero() || answer.consumed_ac.compare(&ac_min) == Ordering::Less
    {
        Some(Insufficient::TooLittleEnergy)
    } else if answer.coverage.is_below(bounds.coverage_min) {
        Some(Insufficient::LowCoverage)
    } else {
        None
    }
}

/// Rates an answer. AC and coverage are compared exactly, the ratio as printed.
pub fn efficiency_status(answer: &Performance, bounds: &StatusBounds) -> EfficiencyStatus {
    let ratio = Decimal::ratio(&answer.matched_dc, &answer.consumed_ac);
    let Some(ratio) = ratio.filter(|_| insufficient(answer, bounds).is_none()) else {
        return EfficiencyStatus::InsufficientData;
    };
    if ratio.compare_units(bounds.inconsistent_above).is_gt() {
        EfficiencyStatus::Inconsistent
    } else if ratio.compare_units(bounds.excellent_above).is_gt() {
        EfficiencyStatus::Excellent
    } else if ratio.compare_units(bounds.good_from).is_ge() {
        EfficiencyStatus::Good
    } else if ratio.compare_units(bounds.warning_from).is_ge() {
        EfficiencyStatus::Warning
    } else {
        EfficiencyStatus::Critical
    }
}

/// `attribution` of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrintedAttribution {
    /// `reading`, `session`, `same_id`, `none` or `mixed`.
    pub method: &'static str,
    /// External ids, sorted bytewise.
    pub meters: Vec<String>,
    /// The number of distinct sessions.
    pub sessions: u64,
}

/// `quality` of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrintedQuality {
    /// 0 to 1, 4 decimals.
    pub coverage: Decimal,
    /// Register resets.
    pub resets: u64,
    /// The number of gaps.
    pub gaps: u64,
    /// Suspect readings.
    pub suspect: u64,
}

/// The answer with its numbers rounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Printed {
    /// The vehicle's external id.
    pub vehicle_id: Arc<str>,
    /// kWh.
    pub total_energy_consumed_ac: Decimal,
    /// kWh.
    pub total_energy_delivered_dc: Decimal,
    /// Percent; `None` if AC is 0.
    pub efficiency_ratio: Option<Decimal>,
    /// °C; `None` without readings.
    pub average_battery_temp: Option<Decimal>,
    /// The window, (from, to].
    pub window: Interval,
    /// The vehicle's readings.
    pub data_points: u64,
    /// The meters' readings.
    pub meter_data_points: u64,
    /// kWh.
    pub matched_energy_delivered_dc: Decimal,
    /// What the ratio suggests.
    pub efficiency_status: EfficiencyStatus,
    /// Why the status is [`EfficiencyStatus::InsufficientData`]; `None` for any other.
    pub insufficient: Option<Insufficient>,
    /// The rules, meters and sessions.
    pub attribution: PrintedAttribution,
    /// How reliable the answer is.
    pub quality: PrintedQuality,
    /// The parts of the window, if requested.
    pub series: Option<Vec<PrintedSlice>>,
    /// The cost of AC minus matched DC, if a tariff is known.
    pub lost_cost: Option<Decimal>,
    /// The currency, if it is known and does not appear elsewhere in the answer.
    pub currency: Option<String>,
    /// AC minus matched DC in kWh, for sorting.
    lost: Decimal,
}

impl Printed {
    /// AC minus matched DC, rounded once.
    ///
    /// Shape:  `None` if it exceeds 128 bits
    /// Units:  mWh
    pub fn lost_energy(&self) -> Option<i128> {
        self.lost.units()
    }

    /// Adds the parts of its window.
    #[must_use]
    pub fn with_series(mut self, parts: Vec<PrintedSlice>) -> Self {
        self.series = Some(parts);
        self
    }

    /// Adds the cost of the losses.
    #[must_use]
    pub fn with_costs(mut self, costs: &Costs, currency: Option<&str>) -> Self {
        self.lost_cost = Some(Decimal::cost(&costs.lost));
        self.currency = currency.map(str::to_owned);
        self
    }

    /// Prints an answer. `meter_ids` are the external ids of its `meters`, in any order.
    pub fn new(
        answer: &Performance,
        vehicle_id: &str,
        mut meter_ids: Vec<String>,
        bounds: &StatusBounds,
    ) -> Self {
        meter_ids.sort_unstable();
        let mut lost = answer.consumed_ac.clone();
        lost.subtract(&answer.matched_dc);
        Printed {
            series: None,
            lost_cost: None,
            currency: None,
            lost: Decimal::kwh(&lost),
            vehicle_id: vehicle_id.into(),
            total_energy_consumed_ac: Decimal::kwh(&answer.consumed_ac),
            total_energy_delivered_dc: Decimal::kwh(&answer.delivered_dc),
            efficiency_ratio: Decimal::ratio(&answer.matched_dc, &answer.consumed_ac),
            average_battery_temp: Decimal::mean_temperature(
                answer.temperature_sum,
                answer.data_points,
            ),
            window: answer.window,
            data_points: answer.data_points,
            meter_data_points: answer.meter_data_points,
            matched_energy_delivered_dc: Decimal::kwh(&answer.matched_dc),
            efficiency_status: efficiency_status(answer, bounds),
            insufficient: insufficient(answer, bounds),
            attribution: PrintedAttribution {
                method: method_name(answer.method),
                meters: meter_ids,
                sessions: answer.sessions,
            },
            quality: PrintedQuality {
                coverage: Decimal::coverage(
                    answer.coverage.gap_micros,
                    answer.coverage.time_micros,
                ),
                resets: answer.oddities.resets,
                gaps: answer.coverage.gaps,
                suspect: answer.oddities.suspect,
            },
        }
    }
}

/// One part of a series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrintedSlice {
    /// RFC 3339, UTC. The start is not part of the interval.
    pub start: String,
    /// RFC 3339, UTC.
    pub end: String,
    /// kWh.
    pub total_energy_consumed_ac: Decimal,
    /// kWh.
    pub total_energy_delivered_dc: Decimal,
    /// kWh.
    pub matched_energy_delivered_dc: Decimal,
    /// Percent; `None` if AC is 0.
    pub efficiency_ratio: Option<Decimal>,
    /// The cost of AC minus matched DC, if a tariff is known.
    pub lost_cost: Option<Decimal>,
}

impl PrintedSlice {
    /// Adds the cost of the losses, if a tariff is known.
    #[must_use]
    pub fn with_costs(mut self, costs: Option<&Costs>) -> Self {
        self.lost_cost = costs.map(|costs| Decimal::cost(&costs.lost));
        self
    }
}

impl From<&Slice> for PrintedSlice {
    fn from(slice: &Slice) -> Self {
        PrintedSlice {
            start: slice.window.start().to_string(),
            end: slice.window.end().to_string(),
            total_energy_consumed_ac: Decimal::kwh(&slice.consumed_ac),
            total_energy_delivered_dc: Decimal::kwh(&slice.delivered_dc),
            matched_energy_delivered_dc: Decimal::kwh(&slice.matched_dc),
            efficiency_ratio: Decimal::ratio(&slice.matched_dc, &slice.consumed_ac),
            lost_cost: None,
        }
    }
}

/// The energy that all meters measured and that all vehicles received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrintedFleet {
    /// kWh of all meters.
    pub meter_energy_ac: Decimal,
    /// The part of it that no vehicle is credited with, in kWh.
    pub unattributed_energy_ac: Decimal,
    /// The sums of the vehicles.
    pub vehicles: PrintedSlice,
}

impl PrintedFleet {
    /// Prints the totals of a fleet.
    pub fn new(meter_ac: &Exact, vehicles: &Slice) -> Self {
        let mut rest = meter_ac.clone();
        rest.subtract(&vehicles.consumed_ac);
        PrintedFleet {
            meter_energy_ac: Decimal::kwh(meter_ac),
            unattributed_energy_ac: Decimal::kwh(&rest),
            vehicles: PrintedSlice::from(vehicles),
        }
    }
}

const fn method_name(method: Method) -> &'static str {
    match method {
        Method::None => "none",
        Method::Only(Rule::Named) => "reading",
        Method::Only(Rule::Session) => "session",
        Method::Only(Rule::SameId) => "same_id",
        Method::Mixed => "mixed",
    }
}
