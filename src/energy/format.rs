//! Printed numbers, each rounded once from the exact value, half away from zero.

use std::cmp::Ordering;
use std::fmt;

use num_bigint::{BigInt, Sign};

use super::exact::{Exact, MWH_PER_KWH, Near, TEMPERATURE_DECIMALS};

/// Decimals of a printed kWh.
pub const KWH_DECIMALS: u8 = 6;
/// Decimals of a printed cost.
pub const COST_DECIMALS: u8 = 4;
/// Decimals of a printed power.
pub const POWER_DECIMALS: u8 = 3;
/// Decimals of a printed ratio, in percent.
pub const RATIO_DECIMALS: u8 = 2;
/// Decimals of a printed temperature.
pub const PRINTED_TEMPERATURE_DECIMALS: u8 = 2;
/// Decimals of a printed coverage.
pub const COVERAGE_DECIMALS: u8 = 4;

/// A printed number: an integer of 10^-decimals.
///
/// Its text has all significant digits and no trailing zeros: 12.4, 0, 89.52. A report on a fleet keeps some ten
/// numbers per vehicle, each of 16 bytes without an allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decimal(Units);

/// `Large` is used only if the units do not fit `Small`, so that equal numbers compare equal.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Units {
    Small { units: i64, decimals: u8 },
    Large(Box<(BigInt, u8)>),
}

impl Decimal {
    fn new(units: BigInt, decimals: u8) -> Self {
        Decimal(match i64::try_from(&units) {
            Ok(units) => Units::Small { units, decimals },
            Err(_) => Units::Large(Box::new((units, decimals))),
        })
    }

    /// Rounds `numerator / denominator` to this many decimals, half away from zero.
    ///
    /// Shape:  a denominator of 0 gives 0, but callers rule it out
    pub fn of_fraction(numerator: &BigInt, denominator: &BigInt, decimals: u8) -> Self {
        if *denominator == BigInt::ZERO {
            return Decimal::new(BigInt::ZERO, decimals);
        }
        let negative = (numerator.sign() == Sign::Minus) != (denominator.sign() == Sign::Minus);
        let (up, down) = (numerator.magnitude(), denominator.magnitude());
        let doubled = up * num_bigint::BigUint::from(10u8).pow(decimals.into()) * 2u8 + down;
        let units = BigInt::from(doubled / (down * 2u8));
        Decimal::new(if negative { -units } else { units }, decimals)
    }

    /// Rounds an amount divided by a positive number, like [`Decimal::of_fraction`].
    fn of_amount(amount: &Exact, divisor: i64, decimals: u8) -> Self {
        if let Some(whole) = amount.whole() {
            return Decimal::of_fraction(&BigInt::from(whole), &BigInt::from(divisor), decimals);
        }
        let near = amount.near();
        let unit = Near::per_mwh() * divisor;
        let low = Decimal::of_fraction(&near.low, &unit, decimals);
        if low == Decimal::of_fraction(&near.high, &unit, decimals) {
            return low;
        }
        let (up, down) = amount.to_fraction();
        Decimal::of_fraction(&up, &(down * divisor), decimals)
    }

    /// Prints energy in kWh.
    pub fn kwh(energy: &Exact) -> Self {
        Decimal::of_amount(energy, MWH_PER_KWH, KWH_DECIMALS)
    }

    /// Prints one percent of an energy in kWh.
    pub fn kwh_percent(energy: &Exact) -> Self {
        Decimal::of_amount(energy, MWH_PER_KWH * 100, KWH_DECIMALS)
    }

    /// Prints a cost in the currency.
    ///
    /// Units:  10^-12 of the currency, as in `tariff::Costs`
    pub fn cost(cost: &Exact) -> Self {
        Decimal::of_amount(cost, 10_i64.pow(12), COST_DECIMALS)
    }

    /// Prints one percent of a cost.
    ///
    /// Units:  as [`Decimal::cost`]
    pub fn cost_percent(cost: &Exact) -> Self {
        Decimal::of_amount(cost, 10_i64.pow(14), COST_DECIMALS)
    }

    /// Prints power in kW.
    ///
    /// Units:  `energy` in mWh × 3,600, `micros` above 0
    pub fn power(energy: &Exact, micros: i64) -> Self {
        Decimal::of_amount(energy, micros, POWER_DECIMALS)
    }

    /// Prints 100 × `part` / `all` in percent; `None` if `all` is 0.
    pub fn ratio(part: &Exact, all: &Exact) -> Option<Self> {
        if let Some(settled) = near_ratio(&part.near(), &all.near()) {
            return Some(settled);
        }
        if all.is_zero() {
            return None;
        }
        let (part_up, part_down) = part.to_fraction();
        let (all_up, all_down) = all.to_fraction();
        Some(Decimal::of_fraction(
            &(part_up * all_down * 100),
            &(part_down * all_up),
            RATIO_DECIMALS,
        ))
    }

    /// Prints a mean temperature; `None` without readings.
    ///
    /// Units:  `sum` in 1e-24 °C, as from `temperature_units`
    pub fn mean_temperature(sum: i128, count: u64) -> Option<Self> {
        (count > 0).then(|| {
            let down = BigInt::from(10u8).pow(TEMPERATURE_DECIMALS) * count;
            Decimal::of_fraction(&BigInt::from(sum), &down, PRINTED_TEMPERATURE_DECIMALS)
        })
    }

    /// Prints a coverage, 1 - `gap` / `time`; 0 without any time.
    pub fn coverage(gap_micros: i128, time_micros: i128) -> Self {
        Decimal::of_fraction(
            &BigInt::from(time_micros - gap_micros),
            &BigInt::from(time_micros),
            COVERAGE_DECIMALS,
        )
    }

    /// Compares with a bound that is given in this number's own units.
    pub fn compare_units(&self, units: i64) -> Ordering {
        match &self.0 {
            Units::Small { units: own, .. } => own.cmp(&units),
            Units::Large(own) => own.0.cmp(&BigInt::from(units)),
        }
    }

    /// The number in units of 10^-decimals, for sorting. `None` means that it exceeds 128 bits.
    pub fn units(&self) -> Option<i128> {
        match &self.0 {
            Units::Small { units, .. } => Some(i128::from(*units)),
            Units::Large(own) => i128::try_from(&own.0).ok(),
        }
    }
}

/// 100 × `part` / `all`, if every value within the bounds prints the same; otherwise `None`. With a positive
/// divisor, the quotient is smallest and largest at the bounds.
fn near_ratio(part: &Near, all: &Near) -> Option<Decimal> {
    if all.low <= BigInt::ZERO {
        return None;
    }
    let ends = [(&part.low, &all.low), (&part.low, &all.high)];
    let ends = ends
        .into_iter()
        .chain([(&part.high, &all.low), (&part.high, &all.high)]);
    let mut printed =
        ends.map(|(up, down)| Decimal::of_fraction(&(up * 100), down, RATIO_DECIMALS));
    let first = printed.next()?;
    printed.all(|other| other == first).then_some(first)
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (is_negative, magnitude, decimals) = match &self.0 {
            Units::Small { units, decimals } => {
                (*units < 0, units.unsigned_abs().to_string(), *decimals)
            }
            Units::Large(own) => {
                let magnitude = own.0.magnitude().to_string();
                (own.0.sign() == Sign::Minus, magnitude, own.1)
            }
        };
        let decimals = usize::from(decimals);
        let digits = format!("{magnitude:0>width$}", width = decimals + 1);
        let (whole, fraction) = digits.split_at(digits.len() - decimals);
        let fraction = fraction.trim_end_matches('0');
        if is_negative {
            f.write_str("-")?;
        }
        f.write_str(whole)?;
        if !fraction.is_empty() {
            write!(f, ".{fraction}")?;
        }
        Ok(())
    }
}
