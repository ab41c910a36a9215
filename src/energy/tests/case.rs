//! A small case with times in minutes: one vehicle, one meter (key 0), and perhaps other vehicles there.

use serde_json::Value;

use crate::energy::attribution::{
    MeterKey, Session, SessionKey, Vehicle, VehicleKey, VehicleReading,
};
use crate::energy::device::{DeviceEnergy, EnergyReading};
use crate::energy::format::Decimal;
use crate::energy::interval::Interval;
use crate::energy::{Meter, Printed, Question, StatusBounds, performance};
use crate::http::api::energy_view::AnswerView;
use crate::reading::{Energy, EnergyKind, Timestamp};

pub(super) fn ts(minute: i64) -> Timestamp {
    Timestamp::from_micros(minute * 60_000_000)
}

fn reading(minute: i64, kwh: f64, kind: EnergyKind) -> EnergyReading {
    EnergyReading {
        at: ts(minute),
        energy: Energy { kwh, kind },
    }
}

fn of_vehicle(reading: EnergyReading) -> VehicleReading {
    VehicleReading {
        at: reading.at,
        energy: reading.energy,
        battery_temp: 30.0,
        place: None,
    }
}

/// A meter's interval reading.
pub(super) fn iv(minute: i64, kwh: f64) -> EnergyReading {
    reading(minute, kwh, EnergyKind::Interval)
}

/// A meter's register reading.
pub(super) fn reg(minute: i64, kwh: f64) -> EnergyReading {
    reading(minute, kwh, EnergyKind::Register)
}

/// A vehicle's interval reading.
pub(super) fn interval(minute: i64, kwh: f64) -> VehicleReading {
    of_vehicle(iv(minute, kwh))
}

/// A vehicle's register reading.
pub(super) fn reg_v(minute: i64, kwh: f64) -> VehicleReading {
    of_vehicle(reg(minute, kwh))
}

pub(super) fn session(key: i32, start: i64, end: i64) -> Session {
    let (started, ended) = (ts(start), Some(ts(end)));
    Session {
        key: SessionKey(key),
        meter: MeterKey(0),
        started,
        ended,
    }
}

#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) vehicle: Vec<VehicleReading>,
    pub(super) sessions: Vec<Session>,
    pub(super) meter: Vec<EnergyReading>,
    pub(super) others: Vec<(Vec<VehicleReading>, Vec<Session>)>,
    pub(super) same_id: bool,
    pub(super) now: Timestamp,
}

impl Default for Case {
    fn default() -> Self {
        Case {
            vehicle: Vec::new(),
            sessions: Vec::new(),
            meter: Vec::new(),
            others: Vec::new(),
            same_id: false,
            now: Timestamp::from_micros(i64::MAX / 2),
        }
    }
}

/// The answer as JSON.
pub(super) struct Answer {
    pub(super) json: Value,
}

impl Answer {
    fn number(&self, name: &str) -> String {
        self.json[name]
            .to_string()
            .trim_end_matches(".0")
            .to_owned()
    }
    pub(super) fn ac(&self) -> String {
        self.number("totalEnergyConsumedAc")
    }
    pub(super) fn dc(&self) -> String {
        self.number("totalEnergyDeliveredDc")
    }
    pub(super) fn matched(&self) -> String {
        self.number("matchedEnergyDeliveredDc")
    }
    pub(super) fn ratio(&self) -> Option<String> {
        (!self.json["efficiencyRatio"].is_null()).then(|| self.number("efficiencyRatio"))
    }
    pub(super) fn status(&self) -> String {
        self.json["efficiencyStatus"].as_str().unwrap().to_owned()
    }
    pub(super) fn method(&self) -> String {
        self.json["attribution"]["method"]
            .as_str()
            .unwrap()
            .to_owned()
    }
    pub(super) fn coverage(&self) -> String {
        self.json["quality"]["coverage"]
            .to_string()
            .trim_end_matches(".0")
            .to_owned()
    }
    pub(super) fn gaps(&self) -> u64 {
        self.json["quality"]["gaps"].as_u64().unwrap()
    }
    pub(super) fn resets(&self) -> u64 {
        self.json["quality"]["resets"].as_u64().unwrap()
    }
    pub(super) fn suspect(&self) -> u64 {
        self.json["quality"]["suspect"].as_u64().unwrap()
    }
}

impl Case {
    pub(super) fn ask(&self, from: i64, to: i64) -> Answer {
        self.ask_vehicle(0, from, to)
    }

    pub(super) fn ask_other(&self, n: usize, from: i64, to: i64) -> Answer {
        self.ask_vehicle(n + 1, from, to)
    }

    /// The answer of the vehicle with key `n`, as text.
    pub(super) fn json_text(&self, n: usize, from: i64, to: i64) -> String {
        let mut vehicles = vec![Vehicle {
            key: VehicleKey(0),
            readings: &self.vehicle,
            rolled_up: &[],
            sessions: &self.sessions,
        }];
        vehicles.extend(
            self.others
                .iter()
                .zip(1..)
                .map(|((readings, sessions), key)| Vehicle {
                    key: VehicleKey(key),
                    readings,
                    rolled_up: &[],
                    sessions,
                }),
        );
        let meters = [Meter {
            key: MeterKey(0),
            owner: self.same_id.then_some(VehicleKey(0)),
            readings: &self.meter,
            rolled_up: &[],
            others: &vehicles,
        }];
        let window = Interval::new(ts(from), ts(to)).unwrap();
        let mut question = Question::new(window, self.now, vehicles[n]);
        question.meters = &meters;
        let answer = performance(&question).unwrap();
        let ids = answer
            .meters
            .iter()
            .map(|key| format!("M{}", key.0))
            .collect();
        let printed = Printed::new(&answer, "VEH-001", ids, &StatusBounds::default());
        serde_json::to_string(&AnswerView::from(&printed)).unwrap()
    }

    fn ask_vehicle(&self, n: usize, from: i64, to: i64) -> Answer {
        Answer {
            json: serde_json::from_str(&self.json_text(n, from, to)).unwrap(),
        }
    }

    /// All energy of the meter, attributed or not.
    pub(super) fn meter_energy(&self, from: i64, to: i64) -> String {
        let meter = DeviceEnergy::new(self.meter.iter().copied(), 1_000_000);
        Decimal::kwh(&meter.energy(Interval::new(ts(from), ts(to)).unwrap())).to_string()
    }
}
