//! Rule 3, attribution by the same id, computed by hand.

use super::case::{Case, interval, iv, reg, session};

/// A vehicle at the meter that has its id.
fn at_home() -> Case {
    Case {
        same_id: true,
        ..Case::default()
    }
}

#[test]
fn a_night_is_not_a_gap_and_guests_get_their_share() {
    // Both devices report over [600, 660] of a day, the meter a minute ahead. The night is not a gap.
    let mut case = Case {
        same_id: true,
        ..Case::default()
    };
    for n in 0..=12 {
        case.vehicle.push(interval(600 + 5 * n, 0.9));
        case.meter.push(iv(601 + 5 * n, 1.0));
    }
    let answer = case.ask(0, 1_440);
    assert_eq!(
        (answer.ac(), answer.matched()),
        ("13".into(), "11.7".into())
    );
    assert_eq!(
        (answer.method(), answer.coverage()),
        ("same_id".into(), "1".into())
    );
    assert_eq!(
        (answer.ratio(), answer.status()),
        (Some("90".into()), "good".into())
    );
    // Until 720 only the vehicle reports. Its meter is silent from 661, for 59 of 120 minutes.
    case.vehicle
        .extend((13..=24).map(|n| interval(600 + 5 * n, 0.9)));
    let answer = case.ask(0, 1_440);
    assert_eq!((answer.coverage(), answer.gaps()), ("0.5083".into(), 1));
    assert_eq!(
        (answer.ac(), answer.matched()),
        ("13".into(), "11.7".into())
    );
    // Another vehicle's session there takes its share. A session of the vehicle itself rules out rule 3.
    case.others = vec![(vec![], vec![session(2, 600, 630)])];
    assert_eq!(case.ask(0, 1_440).ac(), "7");
    case.sessions = vec![session(1, 1_400, 1_410)];
    assert_eq!(
        (case.ask(0, 1_440).ac(), case.ask(0, 1_440).method()),
        ("0".into(), "session".into())
    );
}

#[test]
fn silence_of_both_devices_takes_no_energy_away() {
    // Both devices report at 0, 10, 50 and 60: 1, 4 and 1 kWh of AC, and 90% of each as DC.
    let mut case = at_home();
    case.meter = vec![
        reg(0, 100.0),
        reg(10, 101.0),
        reg(50, 105.0),
        reg(60, 106.0),
    ];
    for (minute, kwh) in [(0, 0.0), (10, 0.9), (50, 3.6), (60, 0.9)] {
        case.vehicle.push(interval(minute, kwh));
    }
    let answer = case.ask(0, 60);
    assert_eq!((answer.ac(), answer.matched()), ("6".into(), "5.4".into()));
    assert_eq!(answer.ratio(), Some("90".into()));
    assert_eq!(answer.status(), "good");
    // (10, 50] is removed. (0, 10] and (50, 60] remain and are covered.
    assert_eq!((answer.coverage(), answer.gaps()), ("1".into(), 0));
    // The window lies within the silence, so all of it is removed and nothing is left to be covered.
    let answer = case.ask(15, 45);
    assert_eq!(
        (answer.ac(), answer.method()),
        ("3".into(), "same_id".into())
    );
    assert_eq!((answer.coverage(), answer.gaps()), ("0".into(), 0));
}

#[test]
fn devices_that_report_at_the_same_hours_have_a_ratio() {
    let mut case = at_home();
    for hour in 0..=3 {
        case.meter.push(reg(60 * hour, 100.0 + 2.0 * hour as f64));
        case.vehicle.push(interval(60 * hour, 1.8));
    }
    let answer = case.ask(0, 180);
    assert_eq!((answer.ac(), answer.matched()), ("6".into(), "5.4".into()));
    assert_eq!(answer.ratio(), Some("90".into()));
    // Both are silent all the time. The instant between two silences has no length, so it is not a gap.
    assert_eq!((answer.coverage(), answer.gaps()), ("0".into(), 0));
    assert_eq!(answer.status(), "insufficient_data");
}

#[test]
fn a_lone_reading_is_not_a_gap() {
    // Both report every 5 minutes until 60. At 300 the vehicle alone reports, once.
    let mut case = at_home();
    for n in 0..=12 {
        case.meter.push(iv(5 * n, 1.0));
        case.vehicle.push(interval(5 * n, 0.9));
    }
    case.vehicle.push(interval(300, 0.9));
    let answer = case.ask(0, 1_440);
    assert_eq!((answer.coverage(), answer.gaps()), ("1".into(), 0));
    // Now the meter reports once too, a minute later. Only that minute is added to the covered time.
    case.meter.push(iv(301, 1.0));
    let answer = case.ask(0, 1_440);
    assert_eq!((answer.coverage(), answer.gaps()), ("1".into(), 0));
    assert_eq!(
        (answer.ac(), answer.matched()),
        ("13".into(), "11.7".into())
    );
}

#[test]
fn an_hourly_meter_under_a_car_matches_all_of_its_dc() {
    // 6 kWh of AC per hour, and 0.45 kWh of DC every 5 minutes.
    let mut case = at_home();
    case.meter = vec![iv(60, 6.0), iv(120, 6.0), iv(180, 6.0)];
    case.vehicle = (1..=36).map(|n| interval(5 * n, 0.45)).collect();
    let answer = case.ask(0, 120);
    assert_eq!(
        (answer.ac(), answer.ratio()),
        ("12".into(), Some("90".into()))
    );
    // The window ends within a meter's hour. The meter reading at 180 makes the energy since 120 known, so the DC up to
    // 150 is matched.
    let answer = case.ask(0, 150);
    assert_eq!((answer.ac(), answer.dc()), ("12".into(), "13.5".into()));
    assert_eq!(answer.matched(), "13.5");
    // A vehicle that arrives as the window ends interrupts that interval, so the DC since 120 is not matched.
    case.others = vec![(vec![], vec![session(2, 150, 180)])];
    assert_eq!(case.ask(0, 150).matched(), "10.8");
    // Nothing is attributed after now either.
    case.others.clear();
    case.now = super::case::ts(170);
    assert_eq!(case.ask(0, 150).matched(), "10.8");
}

#[test]
fn a_guest_that_arrives_as_the_window_ends_is_seen() {
    let mut case = at_home();
    case.meter = vec![
        iv(0, 0.0),
        iv(10, 1.0),
        iv(20, 1.0),
        iv(35, 1.0),
        iv(60, 1.0),
    ];
    case.vehicle = vec![
        interval(0, 0.0),
        interval(10, 0.9),
        interval(20, 0.9),
        interval(30, 0.9),
    ];
    assert_eq!(case.ask(0, 30).matched(), "2.7");
    case.others = vec![(vec![], vec![session(2, 30, 60)])];
    let answer = case.ask(0, 30);
    assert_eq!((answer.ac(), answer.matched()), ("2".into(), "1.8".into()));
    assert_eq!(answer.ratio(), Some("90".into()));
}
