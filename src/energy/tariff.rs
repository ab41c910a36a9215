//! The price of a kWh by time of day: converts lost energy to money.

use jiff::civil::Time;
use jiff::tz::TimeZone;

use super::answer::Slice;
use super::exact::Exact;
use super::interval::Interval;
use super::series::{Bucket, buckets};
use crate::reading::Timestamp;

/// Prices by time of day in a time zone.
#[derive(Debug, Clone)]
pub struct Tariff {
    zone: TimeZone,
    /// The prices, each with the time from which it applies, ascending. Before the first time, the last price
    /// applies.
    ///
    /// Units:  millionths of the currency per kWh, of either sign
    steps: Vec<(Time, i64)>,
    currency: Option<String>,
}

/// Why a tariff is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TariffError {
    /// The prices cannot be parsed.
    #[error(
        "must be the price of a kWh, such as 0.30 or -0.05, or prices by time of day, such as \
         06:00=0.34,22:00=0.22; at most 6 digits before and after the point"
    )]
    Prices,
    /// The time zone is unknown.
    #[error("must be an IANA time zone, such as Europe/Berlin")]
    Zone,
    /// The currency is not in the form of a code.
    #[error("must be three capital letters of ISO 4217, such as EUR")]
    Currency,
}

/// Looks up the time zone of a tariff.
///
/// # Errors
/// [`TariffError::Zone`]: the name is unknown.
pub fn tariff_zone(name: &str) -> Result<TimeZone, TariffError> {
    TimeZone::get(name).map_err(|_| TariffError::Zone)
}

/// Checks a currency code, such as `EUR`.
///
/// # Errors
/// [`TariffError::Currency`]: it is not in the form of an ISO 4217 code.
pub fn check_currency(code: &str) -> Result<(), TariffError> {
    if code.len() == 3 && code.bytes().all(|b| b.is_ascii_uppercase()) {
        Ok(())
    } else {
        Err(TariffError::Currency)
    }
}

impl Tariff {
    /// Parses prices such as `0.30`, `-0.05` or `06:00=0.34,22:00=-0.02`, by the clock of a time zone.
    ///
    /// # Errors
    /// [`TariffError::Prices`]: they cannot be parsed.
    pub fn parse(prices: &str, zone: TimeZone) -> Result<Self, TariffError> {
        let step = |text: &str| match text.split_once('=') {
            None => Some((Time::midnight(), price(text)?)),
            Some((time, text)) => {
                let time = time.trim();
                let shape = time.len() == 5 && time.as_bytes().get(2) == Some(&b':');
                let time = format!("{time}:00").parse().ok().filter(|_| shape)?;
                Some((time, price(text)?))
            }
        };
        let steps: Option<Vec<(Time, i64)>> = prices.split(',').map(step).collect();
        let mut steps = steps.ok_or(TariffError::Prices)?;
        steps.sort_unstable();
        if steps.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(TariffError::Prices);
        }
        Ok(Tariff {
            zone,
            steps,
            currency: None,
        })
    }

    /// Sets the currency of the prices, such as `EUR`.
    ///
    /// # Errors
    /// [`TariffError::Currency`]: it is not in the form of an ISO 4217 code.
    pub fn in_currency(mut self, code: &str) -> Result<Self, TariffError> {
        check_currency(code)?;
        self.currency = Some(code.to_owned());
        Ok(self)
    }

    /// The currency of the prices, if it was given.
    pub fn currency(&self) -> Option<&str> {
        self.currency.as_deref()
    }

    /// Splits a window where the price changes. The time on the clock decides the price of a moment, even when
    /// clocks skip an hour or show one twice.
    ///
    /// Shape:  parts that cover the window, each with its price
    pub fn split(&self, window: Interval) -> Vec<(Interval, i64)> {
        let mut parts = Vec::new();
        for day in buckets(window, Bucket::Day, &self.zone) {
            let mut edges = self.edges(day);
            edges.extend([day.start(), day.end()]);
            edges.sort_unstable();
            for pair in edges.windows(2) {
                parts.extend(
                    Interval::new(pair[0], pair[1])
                        .map(|interval| (interval, self.price_in(interval))),
                );
            }
        }
        parts
    }

    /// The times at which the price may change within a day, or a part of one.
    fn edges(&self, day: Interval) -> Vec<Timestamp> {
        // The date comes from a moment before the end, because the end is midnight and has the next date.
        let Ok(inside) = jiff::Timestamp::from_microsecond(day.end().plus_micros(-1).as_micros())
        else {
            return Vec::new();
        };
        let date = self.zone.to_datetime(inside).date();
        let mut edges = Vec::new();
        for (time, _) in &self.steps {
            // If the clock shows the time twice, both are edges. If it skips the time, the clock change is the
            // edge.
            let shown = || self.zone.to_ambiguous_timestamp(date.to_datetime(*time));
            edges.extend([shown().earlier(), shown().later()].into_iter().flatten());
        }
        if let Ok(start) = jiff::Timestamp::from_microsecond(day.start().as_micros()) {
            let changes = self.zone.following(start).map(|change| change.timestamp());
            edges.extend(changes.take_while(|at| *at <= inside));
        }
        let edges = edges
            .into_iter()
            .map(|at| Timestamp::from_micros(at.as_microsecond()));
        edges
            .filter(|at| day.start() < *at && *at < day.end())
            .collect()
    }

    /// The price at the start of a part, which holds for all of it.
    fn price_in(&self, part: Interval) -> i64 {
        let at = jiff::Timestamp::from_microsecond(part.start().as_micros()).unwrap_or_default();
        let time = self.zone.to_datetime(at).time();
        let next = self.steps.partition_point(|(from, _)| *from <= time);
        let step = next.checked_sub(1).unwrap_or(self.steps.len() - 1);
        self.steps[step].1
    }
}

/// The cost of energy.
///
/// Units:  10^-12 of the currency: mWh × millionths per kWh
#[derive(Debug, Clone, Default)]
pub struct Costs {
    /// All AC.
    pub consumed: Exact,
    /// AC minus matched DC, which did not reach a battery.
    pub lost: Exact,
}

impl Costs {
    /// The cost of the energy in parts of a window, each at its own price.
    pub fn of<'s>(
        parts: impl IntoIterator<Item = &'s Slice>,
        prices: impl IntoIterator<Item = i64>,
    ) -> Self {
        let mut costs = Costs::default();
        for (part, price) in parts.into_iter().zip(prices) {
            let mut lost = part.consumed_ac.clone();
            lost.subtract(&part.matched_dc);
            costs.lost.add_times(&lost, price);
            costs.consumed.add_times(&part.consumed_ac, price);
        }
        costs
    }

    /// Adds other costs.
    pub fn add(&mut self, other: &Costs) {
        self.consumed.add(&other.consumed);
        self.lost.add(&other.lost);
    }
}

/// The buckets of a series, further split where the price changes.
#[derive(Debug, Clone)]
pub struct Priced {
    buckets: Vec<Interval>,
    /// The parts of all buckets.
    intervals: Vec<Interval>,
    /// The parts' prices; `None` without a tariff.
    prices: Option<Vec<i64>>,
    /// The number of parts up to the end of each bucket.
    ends: Vec<usize>,
}

impl Priced {
    /// Splits the buckets. Without a tariff they stay whole.
    pub fn new(tariff: Option<&Tariff>, buckets: &[Interval]) -> Self {
        let (mut intervals, mut prices, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for &bucket in buckets {
            match tariff {
                Some(tariff) => {
                    let (cut, at): (Vec<Interval>, Vec<i64>) =
                        tariff.split(bucket).into_iter().unzip();
                    intervals.extend(cut);
                    prices.extend(at);
                }
                None => intervals.push(bucket),
            }
            ends.push(intervals.len());
        }
        Priced {
            buckets: buckets.to_vec(),
            intervals,
            prices: tariff.is_some().then_some(prices),
            ends,
        }
    }

    /// The parts whose energy must be computed.
    pub fn intervals(&self) -> Vec<Interval> {
        self.intervals.clone()
    }

    /// The energy of the parts, bucket by bucket, with their prices if there is a tariff.
    pub fn by_bucket<'p, T>(
        &'p self,
        parts: &'p [T],
    ) -> impl Iterator<Item = (Interval, &'p [T], Option<&'p [i64]>)> {
        let starts = [0].into_iter().chain(self.ends.iter().copied());
        let ranges = starts.zip(self.ends.iter().copied());
        self.buckets
            .iter()
            .zip(ranges)
            .map(|(&bucket, (from, to))| {
                let prices = self.prices.as_deref();
                let prices = prices.map(|prices| prices.get(from..to).unwrap_or_default());
                (bucket, parts.get(from..to).unwrap_or_default(), prices)
            })
    }
}

/// Parses a price of at most 6 decimals, below 1,000,000 in magnitude. It may be negative, as prices on electricity
/// markets are at times.
fn price(text: &str) -> Option<i64> {
    let text = text.trim();
    let (sign, text) = match text.strip_prefix('-') {
        Some(text) => (-1, text),
        None => (1, text),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty()
        || whole.len() > 6
        || fraction.len() > 6
        || !digits(whole)
        || !digits(fraction)
    {
        return None;
    }
    let size: i64 = format!("{whole}{fraction:0<6}").parse().ok()?;
    Some(sign * size)
}

#[cfg(test)]
mod tests;
