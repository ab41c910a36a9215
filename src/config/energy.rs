//! The bounds by which energy is judged.

use clap::Args;

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
}

/// What a kWh costs, as it was said.
#[derive(Debug, Clone)]
pub struct TariffConfig {
    /// The prices; none: lost energy has no cost.
    pub prices: Option<String>,
    /// The time zone of their times.
    pub zone: String,
}

/// The bounds, checked.
///
/// Units:  ratios in 1/100 percent, energy in mWh, coverage in 1/10,000, power in W
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnergyBounds {
    /// A ratio above this is excellent.
    pub excellent_above: i64,
    /// A ratio from this up is good.
    pub good_from: i64,
    /// A ratio from this up is a warning.
    pub warning_from: i64,
    /// AC below this is too little to judge.
    pub ac_mwh_min: i64,
    /// Coverage below this is too little to judge.
    pub coverage_min: u32,
    /// An implied power above this is suspect.
    pub suspect_watts: u64,
}

impl EnergyArgs {
    /// Checks the bounds, each and against each other.
    pub(super) fn check(&self, errors: &mut Vec<String>) -> EnergyBounds {
        let mut within = |flag: &str, value: f64, most: f64, scale: f64| {
            if !(0.0..=most).contains(&value) {
                errors.push(format!("{flag} {value}: must be 0 to {most}"));
            }
            (value.clamp(0.0, most) * scale).round() as i64
        };
        let bounds = EnergyBounds {
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
            suspect_watts: within("--suspect-power", self.suspect_power, 1e9, 1e3) as u64,
        };
        if !(bounds.warning_from <= bounds.good_from && bounds.good_from <= bounds.excellent_above)
        {
            let rule =
                "--efficiency-warning, --efficiency-good and --efficiency-excellent must rise";
            errors.push(rule.to_owned());
        }
        bounds
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
        }
    }

    #[test]
    fn bounds_that_do_not_rise_or_are_out_of_range_are_all_reported() {
        let mut errors = Vec::new();
        let bounds = args().check(&mut errors);
        assert_eq!(
            (errors.len(), bounds.good_from, bounds.suspect_watts),
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
}
