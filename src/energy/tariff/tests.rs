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
        // Extra edges, at which nothing changes, do no harm.
        all.reverse();
        all.dedup_by_key(|(_, price)| *price);
        all.reverse();
        all
    };
    let expect = |all: &[(&str, i64)]| -> Vec<(String, i64)> {
        all.iter().map(|(at, p)| ((*at).to_owned(), *p)).collect()
    };
    // 02:30 is skipped: after 01:59, at 01:00 UTC, the clock shows 03:00.
    let spring = changes("2024-03-30T23:00:00Z", "2024-03-31T22:00:00Z");
    let expected = [
        ("2024-03-31T01:00:00Z", 200_000),
        ("2024-03-31T04:00:00Z", 100_000),
        ("2024-03-31T22:00:00Z", 200_000),
    ];
    assert_eq!(spring, expect(&expected));
    // 02:30 occurs twice, with half an hour of the day's price in between.
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
fn losses_are_priced_at_the_time_of_the_loss() {
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
    // Half of the last digit is rounded away from 0 on both sides. Less than half prints 0 without a sign.
    for (cost, text) in [
        (-50_000_000, "-0.0001"),
        (50_000_000, "0.0001"),
        (-49_999_999, "0"),
    ] {
        assert_eq!(printed(&Exact::from_mwh(cost)), text);
    }
    // A third of a kWh is not a whole number of mWh.
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
