//! The names of a reading's fields, by stream.

use crate::reading::Stream;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Device,
    Energy,
    Voltage,
    Soc,
    BatteryTemp,
    Time,
    Kind,
    Session,
    AtMeter,
}

const METER_REQUIRED: [(Field, &str); 4] = [
    (Field::Device, "meterId"),
    (Field::Energy, "kwhConsumedAc"),
    (Field::Voltage, "voltage"),
    (Field::Time, "timestamp"),
];
const VEHICLE_REQUIRED: [(Field, &str); 5] = [
    (Field::Device, "vehicleId"),
    (Field::Soc, "soc"),
    (Field::Energy, "kwhDeliveredDc"),
    (Field::BatteryTemp, "batteryTemp"),
    (Field::Time, "timestamp"),
];
const METER_OPTIONAL: [&str; 1] = ["energyKind"];
const VEHICLE_OPTIONAL: [&str; 3] = ["energyKind", "sessionId", "meterId"];
pub(super) const METER_REQUIRED_SEEN: u16 = seen_of(&METER_REQUIRED);
pub(super) const VEHICLE_REQUIRED_SEEN: u16 = seen_of(&VEHICLE_REQUIRED);

pub(super) const fn bit(field: Field) -> u16 {
    1 << field as u16
}

const fn seen_of(fields: &[(Field, &str)]) -> u16 {
    let mut seen = 0;
    let mut at = 0;
    while at < fields.len() {
        seen |= bit(fields[at].0);
        at += 1;
    }
    seen
}

pub(super) const fn required(stream: Stream) -> &'static [(Field, &'static str)] {
    match stream {
        Stream::Meter => &METER_REQUIRED,
        Stream::Vehicle => &VEHICLE_REQUIRED,
    }
}

/// The fields of a stream's readings, as listed in a message.
pub(super) fn all(stream: Stream) -> String {
    let optional: &[&str] = match stream {
        Stream::Meter => &METER_OPTIONAL,
        Stream::Vehicle => &VEHICLE_OPTIONAL,
    };
    let required = required(stream).iter().map(|(_, name)| *name);
    let all: Vec<&str> = required.chain(optional.iter().copied()).collect();
    all.join(", ")
}

/// Looks up a key's field, with its name as responses spell it.
#[inline]
pub(super) fn lookup(stream: Stream, key: &str) -> Option<(Field, &'static str)> {
    let field = match (stream, key.as_bytes()) {
        (_, b"timestamp") => (Field::Time, "timestamp"),
        (_, b"energyKind") => (Field::Kind, "energyKind"),
        (Stream::Meter, b"meterId") => (Field::Device, "meterId"),
        (Stream::Meter, b"kwhConsumedAc") => (Field::Energy, "kwhConsumedAc"),
        (Stream::Meter, b"voltage") => (Field::Voltage, "voltage"),
        (Stream::Vehicle, b"vehicleId") => (Field::Device, "vehicleId"),
        (Stream::Vehicle, b"soc") => (Field::Soc, "soc"),
        (Stream::Vehicle, b"kwhDeliveredDc") => (Field::Energy, "kwhDeliveredDc"),
        (Stream::Vehicle, b"batteryTemp") => (Field::BatteryTemp, "batteryTemp"),
        (Stream::Vehicle, b"sessionId") => (Field::Session, "sessionId"),
        (Stream::Vehicle, b"meterId") => (Field::AtMeter, "meterId"),
        _ => return None,
    };
    Some(field)
}
