//! The bounds by which energy is judged.

use clap::Args;

use crate::analytics::StatusBounds;
use crate::analytics::queries::{Judgement, SuspectWatts};
use crate::analytics::tariff::{Tariff, TariffError};

/// The flags of what is judged to be odd.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Judging energy")]
pub struct EnergyArgs {
    /// Efficiency in percent above which it is excellent
    #[arg(
        long,
        global = true,
        env = "WATTGATE_EFFICIENCY_EXCELLENT",
        default_value_t = 90.0,
        value_name = "PERCENT"
    )]
    pub efficiency_excellent: f64,
    /// Efficiency in percent from which it is good
    #[arg(
        long,
        global = true,
        env = "WATTGATE_EFFICIENCY_GOOD",
        default_value_t = 85.0,
        value_name = "PERCENT"
    )]
    pub efficiency_good: f64,
    /// Efficiency in percent from which it is a warning; below it is critical
    #[arg(
        long,
        global = true,
        env = "WATTGATE_EFFICIENCY_WARNING",
        default_value_t = 80.0,
        value_name = "PERCENT"
    )]
    pub efficiency_warning: f64,
    /// AC energy in kWh below which efficiency is not judged
    #[arg(
        long,
        global = true,
        env = "WATTGATE_EFFICIENCY_MIN_ENERGY",
        default_value_t = 1.0,
        value_name = "KWH"
    )]
    pub efficiency_min_energy: f64,
    /// Coverage, 0 to 1, below which efficiency is not judged
    #[arg(
        long,
        global = true,
        env = "WATTGATE_EFFICIENCY_MIN_COVERAGE",
        default_value_t = 0.8,
        value_name = "SHARE"
    )]
    pub efficiency_min_coverage: f64,
    /// Power in kW that a reading implies at most before it is suspect
    #[arg(
        long,
        global = true,
        env = "WATTGATE_SUSPECT_POWER",
        default_value_t = 1000.0,
        value_name = "KW"
    )]
    pub suspect_power: f64,
    /// What a kWh costs, as 0.30, or from times of day on, as 06:00=0.34,22:00=0.22; turns lost
    /// energy into cost
    #[arg(long, global = true, env = "WATTGATE_TARIFF", value_name = "PRICES")]
    pub tariff: Option<String>,
    /// The time zone of the tariff's times
    #[arg(
        long,
        global = true,
        env = "WATTGATE_TARIFF_ZONE",
        default_value = "UTC",
        value_name = "ZONE"
    )]
    pub tariff_zone: String,
    /// The currency of the tariff's prices, as EUR: answers with costs name it
    #[arg(
        long,
        global = true,
        env = "WATTGATE_TARIFF_CURRENCY",
        value_name = "CODE"
    )]
    pub tariff_currency: Option<String>,
}

impl EnergyArgs {
    /// Checks the bounds, each and against each other.
    pub(super) fn check(&self, errors: &mut Vec<String>) -> Judgement {
        let mut within = |flag: &str, value: f64, most: f64, scale: f64| {
            if !(0.0..=most).contains(&value) {
                errors.push(format!("{flag} {value}: must be 0 to {most}"));
            }
            (value.clamp(0.0, most) * scale).round() as i64
        };
        let bounds = StatusBounds {
            excellent_above: within(
                "--efficiency-excellent",
                self.efficiency_excellent,
                100.0,
                100.0,
            ),
            good_from: within("--efficiency-good", self.efficiency_good, 100.0, 100.0),
            warning_from: within(
                "--efficiency-warning",
                self.efficiency_warning,
                100.0,
                100.0,
            ),
            ac_mwh_min: within(
                "--efficiency-min-energy",
                self.efficiency_min_energy,
                1e6,
                1e6,
            ),
            coverage_min: within(
                "--efficiency-min-coverage",
                self.efficiency_min_coverage,
                1.0,
                1e4,
            ) as u32,
            ..StatusBounds::default()
        };
        let watts = within("--suspect-power", self.suspect_power, 1e9, 1e3);
        if !(bounds.warning_from <= bounds.good_from && bounds.good_from <= bounds.excellent_above)
        {
            let rule =
                "--efficiency-warning, --efficiency-good and --efficiency-excellent must rise";
            errors.push(rule.to_owned());
        }
        Judgement {
            bounds,
            suspect_watts: SuspectWatts(watts as u64),
        }
    }

    /// Reads what a kWh costs, if it is said.
    pub(super) fn tariff(&self, errors: &mut Vec<String>) -> Option<Tariff> {
        let prices = self.tariff.as_ref().filter(|text| !text.is_empty())?;
        let priced = Tariff::parse(prices, &self.tariff_zone);
        let currency = self.tariff_currency.as_deref().filter(|c| !c.is_empty());
        let tariff = match currency {
            Some(code) => priced.and_then(|tariff| tariff.in_currency(code)),
            None => priced,
        };
        tariff
            .map_err(|why| {
                let (flag, text) = match why {
                    TariffError::Prices => ("--tariff", prices.as_str()),
                    TariffError::Zone => ("--tariff-zone", self.tariff_zone.as_str()),
                    TariffError::Currency => ("--tariff-currency", currency.unwrap_or_default()),
                };
                errors.push(format!("{flag} {text}: {why}"));
            })
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> EnergyArgs {
        EnergyArgs {
            efficiency_excellent: 90.0,
            efficiency_good: 85.0,
            efficiency_warning: 80.0,
            efficiency_min_energy: 1.0,
            efficiency_min_coverage: 0.8,
            suspect_power: 1000.0,
            tariff: None,
            tariff_zone: "UTC".to_owned(),
            tariff_currency: None,
        }
    }

    #[test]
    fn bounds_that_do_not_rise_or_are_out_of_range_are_all_reported() {
        let mut errors = Vec::new();
        let bounds = args().check(&mut errors);
        assert_eq!(
            (
                errors.len(),
                bounds.bounds.good_from,
                bounds.suspect_watts.0
            ),
            (0, 8500, 1_000_000)
        );
        let wrong = EnergyArgs {
            efficiency_good: 95.0,
            efficiency_min_coverage: f64::NAN,
            suspect_power: -1.0,
            ..args()
        };
        wrong.check(&mut errors);
        assert_eq!(errors.len(), 3, "{errors:?}");
    }

    #[test]
    fn a_tariff_is_read_with_the_rest_and_an_empty_one_is_none() {
        let mut errors = Vec::new();
        let tariff = |prices: &str, zone: &str, errors: &mut Vec<String>| {
            let said = EnergyArgs {
                tariff: Some(prices.to_owned()),
                tariff_zone: zone.to_owned(),
                ..args()
            };
            said.tariff(errors).is_some()
        };
        assert!(tariff("0.30", "UTC", &mut errors));
        assert!(!tariff("", "UTC", &mut errors));
        assert_eq!(errors, Vec::<String>::new());
        assert!(!tariff("cheap", "UTC", &mut errors));
        assert!(!tariff("0.30", "Middle/Earth", &mut errors));
        assert!(errors[0].starts_with("--tariff cheap"), "{errors:?}");
        assert!(
            errors[1].starts_with("--tariff-zone Middle/Earth"),
            "{errors:?}"
        );
    }
}
