//! Bodies read by serde_json and judged by the reference of the gateway's own tests.

use std::fmt;

use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
pub use wattgate::ingest::decode::{Bounds, Code, DEPTH_MAX, FAULTS_MAX};
pub use wattgate::reading::{Details, EnergyKind, Place, Reading, Stream, Timestamp};

#[path = "../../src/ingest/decode/tests/reference.rs"]
mod reference;

/// A reading without borrowed parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Owned {
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

/// The times that are accepted: around 2024-02-09T15:30:00Z.
pub fn bounds() -> Bounds {
    Bounds::at(Timestamp::from_micros(1_707_492_600_000_000), None)
}

/// A time as jiff reads it, by the rules of RFC 3339.
pub fn time(text: &str) -> Option<i64> {
    reference::by_jiff(text)
}

/// The expected result for each reading. `None` means that the body is refused as a whole.
pub fn body(stream: Stream, body: &[u8]) -> Option<Vec<Result<Owned, Vec<Code>>>> {
    let text = std::str::from_utf8(body).ok()?;
    if text.starts_with('\u{feff}') || depth(text) > DEPTH_MAX {
        return None;
    }
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    let elements: Vec<&RawValue> = match text.trim_ascii().as_bytes().first() {
        Some(b'[') => serde_json::from_str(text).ok()?,
        _ => vec![serde_json::from_str(text).ok()?],
    };
    let check = |raw: &&RawValue| reading(stream, raw.get());
    (!elements.is_empty()).then(|| elements.iter().map(check).collect())
}

fn reading(stream: Stream, raw: &str) -> Result<Owned, Vec<Code>> {
    if !raw.starts_with('{') {
        return Err(vec![Code::NotAnObject]);
    }
    let mut json = serde_json::Deserializer::from_str(raw);
    let written = json
        .deserialize_map(Fields)
        .map_err(|_| vec![Code::Malformed])?;
    let codes = |errors: reference::Errors| errors.into_iter().map(|(code, _)| code);
    reference::check(stream, &written).map_err(|errors| codes(errors).take(FAULTS_MAX).collect())
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Vec<(String, String)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            // A key with half a character in it is not the name of a field.
            let key = serde_json::from_str(key.get()).unwrap_or_else(|_| "\u{fffd}".to_owned());
            fields.push((key, value.get().to_owned()));
        }
        Ok(fields)
    }
}

/// The most brackets open at once.
fn depth(text: &str) -> usize {
    let (mut depth, mut most, mut string, mut escaped) = (0usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if string => escaped = true,
            b'"' => string = !string,
            _ if string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        most = most.max(depth);
    }
    most
}
