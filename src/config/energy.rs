//! The bounds by which energy is judged.

use clap::Args;
use jiff::tz::TimeZone;

use super::checks::{Checks, given};
use crate::analytics::{Judgement, SuspectWatts};
use crate::energy::StatusBounds;
use crate::energy::tariff::{Tariff, check_currency, tariff_zone};

/// The flags for judging energy.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Energy and efficiency")]
pub struct EnergyArgs {
    /// Efficiency above this is rated excellent, in percent
    #[arg(long, default_value = "90", value_name = "PERCENT")]
    pub efficiency_excellent: String,
    /// Efficiency of at least this is rated good, in percent
    #[arg(long, default_value = "85", value_name = "PERCENT")]
    pub efficiency_good: String,
    /// Efficiency of at least this is rated a warning, in percent; anything lower is critical
    #[arg(long, default_value = "80", value_name = "PERCENT")]
    pub efficiency_warning: String,
    /// Efficiency is not rated below this AC energy, in kWh
    #[arg(long, default_value = "1", value_name = "KWH")]
    pub efficiency_min_energy: String,
    /// Efficiency is not rated below this coverage, from 0 to 1
    #[arg(long, default_value = "0.8", value_name = "SHARE")]
    pub efficiency_min_coverage: String,
    /// A reading that implies more power than this is suspect, in kW
    #[arg(long, default_value = "1000", value_name = "KW")]
    pub suspect_power: String,
    /// The price of a kWh, such as 0.30, or prices by time of day, such as
    /// 06:00=0.34,22:00=0.22; prices may be negative. Answers then include the cost of lost energy
    #[arg(long, value_name = "PRICES")]
    pub tariff: Option<String>,
    /// The time zone of the tariff's times
    #[arg(long, default_value = "UTC", value_name = "ZONE")]
    pub tariff_zone: String,
    /// The currency of the tariff's prices, such as EUR; it appears in answers with costs
    #[arg(long, value_name = "CODE")]
    pub tariff_currency: Option<String>,
}

impl EnergyArgs {
    /// Checks the bounds, each and against each other.
    pub(super) fn check(&self, checks: &mut Checks) -> Judgement {
        let before = checks.errors.len();
        let mut within = |flag: &str, text: &str, most: f64, scale: f64, unit: &str| {
            (checks.decimal(flag, text, 0.0..=most, unit) * scale).round() as i64
        };
        let percent = " percent";
        let excellent = &self.efficiency_excellent;
        let least = &self.efficiency_min_energy;
        let coverage = &self.efficiency_min_coverage;
        let bounds = StatusBounds {
            excellent_above: within("--efficiency-excellent", excellent, 100.0, 100.0, percent),
            good_from: within(
                "--efficiency-good",
                &self.efficiency_good,
                100.0,
                100.0,
                percent,
            ),
            warning_from: within(
                "--efficiency-warning",
                &self.efficiency_warning,
                100.0,
                100.0,
                percent,
            ),
            ac_mwh_min: within("--efficiency-min-energy", least, 1e6, 1e6, " kWh"),
            coverage_min: within("--efficiency-min-coverage", coverage, 1.0, 1e4, "") as u32,
            ..StatusBounds::default()
        };
        let watts = within("--suspect-power", &self.suspect_power, 1e9, 1e3, " kW");
        // If a bound was wrong and replaced, comparing it with the others means nothing.
        if !bounds.rise() && checks.errors.len() == before {
            let rule = "must not be above --efficiency-good, which must not be above \
                        --efficiency-excellent";
            checks.wrong_value("--efficiency-warning", &self.efficiency_warning, rule);
        }
        Judgement {
            bounds,
            suspect_watts: SuspectWatts(watts as u64),
        }
    }

    /// Reads what a kWh costs. `None` means that no prices are set. The time zone and the currency are always
    /// checked.
    pub(super) fn tariff(&self, checks: &mut Checks) -> Option<Tariff> {
        let zone = tariff_zone(&self.tariff_zone)
            .map_err(|why| checks.wrong_value("--tariff-zone", &self.tariff_zone, why))
            .ok();
        let currency = given(self.tariff_currency.as_deref());
        if let Some(Err(why)) = currency.map(check_currency) {
            checks.wrong_value("--tariff-currency", currency.unwrap_or_default(), why);
        }
        let prices = given(self.tariff.as_deref())?;
        let tariff = Tariff::parse(prices, zone.unwrap_or(TimeZone::UTC))
            .map_err(|why| checks.wrong_value("--tariff", prices, why))
            .ok()?;
        match currency {
            Some(code) => tariff.in_currency(code).ok(),
            None => Some(tariff),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> EnergyArgs {
        EnergyArgs {
            efficiency_excellent: "90".to_owned(),
            efficiency_good: "85".to_owned(),
            efficiency_warning: "80".to_owned(),
            efficiency_min_energy: "1".to_owned(),
            efficiency_min_coverage: "0.8".to_owned(),
            suspect_power: "1000".to_owned(),
            tariff: None,
            tariff_zone: "UTC".to_owned(),
            tariff_currency: None,
        }
    }

    #[test]
    fn bounds_out_of_range_or_order_are_reported() {
        let mut checks = Checks::default();
        let bounds = args().check(&mut checks);
        assert_eq!(
            (
                checks.errors.len(),
                bounds.bounds.good_from,
                bounds.suspect_watts.0
            ),
            (0, 8500, 1_000_000)
        );
        let unordered = EnergyArgs {
            efficiency_good: "95".to_owned(),
            ..args()
        };
        unordered.check(&mut checks);
        assert_eq!(checks.errors.len(), 1, "{:?}", checks.errors);
        let wrong = EnergyArgs {
            efficiency_min_coverage: "NaN".to_owned(),
            suspect_power: "-1".to_owned(),
            ..args()
        };
        wrong.check(&mut checks);
        assert_eq!(checks.errors.len(), 3, "{:?}", checks.errors);
    }
}
