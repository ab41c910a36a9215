//! The fields of a stored reading. They are the ingested ones, so that it can be sent again.
//!
//! One list of fields serves JSON, NDJSON, CSV and Parquet.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::reading::{EnergyKind, Stream, Timestamp};
use crate::store::reading::{StoredDetails, StoredReading};

/// The type of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldType {
    Text,
    /// A text that may be absent.
    OptionalText,
    Number,
    Instant,
}

/// A field of a stream's readings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) holds: FieldType,
}

const fn field(name: &'static str, holds: FieldType) -> Field {
    Field { name, holds }
}

const METER: &[Field] = &[
    field("meterId", FieldType::Text),
    field("kwhConsumedAc", FieldType::Number),
    field("voltage", FieldType::Number),
    field("timestamp", FieldType::Instant),
    field("energyKind", FieldType::Text),
];

const VEHICLE: &[Field] = &[
    field("vehicleId", FieldType::Text),
    field("soc", FieldType::Number),
    field("kwhDeliveredDc", FieldType::Number),
    field("batteryTemp", FieldType::Number),
    field("timestamp", FieldType::Instant),
    field("energyKind", FieldType::Text),
    field("meterId", FieldType::OptionalText),
    field("sessionId", FieldType::OptionalText),
];

/// The fields of a stream's readings, in the order of output.
pub(super) const fn fields(stream: Stream) -> &'static [Field] {
    match stream {
        Stream::Meter => METER,
        Stream::Vehicle => VEHICLE,
    }
}

/// The value of one field.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'r> {
    Text(&'r str),
    OptionalText(Option<&'r str>),
    Number(f64),
    Instant(Timestamp),
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Text(text) => serializer.serialize_str(text),
            Value::OptionalText(text) => text.serialize(serializer),
            Value::Number(number) => serializer.serialize_f64(*number),
            Value::Instant(at) => serializer.collect_str(at),
        }
    }
}

/// A reading of a device.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadingView<'a> {
    pub(super) device: &'a str,
    pub(super) reading: &'a StoredReading,
}

impl<'a> ReadingView<'a> {
    /// The values, in the order of [`fields`].
    pub(super) fn values(self) -> impl Iterator<Item = Value<'a>> {
        let StoredReading {
            at,
            energy,
            details,
        } = self.reading;
        let device = Value::Text(self.device);
        let kwh = Value::Number(energy.kwh);
        let at = Value::Instant(*at);
        let kind = Value::Text(match energy.kind {
            EnergyKind::Interval => "interval",
            EnergyKind::Register => "register",
        });
        let values: [Option<Value<'a>>; 8] = match details {
            StoredDetails::Meter { voltage } => {
                let values = [device, kwh, Value::Number(*voltage), at, kind];
                std::array::from_fn(|n| values.get(n).copied())
            }
            StoredDetails::Vehicle {
                soc,
                battery_temp,
                meter,
                session,
            } => [
                device,
                Value::Number(*soc),
                kwh,
                Value::Number(*battery_temp),
                at,
                kind,
                Value::OptionalText(meter.as_deref()),
                Value::OptionalText(session.as_deref()),
            ]
            .map(Some),
        };
        values.into_iter().flatten()
    }

    /// The stream of the reading.
    const fn stream(self) -> Stream {
        match self.reading.details {
            StoredDetails::Meter { .. } => Stream::Meter,
            StoredDetails::Vehicle { .. } => Stream::Vehicle,
        }
    }
}

impl Serialize for ReadingView<'_> {
    /// Writes the fields as one JSON object, without absent ones.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (field, value) in fields(self.stream()).iter().zip(self.values()) {
            if !matches!(value, Value::OptionalText(None)) {
                map.serialize_entry(field.name, &value)?;
            }
        }
        map.end()
    }
}
