//! What a kWh costs, by the time of day: converts lost energy into money.

use jiff::civil::Time;
use jiff::tz::TimeZone;

use super::answer::Slice;
use super::exact::Exact;
use super::interval::Interval;
use super::series::{Bucket, buckets};
use crate::reading::Timestamp;

/// Prices by the time of day in a time zone.
#[derive(Debug, Clone)]
pub struct Tariff {
    zone: TimeZone,
    /// From when on which price holds, ascending; before the first, the last.
    ///
    /// Units:  millionths of the currency per kWh, of either sign
    steps: Vec<(Time, i64)>,
    currency: Option<String>,
}

/// Why a tariff is refused; correct the flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TariffError {
    /// The prices cannot be read.
    #[error(
        "must be the price of a kWh, such as 0.30 or -0.05, or prices by time of day, such as \
         06:00=0.34,22:00=0.22; at most 6 digits before and after the point"
    )]
    Prices,
    /// The time zone is not known.
    #[error("must be an IANA time zone, such as Europe/Berlin")]
    Zone,
    /// The currency does not have the shape of a code.
    #[error("must be three capital letters of ISO 4217, such as EUR")]
    Currency,
}

/// Finds the time zone of a tariff.
///
/// # Errors
/// [`TariffError::Zone`]: its name is not known.
pub fn tariff_zone(name: &str) -> Result<TimeZone, TariffError> {
    TimeZone::get(name).map_err(|_| TariffError::Zone)
}

/// Checks a currency's code, such as `EUR`.
///
/// # Errors
/// [`TariffError::Currency`]: it has not the shape of a code of ISO 4217.
pub fn check_currency(code: &str) -> Result<(), TariffError> {
    if code.len() == 3 && code.bytes().all(|b| b.is_ascii_uppercase()) {
        Ok(())
    } else {
        Err(TariffError::Currency)
    }
}

impl Tariff {
    /// Reads prices, such as `0.30`, `-0.05` or `06:00=0.34,22:00=-0.02`, by the clock of a time
    /// zone.
    ///
    /// # Errors
    /// [`TariffError::Prices`]
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

    /// Names the currency of the prices, such as `EUR`.
    ///
    /// # Errors
    /// [`TariffError::Currency`]: it does not have the shape of a code of ISO 4217.
    pub fn in_currency(mut self, code: &str) -> Result<Self, TariffError> {
        check_currency(code)?;
        self.currency = Some(code.to_owned());
        Ok(self)
    }

    /// The currency of the prices, if it was given.
    pub fn currency(&self) -> Option<&str> {
        self.currency.as_deref()
    }

    /// Splits a window where the price changes. The price of a moment is that of the time on the clock, also
    /// when clocks skip an hour or show one twice.
    ///
    /// Shape:  parts that make up the window, each with its price
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

    /// Where a price may change within a part of a day.
    fn edges(&self, day: Interval) -> Vec<Timestamp> {
        // A moment inside the day has its date: its end is midnight, which belongs to the next.
        let Ok(inside) = jiff::Timestamp::from_microsecond(day.end().plus_micros(-1).as_micros())
        else {
            return Vec::new();
        };
        let date = self.zone.to_datetime(inside).date();
        let mut edges = Vec::new();
        for (time, _) in &self.steps {
            // Both if the clock shows the time twice; if it never does, the change of the clock is
            // the edge.
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

/// What energy has cost.
///
/// Units:  10^-12 of the currency: mWh times millionths a kWh
#[derive(Debug, Clone, Default)]
pub struct Costs {
    /// AC.
    pub consumed: Exact,
    /// AC that did not reach a battery: less matched DC.
    pub lost: Exact,
}

impl Costs {
    /// What the energy in parts of a window has cost, each at its price.
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

    /// Adds what other energy has cost.
    pub fn add(&mut self, other: &Costs) {
        self.consumed.add(&other.consumed);
        self.lost.add(&other.lost);
    }
}

/// The buckets of a series, each split where the price changes.
#[derive(Debug, Clone)]
pub struct Priced {
    buckets: Vec<Interval>,
    /// The parts of all buckets.
    intervals: Vec<Interval>,
    /// The parts' prices; `None` without a tariff.
    prices: Option<Vec<i64>>,
    /// How many parts there are up to the end of each bucket.
    ends: Vec<usize>,
}

impl Priced {
    /// Splits buckets, or leaves them as they are without a tariff.
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

    /// The parts whose energy is to be computed.
    pub fn intervals(&self) -> Vec<Interval> {
        self.intervals.clone()
    }

    /// What is known of each part, bucket by bucket, with the prices if there is a tariff.
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

/// Reads a price of at most 6 decimals, below 1,000,000 in size; on markets, prices fall below 0.
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
mod tests {
    use super::*;
    use crate::energy::format::Decimal;

    fn at(text: &str) -> Timestamp {
        Timestamp::from_micros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    fn berlin() -> TimeZone {
        tariff_zone("Europe/Berlin").unwrap()
    }

    fn prices(tariff: &Tariff, from: &str, to: &str) -> Vec<(String, i64)> {
        let window = Interval::new(at(from), at(to)).unwrap();
        let parts = tariff.split(window);
        assert!(
            parts
                .windows(2)
                .all(|pair| pair[0].0.end() == pair[1].0.start())
        );
        assert_eq!(parts[0].0.start(), window.start());
        assert_eq!(parts[parts.len() - 1].0.end(), window.end());
        parts
            .iter()
            .map(|(interval, price)| (interval.end().to_string(), *price))
            .collect()
    }

    #[test]
    fn a_price_holds_from_its_time_of_day_to_the_next_in_its_zone() {
        let tariff = Tariff::parse("06:00=0.34,22:00=0.22", berlin()).unwrap();
        let winter = prices(&tariff, "2024-02-09T00:00:00Z", "2024-02-09T23:30:00Z");
        let expected = [
            ("2024-02-09T05:00:00Z", 220_000),
            ("2024-02-09T21:00:00Z", 340_000),
            ("2024-02-09T23:00:00Z", 220_000),
            ("2024-02-09T23:30:00Z", 220_000),
        ];
        assert_eq!(winter, expected.map(|(at, price)| (at.to_owned(), price)));
        let flat = Tariff::parse("0.3", TimeZone::UTC).unwrap();
        let one = prices(&flat, "2024-02-09T01:00:00Z", "2024-02-09T02:00:00Z");
        assert_eq!(one, [("2024-02-09T02:00:00Z".to_owned(), 300_000)]);
    }

    #[test]
    fn prices_follow_the_local_clock_across_changes() {
        let tariff = Tariff::parse("02:30=0.1,06:00=0.2", berlin()).unwrap();
        let changes = |from: &str, to: &str| -> Vec<(String, i64)> {
            let mut all = prices(&tariff, from, to);
            // Edges at which nothing changes do no harm.
            all.reverse();
            all.dedup_by_key(|(_, price)| *price);
            all.reverse();
            all
        };
        let expect = |all: &[(&str, i64)]| -> Vec<(String, i64)> {
            all.iter().map(|(at, p)| ((*at).to_owned(), *p)).collect()
        };
        // 02:30 is skipped: the clock shows 03:00 after 01:59, at 01:00 UTC.
        let spring = changes("2024-03-30T23:00:00Z", "2024-03-31T22:00:00Z");
        let expected = [
            ("2024-03-31T01:00:00Z", 200_000),
            ("2024-03-31T04:00:00Z", 100_000),
            ("2024-03-31T22:00:00Z", 200_000),
        ];
        assert_eq!(spring, expect(&expected));
        // 02:30 comes twice, and half an hour of the day's price between.
        let autumn = changes("2024-10-26T22:00:00Z", "2024-10-27T23:00:00Z");
        let expected = [
            ("2024-10-27T00:30:00Z", 200_000),
            ("2024-10-27T01:00:00Z", 100_000),
            ("2024-10-27T01:30:00Z", 200_000),
            ("2024-10-27T05:00:00Z", 100_000),
            ("2024-10-27T23:00:00Z", 200_000),
        ];
        assert_eq!(autumn, expect(&expected));
    }

    #[test]
    fn what_is_lost_costs_what_it_cost_when_it_was_lost() {
        let slice = |from: &str, to: &str, ac: i128, dc: i128| Slice {
            consumed_ac: Exact::from_mwh(ac * 1_000_000),
            matched_dc: Exact::from_mwh(dc * 1_000_000),
            ..Slice::empty(Interval::new(at(from), at(to)).unwrap())
        };
        let night = slice("2024-02-09T00:00:00Z", "2024-02-09T06:00:00Z", 10, 8);
        let day = slice("2024-02-09T06:00:00Z", "2024-02-09T22:00:00Z", 10, 9);
        // 2 × 0.20 + 1 × 0.35 = 0.75.
        let costs = Costs::of(&[night, day], [200_000, 350_000]);
        assert_eq!(costs.lost, Exact::from_mwh(750_000_000_000));
        // 10 × 0.20 + 10 × 0.35 = 5.50.
        assert_eq!(costs.consumed, Exact::from_mwh(5_500_000_000_000));
    }

    #[test]
    fn a_negative_price_makes_a_negative_cost_to_the_last_digit() {
        let tariff = Tariff::parse("-0.05,06:00=0.300001,22:00=-0.000001", TimeZone::UTC).unwrap();
        let day = prices(&tariff, "2024-02-09T00:00:00Z", "2024-02-10T00:00:00Z");
        let prices: Vec<i64> = day.iter().map(|(_, price)| *price).collect();
        assert_eq!(prices, [-50_000, 300_001, -1]);
        let slice = |ac: i128, dc: i128| Slice {
            consumed_ac: Exact::from_mwh(ac),
            matched_dc: Exact::from_mwh(dc),
            ..Slice::empty(
                Interval::new(at("2024-02-09T00:00:00Z"), at("2024-02-09T06:00:00Z")).unwrap(),
            )
        };
        // 10 kWh at -0.05, of which 1 is lost; 1 kWh at 0.300001, of which 0.5 is lost; and 1 kWh
        // at -0.000001, all lost.
        let parts = [
            slice(10_000_000, 9_000_000),
            slice(1_000_000, 500_000),
            slice(1_000_000, 0),
        ];
        let costs = Costs::of(&parts, prices);
        assert_eq!(costs.consumed, Exact::from_mwh(-200_000_000_000));
        assert_eq!(
            costs.lost,
            Exact::from_mwh(-50_000_000_000 + 150_000_500_000 - 1_000_000)
        );
        let printed = |costs: &Exact| Decimal::cost(costs).to_string();
        assert_eq!(printed(&costs.consumed), "-0.2");
        assert_eq!(printed(&costs.lost), "0.1");
        // Half of the last digit is rounded away from 0 on both sides; less is 0 without a sign.
        for (cost, text) in [
            (-50_000_000, "-0.0001"),
            (50_000_000, "0.0001"),
            (-49_999_999, "0"),
        ] {
            assert_eq!(printed(&Exact::from_mwh(cost)), text);
        }
        // A third of a kWh: no whole number of mWh.
        let mut third = Exact::default();
        third.add_part(1_000_000, 1, 3);
        let mut cost = Exact::default();
        cost.add_times(&third, -300_000);
        assert_eq!(printed(&cost), "-0.1");
    }

    #[test]
    fn buckets_are_split_at_price_changes_and_joined_again() {
        let tariff = Tariff::parse("06:30=0.3,22:00=0.2", TimeZone::UTC).unwrap();
        let window = Interval::new(at("2024-02-09T05:00:00Z"), at("2024-02-09T08:00:00Z")).unwrap();
        let hours = buckets(window, Bucket::Hour, &TimeZone::UTC);
        let priced = Priced::new(Some(&tariff), &hours);
        let intervals = priced.intervals();
        let parts: Vec<_> = priced.by_bucket(&intervals).collect();
        assert_eq!(parts.len(), 3);
        assert_eq!(parts[0], (hours[0], &intervals[..1], Some(&[200_000][..])));
        // Half an hour at each price.
        assert_eq!(
            parts[1],
            (hours[1], &intervals[1..3], Some(&[200_000, 300_000][..]))
        );
        assert_eq!(intervals[1].end(), at("2024-02-09T06:30:00Z"));
        assert_eq!(parts[2], (hours[2], &intervals[3..], Some(&[300_000][..])));
        let free = Priced::new(None, &hours);
        assert_eq!(free.intervals(), hours);
        let parts = free.by_bucket(&hours);
        assert!(
            parts
                .zip(&hours)
                .all(|(part, &hour)| part == (hour, &[hour][..], None))
        );
    }

    #[test]
    fn prices_that_cannot_be_read_are_refused() {
        for wrong in [
            "",
            "a",
            "--1",
            "-",
            "1-",
            "0.1234567",
            "1000000",
            "6=0.3",
            "06:00=",
            "25:00=1",
            "06:00=1,06:00=2",
            "1e3",
        ] {
            assert_eq!(
                Tariff::parse(wrong, TimeZone::UTC).err(),
                Some(TariffError::Prices),
                "{wrong}"
            );
        }
        assert_eq!(tariff_zone("Mars/Olympus").err(), Some(TariffError::Zone));
        for wrong in ["", "eur", "EURO", "€", "E R"] {
            let named = Tariff::parse("1", TimeZone::UTC)
                .unwrap()
                .in_currency(wrong);
            assert_eq!(named.err(), Some(TariffError::Currency), "{wrong}");
        }
    }
}
