//! Rounding on entry and on output, exact sums, windows.

use num_bigint::BigInt;
use proptest::prelude::*;

use super::case::{Case, interval, iv, session};
use super::reference::Frac;
use crate::energy::exact::{Exact, mwh_of_kwh, temperature_units};
use crate::energy::format::Decimal;
use crate::energy::window::{DAY_MICROS, WINDOW_MICROS_MAX, WindowError, window};
use crate::reading::Timestamp;

#[test]
fn kwh_are_rounded_half_away_from_zero() {
    for (kwh, mwh) in [
        (0.0, 0),
        (43.0, 43_000_000),
        (0.1, 100_000),
        (1e9, 1_000_000_000_000_000),
        (0.000_000_5, 1),
        (0.000_000_499_999, 0),
        // The doubles nearest to these are just below and just above the half.
        (1.000_000_5, 1_000_001),
        (2.675_000_5, 2_675_001),
        (123_456.789_012_5, 123_456_789_013),
        (999_999_999.999_999_9, 1_000_000_000_000_000),
        (1e-300, 0),
    ] {
        assert_eq!(mwh_of_kwh(kwh), mwh, "{kwh:e}");
    }
}

#[test]
fn the_mean_temperature_is_rounded_once_from_the_decimals() {
    // -0.005 is halfway and rounds away from zero; (30.1 + 30.11) / 2 = 30.105.
    let mean = |values: &[f64]| {
        let sum = values.iter().copied().map(temperature_units).sum();
        Decimal::mean_temperature(sum, values.len() as u64).map(|d| d.to_string())
    };
    assert_eq!(mean(&[-0.005]).as_deref(), Some("-0.01"));
    assert_eq!(mean(&[30.1, 30.11]).as_deref(), Some("30.11"));
    assert_eq!(mean(&[30.104_999_999_999_9]).as_deref(), Some("30.1"));
    assert_eq!(mean(&[0.1, 0.2, -0.3]).as_deref(), Some("0"));
    assert_eq!(mean(&[]), None);
}

#[test]
fn a_ratio_is_rounded_once_from_the_exact_value() {
    let mwh = |n| Exact::from_mwh(n);
    let ratio = |part, all| Decimal::ratio(&mwh(part), &mwh(all)).map(|d| d.to_string());
    assert_eq!(ratio(2, 3).as_deref(), Some("66.67"));
    assert_eq!(
        ratio(17_901, 20_000).as_deref(),
        Some("89.51"),
        "89.505 is halfway"
    );
    assert_eq!(ratio(1, 0), None);
    // A sum beyond the precision of a double keeps all its digits.
    let kwh = Decimal::kwh(&mwh(123_456_789_012_345_678_901));
    assert_eq!(kwh.to_string(), "123456789012345.678901");
}

#[test]
fn the_answer_is_the_interfaces_json() {
    let mut case = Case {
        sessions: vec![session(1, 0, 10)],
        ..Case::default()
    };
    case.vehicle = vec![interval(10, 1.05)];
    case.meter = vec![iv(10, 1.2)];
    assert_eq!(
        case.json_text(0, 0, 1_440),
        concat!(
            r#"{"vehicleId":"VEH-001","totalEnergyConsumedAc":1.2,"totalEnergyDeliveredDc":1.05,"#,
            r#""efficiencyRatio":87.5,"averageBatteryTemp":30,"#,
            r#""timeWindowStart":"1970-01-01T00:00:00Z","timeWindowEnd":"1970-01-02T00:00:00Z","#,
            r#""dataPoints":1,"meterDataPoints":1,"matchedEnergyDeliveredDc":1.05,"#,
            r#""efficiencyStatus":"good","#,
            r#""attribution":{"method":"session","meters":["M0"],"sessions":1},"#,
            r#""quality":{"coverage":1,"resets":0,"gaps":0,"suspect":0}}"#
        )
    );
}

#[test]
fn the_status_goes_by_the_printed_ratio_and_the_exact_energy() {
    let status = |ac: f64, dc: f64| {
        let mut case = Case {
            sessions: vec![session(1, 0, 10)],
            ..Case::default()
        };
        (case.vehicle, case.meter) = (vec![interval(10, dc)], vec![iv(10, ac)]);
        case.ask(0, 60).status()
    };
    // 90.004% prints 90, which is not above 90; 90.005% prints 90.01.
    for (dc, expected) in [
        (100.005, "inconsistent"),
        (100.004, "excellent"),
        (90.005, "excellent"),
        (90.004, "good"),
        (84.995, "good"),
        (84.994, "warning"),
        (79.995, "warning"),
        (79.994, "critical"),
    ] {
        assert_eq!(status(100.0, dc), expected, "{dc}%");
    }
    assert_eq!(status(0.999_999, 0.9), "insufficient_data");
    assert_eq!(status(1.0, 0.9), "good");
}

#[test]
fn a_window_has_its_defaults_and_its_bounds() {
    let now = Timestamp::Y2000;
    let at = |days: i64| now.plus_micros(days * DAY_MICROS);
    let ends = |from, to| window(from, to, now).map(|interval| (interval.start(), interval.end()));
    assert_eq!(ends(None, None), Ok((at(-1), now)));
    assert_eq!(ends(Some(at(-3)), None), Ok((at(-3), now)));
    assert_eq!(ends(None, Some(at(-3))), Ok((at(-4), at(-3))));
    assert_eq!(ends(Some(at(-400)), None), Ok((at(-400), now)));
    let longest = now.plus_micros(-WINDOW_MICROS_MAX);
    assert_eq!(ends(Some(longest), None), Ok((longest, now)));
    let long = Some(longest.plus_micros(-1));
    assert_eq!(ends(long, None), Err(WindowError::TooLong));
    assert_eq!(ends(Some(now), None), Err(WindowError::Empty));
}

/// The shares of a shared meter with register readings. The DC that divides them is itself a sum of fractions.
fn shares(meter_amounts: i128, vehicles: i128) -> Exact {
    let mut sum = Exact::default();
    for amount in 0..meter_amounts {
        let (mut one, mut all) = (Exact::default(), Exact::default());
        for vehicle in 0..vehicles {
            let span = 60_000_000 + 7_919 * amount + 104_729 * vehicle;
            all.add_part(2_700_000, 31_000_000 + vehicle, span);
            if vehicle == 0 {
                one = all.clone();
            }
        }
        sum.add_share(3_000_000, (1, 1), &one, &all);
    }
    sum
}

#[test]
fn a_sum_that_is_divided_by_long_fractions_is_printed_at_once() {
    let sum = shares(4_000, 120);
    let began = std::time::Instant::now();
    let kwh = Decimal::kwh(&sum).to_string();
    let ratio = Decimal::ratio(&sum, &Exact::from_mwh(12_000_000_000)).map(|d| d.to_string());
    assert!(!sum.is_zero());
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
    assert_eq!(
        (kwh.as_str(), ratio.as_deref()),
        ("108.118865", Some("0.9"))
    );
}

#[test]
fn shares_of_an_amount_add_up_exactly() {
    let weight = |vehicle: i128| {
        let mut weight = Exact::default();
        // One vehicle takes nothing, because it is full.
        let part = if vehicle == 0 {
            0
        } else {
            31_000_000 + vehicle
        };
        weight.add_part(2_700_000, part, 60_000_000 + 104_729 * vehicle);
        weight
    };
    let weights: Vec<Exact> = (0..60).map(weight).collect();
    let mut all = Exact::default();
    weights.iter().for_each(|weight| all.add(weight));
    let (mut sum, mut of_none) = (Exact::default(), Exact::default());
    for weight in &weights {
        sum.add_share(3_000_001, (1, 1), weight, &all);
    }
    of_none.add_share(3_000_001, (1, 1), &weights[0], &all);
    assert_eq!(sum.whole(), Some(3_000_001));
    assert_eq!(of_none.whole(), Some(0));
    sum.subtract(&Exact::from_mwh(3_000_001));
    assert!(sum.is_zero());
}

#[test]
fn values_near_a_rounding_edge_print_from_the_exact_value() {
    // Half a mWh is rounded away from 0; 10^-24 mWh less is not.
    let mut half = Exact::default();
    half.add_part(1, 1, 2);
    half.add_part(1, 1, 3);
    half.add_part(-1, 1, 3);
    assert_eq!(Decimal::kwh(&half).to_string(), "0.000001");
    half.add_part(-1, 1, 10_i128.pow(24));
    assert_eq!(Decimal::kwh(&half).to_string(), "0");
}

/// Terms with denominators from 1 to more than 64 bits.
fn terms() -> impl Strategy<Value = Vec<(i64, i64, i64)>> {
    let small = (0..1_000i64, 0..50i64, 1..50i64);
    let large = (0..i64::MAX, 0..i64::MAX, 1..i64::MAX);
    prop::collection::vec(prop_oneof![small, large], 0..12)
}

proptest! {
    #[test]
    fn sums_of_fractions_are_exact_in_any_order(terms in terms()) {
        let (mut forward, mut backward) = (Exact::default(), Exact::default());
        let mut expected = Frac::int(0);
        for &(mwh, part, all) in &terms {
            let (mwh, part, all) = (i128::from(mwh), i128::from(part), i128::from(all));
            forward.add_part(mwh, part, all);
            let square = all * all;
            forward.add_share(mwh, (part, all), &Exact::from_mwh(part), &Exact::from_mwh(square));
            let term = Frac::new(BigInt::from(mwh) * part, BigInt::from(all));
            let share = BigInt::from(mwh) * part * part;
            expected = expected.plus(&term).plus(&Frac::new(share, BigInt::from(all) * square));
        }
        for &(mwh, part, all) in terms.iter().rev() {
            let (mwh, part, all) = (i128::from(mwh), i128::from(part), i128::from(all));
            let weights = (Exact::from_mwh(part), Exact::from_mwh(all * all));
            backward.add_share(mwh, (part, all), &weights.0, &weights.1);
            backward.add_part(mwh, part, all);
        }
        let (up, down) = forward.to_fraction();
        prop_assert_eq!(Frac::new(up.clone(), down.clone()), expected);
        prop_assert_eq!(&forward, &backward);
        let printed = Decimal::of_fraction(&up, &(&down * 1_000_000), 6);
        prop_assert_eq!(Decimal::kwh(&forward), printed);
        if up != BigInt::ZERO {
            let all = Exact::from_mwh(i128::from(i64::MAX));
            let ratio = Decimal::of_fraction(&(&up * 100), &(&down * i64::MAX), 2);
            prop_assert_eq!(Decimal::ratio(&forward, &all), Some(ratio));
            let inverse = Decimal::of_fraction(&(&down * i64::MAX * 100), &up, 2);
            prop_assert_eq!(Decimal::ratio(&all, &forward), Some(inverse));
        }
        forward.subtract(&backward);
        prop_assert!(forward.is_zero());
    }

    #[test]
    fn quick_conversion_of_kwh_equals_that_of_the_text(units in 0..1_000_000_000_000_000i64) {
        // Seven decimals and 15 digits: doubles tell them all apart.
        let text = format!("{}.{:07}", units / 10_000_000, units % 10_000_000);
        let kwh: f64 = text.parse().unwrap();
        prop_assert_eq!(mwh_of_kwh(kwh), units / 10 + i64::from(units % 10 >= 5));
    }
}
