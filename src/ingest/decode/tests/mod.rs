//! The guarantees of decoding.

mod bodies;
mod dialects;
mod differential;
mod hostile;
mod reference;
mod rules;
mod several;
mod times;

use super::*;
use crate::reading::{Details, EnergyKind, Place};

/// A reading without borrowed parts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Owned {
    device: String,
    at: i64,
    kwh: f64,
    register: bool,
    values: [f64; 2],
    place: Option<(bool, String)>,
}

impl From<Reading<'_>> for Owned {
    fn from(reading: Reading<'_>) -> Self {
        let (values, place) = match reading.details {
            Details::Meter { voltage } => ([voltage, 0.0], None),
            Details::Vehicle {
                soc,
                battery_temp,
                place,
            } => ([soc, battery_temp], place),
        };
        Owned {
            device: reading.device.as_str().to_owned(),
            at: reading.at.as_micros(),
            kwh: reading.energy.kwh,
            register: reading.energy.kind == EnergyKind::Register,
            values,
            place: place.map(|place| match place {
                Place::Session(id) => (true, id.as_str().to_owned()),
                Place::Meter(id) => (false, id.as_str().to_owned()),
            }),
        }
    }
}

/// 2024-02-09T15:30:00Z.
pub(super) const NOW: Timestamp = Timestamp::from_micros(1_707_492_600_000_000);

pub(super) fn bounds() -> Bounds {
    Bounds::at(NOW, None)
}

/// Decodes a body with a fresh decoder.
pub(super) fn decode(
    stream: Stream,
    format: Format,
    body: impl AsRef<[u8]>,
) -> Result<(Vec<Owned>, Outcome), BodyError> {
    decode_with(&mut Decoder::new(), stream, format, body.as_ref())
}

pub(super) fn decode_with(
    decoder: &mut Decoder,
    stream: Stream,
    format: Format,
    body: &[u8],
) -> Result<(Vec<Owned>, Outcome), BodyError> {
    decode_as(decoder, stream, format, Dialect::default(), body)
}

pub(super) fn decode_as(
    decoder: &mut Decoder,
    stream: Stream,
    format: Format,
    dialect: Dialect,
    body: &[u8],
) -> Result<(Vec<Owned>, Outcome), BodyError> {
    let rules = Rules::new(bounds(), dialect);
    let expected = Expected {
        prefix: None,
        stream,
        format,
        rules: &rules,
    };
    let mut taken = Vec::new();
    let decoded = decoder.decode_of(&expected, body, |reading| taken.push(reading.into()));
    if decoded.is_err() {
        assert!(taken.is_empty(), "a refused body handed readings on");
    }
    let outcome = decoded?;
    assert_eq!(outcome.accepted, taken.len() as u64);
    assert_eq!(
        outcome.rejected,
        outcome.rejected_by_code.iter().sum::<u64>()
    );
    let mut listed: Vec<u64> = outcome.errors.iter().map(|error| error.index).collect();
    assert!(listed.len() <= ERRORS_MAX && listed.is_sorted());
    for indices in listed.chunk_by(|a, b| a == b) {
        assert!(indices.len() <= FAULTS_MAX);
    }
    listed.dedup();
    if outcome.errors_truncated {
        assert!(!listed.is_empty());
    } else {
        assert_eq!(listed.len() as u64, outcome.rejected);
    }
    Ok((taken, outcome))
}

/// A meter's reading with one field replaced, added or (if the value is empty) left out.
pub(super) fn meter(field: &str, value: &str) -> String {
    object(
        &[
            ("meterId", r#""M1""#),
            ("kwhConsumedAc", "45.23"),
            ("voltage", "240.5"),
            ("timestamp", r#""2024-02-09T15:30:00Z""#),
        ],
        field,
        value,
    )
}

/// The same for a vehicle.
pub(super) fn vehicle(field: &str, value: &str) -> String {
    object(
        &[
            ("vehicleId", r#""VEH-001""#),
            ("soc", "80.5"),
            ("kwhDeliveredDc", "41.3"),
            ("batteryTemp", "31.5"),
            ("timestamp", r#""2024-02-09T15:30:00Z""#),
        ],
        field,
        value,
    )
}

fn object(fields: &[(&str, &str)], field: &str, value: &str) -> String {
    let mut fields: Vec<(&str, &str)> = fields.to_vec();
    match fields.iter_mut().find(|(name, _)| *name == field) {
        Some(found) => found.1 = value,
        None if !field.is_empty() => fields.push((field, value)),
        None => {}
    }
    let fields: Vec<String> = fields
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("\"{name}\":{value}"))
        .collect();
    format!("{{{}}}", fields.join(","))
}
