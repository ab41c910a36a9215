//! Cases from real fleets, each computed by hand.

use super::case::{Case, interval, iv, reg, reg_v, session, ts};
use crate::energy::attribution::{MeterKey, NamedPlace, SessionKey};

/// A vehicle that reports `kwh` every 5 minutes over (0, 60].
fn every_5_minutes(kwh: f64) -> Case {
    let mut case = Case::default();
    for minute in (5..=60).step_by(5) {
        case.vehicle.push(interval(minute, kwh));
    }
    case
}

#[test]
fn a_register_reset_in_a_session_loses_only_what_it_forgot() {
    // (-10, 10]: 2 kWh over 20 minutes, half of them in the session: 1. (10, 20]: 102 to 0 is a reset, whose
    // energy is the current value, 0. (20, 30]: 1. (30, 60]: 3. The total is 5.
    let mut case = every_5_minutes(0.4);
    case.sessions = vec![session(1, 0, 60)];
    case.meter = vec![
        reg(-10, 100.0),
        reg(10, 102.0),
        reg(20, 0.0),
        reg(30, 1.0),
        reg(60, 4.0),
    ];
    let answer = case.ask(-60, 120);
    assert_eq!(answer.ac(), "5");
    assert_eq!((answer.resets(), answer.suspect()), (1, 0));
    // 12 × 0.4 = 4.8 kWh of DC, all between register neighbours: 96% of 5.
    assert_eq!(
        (answer.matched(), answer.ratio()),
        ("4.8".into(), Some("96".into()))
    );
}

#[test]
fn a_zero_placeholder_in_the_middle_is_passed_over() {
    // 100, (0), 104, 106: 4 over (0, 20] and 2 over (20, 30]. The zero is suspect, but not a reset.
    let mut case = every_5_minutes(0.4);
    case.sessions = vec![session(1, 0, 30)];
    case.meter = vec![reg(0, 100.0), reg(10, 0.0), reg(20, 104.0), reg(30, 106.0)];
    let answer = case.ask(-60, 120);
    assert_eq!(
        (answer.ac(), answer.resets(), answer.suspect()),
        ("6".into(), 0, 1)
    );
    // The 4 kWh are spread over the whole 20 minutes, so half of them lie before the zero.
    assert_eq!(case.ask(-60, 10).ac(), "2");
    // 0.01 below 100 the register continues with energy 0. At 0.010001 below it is a reset, and its energy is
    // 99.989999.
    case.meter[2] = reg(20, 99.99);
    let short = case.ask(-60, 20);
    assert_eq!(
        (short.ac(), short.resets(), short.suspect()),
        ("0".into(), 0, 1)
    );
    case.meter[2] = reg(20, 99.989_999);
    let reset = case.ask(-60, 20);
    assert_eq!(
        (reset.ac(), reset.resets(), reset.suspect()),
        ("99.989999".into(), 1, 0)
    );
}

#[test]
fn a_correction_by_0_02_counts_0_and_is_suspect() {
    // 2 + 0 + 2.02 (the last one counted from its neighbour as it is, 101.98).
    let mut case = every_5_minutes(0.4);
    case.sessions = vec![session(1, 0, 30)];
    case.meter = vec![
        reg(0, 100.0),
        reg(10, 102.0),
        reg(20, 101.98),
        reg(30, 104.0),
    ];
    let answer = case.ask(-60, 120);
    assert_eq!(
        (answer.ac(), answer.resets(), answer.suspect()),
        ("4.02".into(), 0, 1)
    );
    // A fall of 0.01 is not even suspect.
    case.meter[2] = reg(20, 101.99);
    let answer = case.ask(-60, 120);
    assert_eq!(
        (answer.ac(), answer.resets(), answer.suspect()),
        ("4.01".into(), 0, 0)
    );
    // A fall of exactly a tenth is a correction; slightly more is a reset.
    case.meter[2] = reg(20, 91.8);
    assert_eq!(
        (case.ask(-60, 20).ac(), case.ask(-60, 20).resets()),
        ("2".into(), 0)
    );
    case.meter[2] = reg(20, 91.799_999);
    assert_eq!(
        (case.ask(-60, 20).ac(), case.ask(-60, 20).resets()),
        ("93.799999".into(), 1)
    );
}

#[test]
fn a_lifetime_registers_first_reading_in_a_session_is_no_energy() {
    // The first reading ever, 54,321.5 at 10, adds no energy. Then 2 and 2.
    let mut case = every_5_minutes(0.4);
    case.sessions = vec![session(1, 0, 30)];
    case.meter = vec![reg(10, 54_321.5), reg(20, 54_323.5), reg(30, 54_325.5)];
    let answer = case.ask(-60, 120);
    assert_eq!(
        (answer.ac(), answer.resets(), answer.suspect()),
        ("4".into(), 0, 0)
    );
    // DC at 5 and 10 is before the register's first reading, so only 4 of 12 are matched.
    assert_eq!(
        (answer.dc(), answer.matched()),
        ("4.8".into(), "1.6".into())
    );
    // A register after an interval reading adds no energy either.
    case.meter[0] = iv(10, 1.0);
    assert_eq!(case.ask(-60, 120).ac(), "3");
}

#[test]
fn a_lifetime_total_sent_as_an_interval_counts_and_is_suspect() {
    // 54,321.5 kWh in 10 minutes is 326 MW. A device's first reading is never suspect.
    let mut case = every_5_minutes(0.4);
    case.sessions = vec![session(1, 0, 30)];
    case.meter = vec![iv(10, 1.0), iv(20, 54_321.5), iv(30, 1.0)];
    let answer = case.ask(-60, 120);
    assert_eq!((answer.ac(), answer.suspect()), ("54323.5".into(), 1));
    case.meter.remove(0);
    assert_eq!(case.ask(-60, 120).suspect(), 0);
}

#[test]
fn power_of_exactly_1_mw_is_not_suspect() {
    // 1,000 kW for 6 minutes is 100 kWh.
    let mut case = Case {
        sessions: vec![session(1, 0, 30)],
        ..Case::default()
    };
    case.meter = vec![iv(0, 0.0), iv(6, 100.0)];
    assert_eq!(case.ask(-60, 120).suspect(), 0);
    case.meter[1] = iv(6, 100.000_001);
    assert_eq!(case.ask(-60, 120).suspect(), 1);
}

#[test]
fn a_session_that_ends_after_midnight_is_cut_by_the_days() {
    // 23:00 to 01:00 at 6 kW: 12 kWh on the register, half on each day. In 5 minutes that is 0.5 kWh of AC and
    // 0.45 of DC.
    let (midnight, day) = (1_440, 1_440);
    let mut case = Case {
        sessions: vec![session(1, midnight - 60, midnight + 60)],
        ..Case::default()
    };
    for n in 0..=24 {
        case.meter.push(reg(
            midnight - 60 + 5 * n,
            500.0 + 0.5 * f64::from(n as i32),
        ));
        case.vehicle.push(interval(
            midnight - 60 + 5 * n,
            if n == 0 { 0.0 } else { 0.45 },
        ));
    }
    let (first, second) = (case.ask(0, midnight), case.ask(midnight, midnight + day));
    for answer in [&first, &second] {
        assert_eq!((answer.ac(), answer.matched()), ("6".into(), "5.4".into()));
        assert_eq!(answer.ratio(), Some("90".into()));
        assert_eq!(answer.coverage(), "1");
    }
    assert_eq!(case.ask(0, 2 * day).ac(), "12");
}

#[test]
fn two_sessions_at_one_station_on_a_day_each_get_their_own() {
    // The register runs at 1 kWh per hour. v is there over (60, 120], another vehicle over (180, 240].
    let mut case = Case {
        sessions: vec![session(1, 60, 120)],
        ..Case::default()
    };
    case.meter = (0..=5).map(|h| reg(60 * h, h as f64)).collect();
    case.vehicle = vec![interval(90, 0.4), interval(120, 0.4)];
    case.others = vec![(vec![interval(240, 0.9)], vec![session(2, 180, 240)])];
    let answer = case.ask(0, 300);
    assert_eq!((answer.ac(), answer.matched()), ("1".into(), "0.8".into()));
    assert_eq!(case.ask_other(0, 0, 300).ac(), "1");
    // The other three hours are unattributed: 5 - 1 - 1.
    assert_eq!(case.meter_energy(0, 300), "5");
}

#[test]
fn overlapping_sessions_divide_a_shared_meter_by_dc() {
    // v is there over (0, 60], w over (30, 90]. The 6 at 30 belong to v alone, because w starts after 30. At 60
    // both are there with DC 4 and 2: v gets 6 of 9, w gets 3. The 3 at 90 belong to w alone.
    let mut case = Case {
        sessions: vec![session(1, 0, 60)],
        ..Case::default()
    };
    case.vehicle = vec![interval(30, 5.0), interval(60, 4.0)];
    case.others = vec![(
        vec![interval(60, 2.0), interval(90, 2.5)],
        vec![session(2, 30, 90)],
    )];
    case.meter = vec![iv(0, 0.0), iv(30, 6.0), iv(60, 9.0), iv(90, 3.0)];
    assert_eq!(
        (case.ask(0, 90).ac(), case.ask_other(0, 0, 90).ac()),
        ("12".into(), "6".into())
    );
    // The window does not clip the ratio: the meter's interval (30, 60] counts as a whole in (59, 90].
    case.vehicle.insert(1, interval(45, 0.0));
    assert_eq!(case.ask(59, 90).ac(), "6");
    // A register of 18 kWh over (0, 90]: 6 in each third. (0, 30] belongs to v. (30, 60] is divided by the DC over
    // all of (0, 90], 9 to 4.5: 4 and 2. (60, 90] belongs to w.
    case.meter = vec![reg(0, 100.0), reg(90, 118.0)];
    assert_eq!(
        (case.ask(0, 90).ac(), case.ask_other(0, 0, 90).ac()),
        ("10".into(), "8".into())
    );
}

#[test]
fn without_dc_a_shared_meter_credits_only_a_lone_vehicle() {
    let mut case = Case {
        sessions: vec![session(1, 0, 60)],
        ..Case::default()
    };
    case.others = vec![(vec![], vec![session(2, 30, 90)])];
    case.meter = vec![iv(30, 6.0), iv(60, 9.0)];
    assert_eq!(case.ask(0, 90).ac(), "6");
    assert_eq!(case.ask_other(0, 0, 90).ac(), "0");
}

#[test]
fn thirds_are_exact_and_rounded_once() {
    // 1 kWh is divided by DC of 1 to 2, three times. Each third prints as 0.333333, and the three together as 1.
    let mut case = Case {
        sessions: vec![session(1, 0, 60)],
        ..Case::default()
    };
    case.vehicle = vec![interval(10, 1.0), interval(20, 1.0), interval(30, 1.0)];
    let other = vec![interval(10, 2.0), interval(20, 2.0), interval(30, 2.0)];
    case.others = vec![(other, vec![session(2, 0, 60)])];
    case.meter = vec![iv(0, 0.0), iv(10, 1.0), iv(20, 1.0), iv(30, 1.0)];
    assert_eq!(case.ask(0, 10).ac(), "0.333333");
    assert_eq!(case.ask_other(0, 0, 10).ac(), "0.666667");
    assert_eq!(case.ask(0, 30).ac(), "1");
}

#[test]
fn a_session_that_starts_inside_a_meters_interval_gets_it_whole() {
    // (0, 10] ends within the session (5, 15] and belongs to it; (10, 20] ends after it and does not. A register
    // of 1 kWh per 10 minutes is split instead: 0.5 and 0.5.
    let mut case = Case {
        sessions: vec![session(1, 5, 15)],
        ..Case::default()
    };
    case.meter = vec![iv(0, 1.0), iv(10, 1.0), iv(20, 1.0)];
    assert_eq!(case.ask(0, 60).ac(), "1");
    case.meter = vec![reg(0, 1.0), reg(10, 2.0), reg(20, 3.0)];
    assert_eq!(case.ask(0, 60).ac(), "1");
    case.sessions = vec![session(1, 5, 10)];
    assert_eq!(case.ask(0, 60).ac(), "0.5");
}

#[test]
fn a_meter_that_dies_halfway_lowers_coverage_not_the_ratio() {
    // 1 kWh of AC every 5 minutes until 30: 6. DC 0.9 until 60: 10.8, of which 5.4 are known: 90%. The meter is
    // silent over (30, 60]: coverage 0.5, one gap, and no rating.
    let mut case = every_5_minutes(0.9);
    case.sessions = vec![session(1, 0, 60)];
    case.meter = (1..=6).map(|n| iv(5 * n, 1.0)).collect();
    let answer = case.ask(-60, 120);
    assert_eq!(
        (answer.ac(), answer.dc(), answer.matched()),
        ("6".into(), "10.8".into(), "5.4".into())
    );
    assert_eq!(
        (answer.ratio(), answer.coverage(), answer.gaps()),
        (Some("90".into()), "0.5".into(), 1)
    );
    assert_eq!(answer.status(), "insufficient_data");
    // If the meter goes on and reports 0, the energy is known: 10.8 of 6 is 180%.
    case.meter.extend((7..=12).map(|n| iv(5 * n, 0.0)));
    let answer = case.ask(-60, 120);
    assert_eq!(
        (answer.ratio(), answer.status()),
        (Some("180".into()), "inconsistent".into())
    );
}

#[test]
fn a_meter_a_minute_ahead_does_not_change_the_ratio() {
    // The meter reports at 6, 11 … 56 and 61, the vehicle at 5, 10 … 60, and the session is (0, 60]. That makes 11
    // kWh of AC and 0.9 × 11 of DC, because the meter's reading after 60 is outside the session.
    let mut case = every_5_minutes(0.9);
    case.sessions = vec![session(1, 0, 60)];
    case.meter = (1..=12).map(|n| iv(5 * n + 1, 1.0)).collect();
    let answer = case.ask(-60, 120);
    assert_eq!(
        (answer.ac(), answer.dc(), answer.matched()),
        ("11".into(), "10.8".into(), "9.9".into())
    );
    assert_eq!(
        (answer.ratio(), answer.status()),
        (Some("90".into()), "good".into())
    );
    assert_eq!(answer.coverage(), "1");
    // If the session continues beyond W, the meter's reading at 61 makes the DC at 60 known.
    case.sessions = vec![session(1, 0, 90)];
    assert_eq!(case.ask(-60, 60).matched(), "10.8");
}

#[test]
fn a_reading_late_by_a_day_repairs_the_answer() {
    // The register is 100 at 0 and 106 at 60, spread evenly: half of it by 30. The late reading at 30 says 105.
    let mut case = every_5_minutes(0.4);
    case.sessions = vec![session(1, 0, 60)];
    case.meter = vec![reg(0, 100.0), reg(60, 106.0)];
    assert_eq!(case.ask(0, 30).ac(), "3");
    case.meter.insert(1, reg(30, 105.0));
    assert_eq!(
        (case.ask(0, 30).ac(), case.ask(0, 60).ac()),
        ("5".into(), "6".into())
    );
    // With no reading after 60, a longer window gives the same.
    assert_eq!(case.ask(0, 90).ac(), "6");
}

#[test]
fn daylight_saving_offsets_are_instants_like_others() {
    // On 2024-03-31 in Berlin 01:30+01:00 and 03:30+02:00 are one hour apart.
    let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_microsecond();
    let (start, end) = (
        at("2024-03-31T01:30:00+01:00"),
        at("2024-03-31T03:30:00+02:00"),
    );
    assert_eq!(end - start, 3_600_000_000);
    let minute = |micros: i64| micros / 60_000_000;
    let mut case = Case {
        sessions: vec![session(1, minute(start), minute(end))],
        ..Case::default()
    };
    // The meter has 12 kWh over the two hours around the session. The session's hour has 6 of them.
    case.meter = vec![reg(minute(start) - 30, 10.0), reg(minute(end) + 30, 22.0)];
    let answer = case.ask(minute(start) - 60, minute(end) + 60);
    assert_eq!(answer.ac(), "6");
    assert_eq!(answer.json["timeWindowStart"], "2024-03-30T23:30:00Z");
}

#[test]
fn a_vehicle_that_charged_away_from_home_has_dc_and_no_ratio() {
    let case = every_5_minutes(0.5);
    let answer = case.ask(-60, 120);
    assert_eq!(
        (answer.ac(), answer.dc(), answer.matched()),
        ("0".into(), "6".into(), "0".into())
    );
    assert_eq!((answer.ratio(), answer.coverage()), (None, "0".into()));
    assert_eq!(
        (answer.method(), answer.status()),
        ("none".into(), "insufficient_data".into())
    );
}

#[test]
fn a_named_reading_claims_15_minutes_at_most() {
    // The reading at 0 names nothing. 10 claims (0, 10], 40 claims (25, 40], and 50 claims (40, 50].
    let place = Some(NamedPlace::Meter(MeterKey(0)));
    let mut case = Case::default();
    for (minute, place) in [(0, None), (10, place), (40, place), (50, place)] {
        case.vehicle.push(interval(minute, 1.0));
        case.vehicle.last_mut().unwrap().place = place;
    }
    // Meter intervals at 5, 20, 25, 26 and 50. Those at 5, 26 and 50 are credited to v.
    case.meter = vec![
        iv(5, 1.0),
        iv(20, 2.0),
        iv(25, 4.0),
        iv(26, 8.0),
        iv(50, 16.0),
    ];
    let answer = case.ask(-60, 120);
    assert_eq!(
        (answer.ac(), answer.method()),
        ("25".into(), "reading".into())
    );
    // A session claims the rest and is counted. Together they are one period, (0, 60].
    case.sessions = vec![session(7, 0, 60)];
    let answer = case.ask(-60, 120);
    assert_eq!(
        (answer.ac(), answer.method()),
        ("31".into(), "mixed".into())
    );
    assert_eq!(answer.json["attribution"]["sessions"], 1);
    // A session that is not known yet claims nothing. Once known, it claims the same as if the meter were named.
    case.sessions.clear();
    for reading in &mut case.vehicle {
        reading.place = reading.place.and(Some(NamedPlace::Unknown));
    }
    assert_eq!(case.ask(-60, 120).method(), "none");
    for reading in &mut case.vehicle {
        let known = NamedPlace::Session(SessionKey(7), MeterKey(0));
        reading.place = reading.place.and(Some(known));
    }
    let answer = case.ask(-60, 120);
    assert_eq!(
        (answer.ac(), &answer.json["attribution"]["sessions"]),
        ("25".into(), &1.into())
    );
}

#[test]
fn an_open_session_ends_now_and_claims_nothing_later() {
    let mut case = every_5_minutes(0.9);
    case.sessions = vec![session(1, 0, 60)];
    case.sessions[0].ended = None;
    case.meter = (1..=12).map(|n| iv(5 * n, 1.0)).collect();
    case.now = ts(30);
    let answer = case.ask(0, 60);
    assert_eq!(
        (answer.ac(), answer.dc(), answer.matched()),
        ("6".into(), "10.8".into(), "5.4".into())
    );
}

#[test]
fn a_vehicle_register_is_cut_by_the_window() {
    // DC 6 over (0, 60], and AC intervals at 10, 20 and 30 in the session (0, 60]. Only (0, 30] is known, half of
    // the DC.
    let mut case = Case {
        sessions: vec![session(1, 0, 60)],
        ..Case::default()
    };
    case.vehicle = vec![reg_v(0, 40.0), reg_v(60, 46.0)];
    case.meter = vec![iv(10, 1.0), iv(20, 1.0), iv(30, 1.2)];
    let answer = case.ask(0, 60);
    assert_eq!(
        (answer.ac(), answer.dc(), answer.matched()),
        ("3.2".into(), "6".into(), "3".into())
    );
    assert_eq!(answer.ratio(), Some("93.75".into()));
    assert_eq!(case.ask(0, 20).dc(), "2");
}
