//! Overlapping sessions, made from two real ones at a JPL station on 2019-05-03.

use super::case::{Case, interval, reg, session};
use crate::energy::attribution::VehicleReading;
use crate::energy::device::EnergyReading;
use crate::reading::Timestamp;

/// A second of the day, local time.
fn at(clock: &str) -> Timestamp {
    let instant: jiff::Timestamp = format!("2019-05-03 {clock}-07:00").parse().unwrap();
    Timestamp::from_micros(instant.as_microsecond())
}

fn register(clock: &str, kwh: f64) -> EnergyReading {
    EnergyReading {
        at: at(clock),
        ..reg(0, kwh)
    }
}

fn delivered(clock: &str, kwh: f64) -> VehicleReading {
    VehicleReading {
        at: at(clock),
        ..interval(0, kwh)
    }
}

/// AG-1F11: 05:22:29 to 16:06:39 with 15.396 kWh, and 16:21:22 to 17:36:50 with 2.974 kWh. The second is moved an
/// hour earlier, so that they overlap over (15:21:22, 16:06:39]. 90% of each is DC, reported at its end.
#[test]
fn overlapping_sessions_made_from_real_ones() {
    let minute = |clock: &str| at(clock).as_micros() / 60_000_000;
    let mut case = Case::default();
    let stay = |key, from: &str, to: &str| {
        let mut one = session(key, 0, 1);
        (one.started, one.ended) = (at(from), Some(at(to)));
        vec![one]
    };
    case.sessions = stay(1, "05:22:29", "16:06:39");
    case.vehicle = vec![delivered("16:06:39", 13.8564)];
    let second = stay(2, "15:21:22", "16:36:50");
    case.others = vec![(vec![delivered("16:36:50", 2.6766)], second)];
    case.meter = vec![register("05:22:29", 100.0), register("16:36:50", 118.37)];
    // 18.37 kWh over 40,461 s: the first alone for 35,933 s, both for 2,717 s, the second alone for 1,811 s. DC
    // divides what both drew in the ratio 13.8564 to 2.6766, the same as AC: 15.396 to 2.974 of 18.37. For the
    // first: (18.37 × 35,933 + 15.396 × 2,717) / 40,461 = 701,920.142 / 40,461 = 17.348067…
    let (from, to) = (minute("00:00:00"), minute("23:59:00"));
    let (first, second) = (case.ask(from, to), case.ask_other(0, from, to));
    assert_eq!(first.ac(), "17.348067");
    assert_eq!(second.ac(), "1.021933");
    assert_eq!(case.meter_energy(from, to), "18.37");
    // Everything is between register neighbours: 13.8564 of 17.348067, and 2.6766 of 1.021933.
    assert_eq!(first.ratio(), Some("79.87".into()));
    assert_eq!(second.ratio(), Some("261.92".into()));
    // With a register reading where the second begins, the first has its 15.396 by then, plus its share of the
    // 2.974 for the time of both.
    case.meter.insert(1, register("15:21:22", 115.396));
    let (first, second) = (case.ask(from, to), case.ask_other(0, from, to));
    // (15:21:22, 16:36:50]: 2.974 over 4,528 s, of which both are there for 2,717 s: 1.784531 × 15.396 / 18.37.
    assert_eq!(first.ac(), "16.891626");
    assert_eq!(second.ac(), "1.478374");
}
