//! Energy as exact numbers: integers of mWh, plus fractions where an amount is divided by time or DC.
//!
//! No sum here passes through a float. So the same readings in any order give the same answer to the last digit,
//! and the parts of a series add up to the whole.

use std::collections::BTreeMap;

use num_bigint::BigInt;

/// mWh in a kWh. All arithmetic keeps 6 decimals of a kWh.
pub const MWH_PER_KWH: i64 = 1_000_000;

/// The decimals of a temperature that the arithmetic keeps.
///
/// Why 24: a double with 17 significant digits has no more decimals from 1e-7 upwards, and 150 °C times ten
/// thousand million readings still fits in 128 bits.
pub const TEMPERATURE_DECIMALS: u32 = 24;

/// Converts a stored kWh to an integer of mWh, rounded half away from zero.
///
/// The number that was sent is taken to be the shortest decimal that parses as the stored double. So 0.0000005 is
/// rounded up, although the nearest double is slightly below it.
///
/// Shape:  finite, of either sign, at most 1e12 in magnitude; other values count as 0
pub fn mwh_of_kwh(kwh: f64) -> i64 {
    // A number with at most 6 decimals and 15 digits in all equals its shortest decimal text, so the text need not
    // be built for nearly any reading.
    let scaled = (kwh * 1e6).round();
    if scaled.abs() < 1e15 && scaled / 1e6 == kwh {
        return scaled as i64;
    }
    i64::try_from(decimal_units(kwh, 6)).unwrap_or(if kwh > 0.0 { i64::MAX } else { i64::MIN })
}

/// Converts a stored temperature to an integer of 1e-24 °C.
pub fn temperature_units(celsius: f64) -> i128 {
    let scaled = (celsius * 1e6).round();
    if scaled.abs() < 1e15 && scaled / 1e6 == celsius {
        return scaled as i128 * MICRO_CELSIUS;
    }
    decimal_units(celsius, TEMPERATURE_DECIMALS)
}

/// 1e-6 °C in units of 1e-24 °C.
const MICRO_CELSIUS: i128 = 10i128.pow(TEMPERATURE_DECIMALS - 6);

/// Splits a sum of temperatures into 1e-6 °C and the rest in 1e-24 °C, the form in which it is stored. `None`
/// means that it does not fit.
pub fn temperature_parts(sum: i128) -> Option<(i64, i64)> {
    let micro = i64::try_from(sum.div_euclid(MICRO_CELSIUS)).ok()?;
    let rest = i64::try_from(sum.rem_euclid(MICRO_CELSIUS)).ok()?;
    Some((micro, rest))
}

/// The sum that [`temperature_parts`] split.
pub fn temperature_sum(micro: i64, rest: i64) -> i128 {
    i128::from(micro) * MICRO_CELSIUS + i128::from(rest)
}

/// The shortest decimal text of a double as units of 10^-decimals, rounded half away from zero.
fn decimal_units(value: f64, decimals: u32) -> i128 {
    if !value.is_finite() {
        return 0;
    }
    // The form is [-]d[.ddd]e[-]x, with the fewest digits that parse as this double.
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i64 = exponent.parse().unwrap_or(0);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: i128 = format!("{whole}{fraction}").parse().unwrap_or(0);
    let shift = exponent - fraction.len() as i64 + i64::from(decimals);
    let Ok(shift) = i32::try_from(shift) else {
        return 0;
    };
    let Some(factor) = 10i128.checked_pow(shift.unsigned_abs()) else {
        return if shift < 0 {
            0
        } else {
            digits.signum() * i128::MAX
        };
    };
    if shift >= 0 {
        return digits.saturating_mul(factor);
    }
    let (quotient, rest) = (digits / factor, digits % factor);
    // The divisor is a power of ten of at least 10, so half of it is whole.
    quotient
        + if rest.abs() >= factor / 2 {
            digits.signum()
        } else {
            0
        }
}

/// An exact amount of energy: whole mWh, and fractions of one.
///
/// Fractions are kept by denominator. They are brought to a common denominator only when the amount is printed or
/// compared, so that adding stays cheap and exact.
///
/// Units:  mWh
#[derive(Debug, Clone, Default)]
pub struct Exact {
    whole: i128,
    /// Numerators by denominator, both within 64 bits, 0 < numerator < denominator.
    small: BTreeMap<i128, i128>,
    /// The same beyond 64 bits. Here numerators may have any sign and size.
    large: BTreeMap<BigInt, BigInt>,
}

/// Smaller denominators are added in machine integers. The sum of two numerators cannot overflow.
const SMALL_MAX: i128 = 1 << 64;

/// Binary digits after the point of a [`Near`]. Why 64: a numerator shifted by 64 bits fits in 128, and a million
/// terms together are off by only 2^-44 mWh.
const NEAR_BITS: u32 = 64;

/// Bounds of an exact amount, in units of 2^-64 mWh.
///
/// A shared meter leaves fractions of thousands of binary digits. A fleet's sum has thousands of them, each with
/// its own denominator, and their common denominator has millions of digits and takes minutes. Bounds take one
/// division per fraction. They decide the printed digits unless the sum is right at a rounding edge.
#[derive(Debug, Clone)]
pub struct Near {
    /// At most the amount.
    pub low: BigInt,
    /// At least the amount.
    pub high: BigInt,
}

impl Near {
    /// How many units are 1 mWh.
    pub fn per_mwh() -> BigInt {
        BigInt::from(1) << NEAR_BITS
    }
}

impl Exact {
    /// Makes an amount of whole mWh.
    pub fn from_mwh(mwh: i128) -> Self {
        Exact {
            whole: mwh,
            ..Exact::default()
        }
    }

    /// Adds whole mWh.
    pub fn add_mwh(&mut self, mwh: i128) {
        self.whole += mwh;
    }

    /// Adds `mwh × part / all`; nothing if `all` is 0.
    pub fn add_part(&mut self, mwh: i128, part: i128, all: i128) {
        if all == 0 {
            return;
        }
        match mwh.checked_mul(part) {
            Some(numerator) => self.add_fraction(numerator, all),
            None => self.add_large(BigInt::from(mwh) * part, BigInt::from(all)),
        }
    }

    /// Adds `mwh × part / all × weight / weights`: one vehicle's share of an amount.
    pub fn add_share(
        &mut self,
        mwh: i128,
        (part, all): (i128, i128),
        weight: &Exact,
        weights: &Exact,
    ) {
        if weight.is_whole() && weights.is_whole() {
            let numerator = mwh
                .checked_mul(part)
                .and_then(|n| n.checked_mul(weight.whole));
            let denominator = all.checked_mul(weights.whole);
            match (numerator, denominator) {
                (_, Some(0)) => return,
                (Some(numerator), Some(denominator)) => {
                    return self.add_fraction(numerator, denominator);
                }
                _ => {}
            }
        }
        let (weight_up, weight_down) = weight.to_fraction();
        let (weights_up, weights_down) = weights.to_fraction();
        let numerator = weight_up * mwh * part;
        let denominator = weights_up * all;
        if denominator == BigInt::ZERO {
            return;
        }
        // If possible, all shares of an amount get the same denominator. They then add up to whole amounts again,
        // instead of a sum of thousands of fractions.
        if &weights_down % &weight_down == BigInt::ZERO {
            self.add_large(numerator * (weights_down / weight_down), denominator);
        } else {
            self.add_large(numerator * weights_down, denominator * weight_down);
        }
    }

    fn add_fraction(&mut self, numerator: i128, denominator: i128) {
        let (numerator, denominator) = if denominator < 0 {
            (-numerator, -denominator)
        } else {
            (numerator, denominator)
        };
        self.whole += numerator.div_euclid(denominator);
        let rest = numerator.rem_euclid(denominator);
        if rest == 0 {
            return;
        }
        let divisor = gcd(rest, denominator);
        let (rest, denominator) = (rest / divisor, denominator / divisor);
        if denominator >= SMALL_MAX {
            return self.add_large(BigInt::from(rest), BigInt::from(denominator));
        }
        let sum = self.small.remove(&denominator).unwrap_or(0) + rest;
        self.whole += sum / denominator;
        let sum = sum % denominator;
        if sum == 0 {
            return;
        }
        // A sum such as 1/4 + 1/4 moves to its reduced denominator, which keeps the number of denominators small.
        match gcd(sum, denominator) {
            1 => drop(self.small.insert(denominator, sum)),
            divisor => self.add_fraction(sum / divisor, denominator / divisor),
        }
    }

    fn add_large(&mut self, numerator: BigInt, denominator: BigInt) {
        match (i128::try_from(&numerator), i128::try_from(&denominator)) {
            (Ok(numerator), Ok(denominator)) if denominator < SMALL_MAX => {
                self.add_fraction(numerator, denominator);
            }
            _ => self.keep(&denominator, numerator),
        }
    }

    /// Adds to the numerator of a large denominator. The whole part moves to `whole`, and a numerator of 0 is
    /// removed.
    fn keep(&mut self, denominator: &BigInt, numerator: BigInt) {
        let mut sum = self.large.remove(denominator).unwrap_or_default() + numerator;
        if let Ok(whole) = i128::try_from(&sum / denominator) {
            self.whole += whole;
            sum %= denominator;
        }
        if sum != BigInt::ZERO {
            self.large.insert(denominator.clone(), sum);
        }
    }

    /// Adds another amount.
    pub fn add(&mut self, other: &Exact) {
        self.whole += other.whole;
        for (&denominator, &numerator) in &other.small {
            self.add_fraction(numerator, denominator);
        }
        for (denominator, numerator) in &other.large {
            self.keep(denominator, numerator.clone());
        }
    }

    /// Subtracts another amount.
    pub fn subtract(&mut self, other: &Exact) {
        self.whole -= other.whole;
        for (&denominator, &numerator) in &other.small {
            self.add_fraction(-numerator, denominator);
        }
        for (denominator, numerator) in &other.large {
            self.keep(denominator, -numerator.clone());
        }
    }

    /// Adds another amount `factor` times.
    ///
    /// Shape:  the factor is below 2^62 in magnitude
    pub fn add_times(&mut self, other: &Exact, factor: i64) {
        let factor = i128::from(factor);
        self.whole += other.whole * factor;
        for (&denominator, &numerator) in &other.small {
            self.add_fraction(numerator * factor, denominator);
        }
        for (denominator, numerator) in &other.large {
            self.keep(denominator, numerator * factor);
        }
    }

    fn is_whole(&self) -> bool {
        self.small.is_empty() && self.large.is_empty()
    }

    /// The amount, if it is whole.
    pub fn whole(&self) -> Option<i128> {
        self.is_whole().then_some(self.whole)
    }

    /// Whether the amount is 0, exactly.
    pub fn is_zero(&self) -> bool {
        self.compare(&Exact::default()).is_eq()
    }

    /// Bounds of the amount.
    pub fn near(&self) -> Near {
        let small: i128 = self.small.iter().map(|(&d, &n)| quotient(n, d)).sum();
        let large = self.large.iter().map(|(d, n)| (n << NEAR_BITS) / d);
        let sum = (BigInt::from(self.whole) << NEAR_BITS) + small + large.sum::<BigInt>();
        // Each quotient is truncated towards 0, by less than one unit.
        let off = self.small.len() + self.large.len();
        Near {
            low: &sum - off,
            high: sum + off,
        }
    }

    /// Compares two amounts, exactly.
    pub fn compare(&self, other: &Exact) -> std::cmp::Ordering {
        if self.is_whole() && other.is_whole() {
            return self.whole.cmp(&other.whole);
        }
        let (left, right) = (self.near(), other.near());
        if left.low > right.high {
            return std::cmp::Ordering::Greater;
        }
        if left.high < right.low {
            return std::cmp::Ordering::Less;
        }
        let (left_up, left_down) = self.to_fraction();
        let (right_up, right_down) = other.to_fraction();
        (left_up * right_down).cmp(&(right_up * left_down))
    }

    /// The amount as one fraction, not reduced, with a positive denominator.
    pub fn to_fraction(&self) -> (BigInt, BigInt) {
        let small = self
            .small
            .iter()
            .map(|(&d, &n)| (BigInt::from(n), BigInt::from(d)));
        let large = self.large.iter().map(|(d, n)| (n.clone(), d.clone()));
        let mut terms: Vec<(BigInt, BigInt)> = small.chain(large).collect();
        terms.push((BigInt::from(self.whole), BigInt::from(1)));
        // Neighbours are added pairwise, so that long numbers are multiplied late and rarely.
        while terms.len() > 1 {
            terms = terms.chunks(2).map(add_pair).collect();
        }
        terms.pop().unwrap_or_default()
    }
}

impl PartialEq for Exact {
    fn eq(&self, other: &Self) -> bool {
        self.compare(other).is_eq()
    }
}

impl Eq for Exact {}

fn add_pair(pair: &[(BigInt, BigInt)]) -> (BigInt, BigInt) {
    match pair {
        [(n1, d1), (n2, d2)] => (n1 * d2 + n2 * d1, d1 * d2),
        [one] => one.clone(),
        _ => (BigInt::ZERO, BigInt::from(1)),
    }
}

/// A fraction of small numbers in units of [`Near`].
fn quotient(numerator: i128, denominator: i128) -> i128 {
    // 0 < numerator < denominator < 2^64, so the shifted value fits in 128 unsigned bits.
    let shifted = numerator.unsigned_abs() << NEAR_BITS;
    (shifted / denominator.unsigned_abs()) as i128
}

fn gcd(mut a: i128, mut b: i128) -> i128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
