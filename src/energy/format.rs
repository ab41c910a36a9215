//! Numbers as they are printed: each rounded once from the exact value, half away from zero.

use std::cmp::Ordering;
use std::fmt;

use num_bigint::{BigInt, Sign};

use super::exact::{Exact, MWH_PER_KWH, Near, TEMPERATURE_DECIMALS};

/// Decimals of a printed kWh.
pub const KWH_DECIMALS: u32 = 6;
/// Decimals of a printed cost.
pub const COST_DECIMALS: u32 = 4;
/// Decimals of a printed ratio, in percent.
pub const RATIO_DECIMALS: u32 = 2;
/// Decimals of a printed temperature.
pub const PRINTED_TEMPERATURE_DECIMALS: u32 = 2;
/// Decimals of a printed coverage.
pub const COVERAGE_DECIMALS: u32 = 4;

/// A printed number: an integer of 10^-decimals.
///
/// Its text has exactly its digits, whatever their count, and no zeros at the end: 12.4, 0, 89.52.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decimal {
    units: BigInt,
    decimals: u32,
}

impl Decimal {
    /// Rounds `numerator / denominator` to some decimals, half away from zero.
    ///
    /// Shape:  a denominator of 0 gives 0; callers have ruled it out
    pub fn of_fraction(numerator: &BigInt, denominator: &BigInt, decimals: u32) -> Self {
        if *denominator == BigInt::ZERO {
            return Decimal {
                units: BigInt::ZERO,
                decimals,
            };
        }
        let negative = (numerator.sign() == Sign::Minus) != (denominator.sign() == Sign::Minus);
        let (up, down) = (numerator.magnitude(), denominator.magnitude());
        let doubled = up * num_bigint::BigUint::from(10u8).pow(decimals) * 2u8 + down;
        let units = BigInt::from(doubled / (down * 2u8));
        Decimal {
            units: if negative { -units } else { units },
            decimals,
        }
    }

    /// Rounds an amount divided by a number above 0, as [`Decimal::of_fraction`] does.
    fn of_amount(amount: &Exact, divisor: i64, decimals: u32) -> Self {
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

    /// Prints a hundredth of an energy in kWh.
    pub fn kwh_percent(energy: &Exact) -> Self {
        Decimal::of_amount(energy, MWH_PER_KWH * 100, KWH_DECIMALS)
    }

    /// Prints a cost in the currency.
    ///
    /// Units:  10^-12 of it, as `tariff::Costs` has them
    pub fn cost(cost: &Exact) -> Self {
        Decimal::of_amount(cost, 10_i64.pow(12), COST_DECIMALS)
    }

    /// Prints a hundredth of a cost.
    ///
    /// Units:  as [`Decimal::cost`]
    pub fn cost_percent(cost: &Exact) -> Self {
        Decimal::of_amount(cost, 10_i64.pow(14), COST_DECIMALS)
    }

    /// Prints 100 × `part` / `all`, in percent; `None` where `all` is 0.
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

    /// Prints the mean of temperatures; `None` without any.
    ///
    /// Units:  `sum` in 1e-24 °C, as `temperature_units` gives them
    pub fn mean_temperature(sum: i128, count: u64) -> Option<Self> {
        (count > 0).then(|| {
            let down = BigInt::from(10u8).pow(TEMPERATURE_DECIMALS) * count;
            Decimal::of_fraction(&BigInt::from(sum), &down, PRINTED_TEMPERATURE_DECIMALS)
        })
    }

    /// Prints a coverage: 1 - `gap` / `time`, 0 where there is no time.
    pub fn coverage(gap_micros: i128, time_micros: i128) -> Self {
        Decimal::of_fraction(
            &BigInt::from(time_micros - gap_micros),
            &BigInt::from(time_micros),
            COVERAGE_DECIMALS,
        )
    }

    /// Compares with a bound in the same decimals.
    pub fn compare_units(&self, units: i64) -> Ordering {
        self.units.cmp(&BigInt::from(units))
    }

    /// The number in units of 10^-decimals, for ordering what is printed.
    pub const fn units(&self) -> &BigInt {
        &self.units
    }
}

/// 100 × `part` / `all` where all that both may be print the same: a quotient is largest and smallest
/// at the ends of what it is made of, as long as the divisor is above 0.
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
        let decimals = self.decimals as usize;
        let digits = format!(
            "{:0>width$}",
            self.units.magnitude().to_string(),
            width = decimals + 1
        );
        let (whole, fraction) = digits.split_at(digits.len() - decimals);
        let fraction = fraction.trim_end_matches('0');
        if self.units.sign() == Sign::Minus {
            f.write_str("-")?;
        }
        f.write_str(whole)?;
        if !fraction.is_empty() {
            write!(f, ".{fraction}")?;
        }
        Ok(())
    }
}
