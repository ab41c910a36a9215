//! The rules for a reading's fields. They turn a valid [`Draft`] into a [`Reading`].
//!
//! All parsers share these rules. The quick parser's tape and the other parsers' raw text feed the same draft,
//! field by field, in the order of the body.

use super::answer::{Code, FAULTS_MAX, Fault, Faults, Message};
use super::names::{Field, METER_REQUIRED_SEEN, VEHICLE_REQUIRED_SEEN, bit, lookup, required};
use super::{Rules, TimeForm, UnknownFields, timestamp};
use crate::reading::{Details, Energy, EnergyKind, ExternalId, Place, Reading, Stream, Timestamp};

/// The number of fields of the stream with more fields.
pub(super) const FIELDS_MAX: usize = 8;
/// How many fields of an object are read. If it has that many, more than [`FAULTS_MAX`] of them are unknown or
/// duplicates, and further faults would not be listed.
pub(super) const FIELDS_READ_MAX: usize = FIELDS_MAX + FAULTS_MAX + 1;

/// A field's value, from any parser.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Text(&'a str),
    Number(f64),
    /// A number too large for a double, such as 1e309.
    Beyond,
    /// A text that is not Unicode, such as `"\ud800"`.
    Surrogate,
    Null,
    Bool,
    Nested,
}

impl Value<'_> {
    const fn kind(self) -> &'static str {
        match self {
            Value::Text(_) | Value::Surrogate => "a string",
            Value::Number(_) | Value::Beyond => "a number",
            Value::Null => "null",
            Value::Bool => "a boolean",
            Value::Nested => "an object or array",
        }
    }
}

const KWH_MAX: f64 = 1e9;
const VOLTAGE_MAX: f64 = 1000.0;
const SOC_MAX: f64 = 100.0;
const BATTERY_TEMP_MIN: f64 = -60.0;
const BATTERY_TEMP_MAX: f64 = 150.0;

/// All faults of an object that is not a valid reading: first those of its fields in the order of the body, then
/// the absent fields in the order of the documentation, then the conflict, and then a device that the sender may
/// not report for.
///
/// The first one equals the fault that [`Draft`] reports. A key of `None` is not Unicode.
#[cold]
pub(super) fn faults<'a, 'k>(
    stream: Stream,
    rules: &Rules,
    prefix: Option<&str>,
    fields: impl Iterator<Item = (Option<&'k str>, Value<'a>)>,
) -> Faults {
    let mut draft = Draft::new(stream);
    let mut faults = Faults::default();
    for (key, value) in fields {
        let checked = match key {
            Some(key) => draft.field(key, value, rules),
            None if rules.dialect.unknown == UnknownFields::Ignore => continue,
            None => Err(unknown_field(stream, "\u{fffd}")),
        };
        if let Err(fault) = checked {
            faults.push(fault);
        }
        if faults.is_full() {
            return faults;
        }
    }
    let absent = required(stream).iter();
    for (_, name) in absent.filter(|(field, _)| draft.seen & bit(*field) == 0) {
        faults.push(fault(name, Code::Missing, "is required"));
    }
    if draft.names_two_places() {
        faults.push(conflict());
    }
    if let (Some(prefix), Some(device)) = (prefix, draft.device)
        && !device.as_str().starts_with(prefix)
    {
        faults.push(forbidden(stream));
    }
    faults
}

/// A reading that is being checked, up to its first fault: the first faulty field in the order of the body, then
/// the first absent field in the order of the documentation, then the conflict.
pub(super) struct Draft<'a> {
    stream: Stream,
    seen: u16,
    device: Option<ExternalId<'a>>,
    at: Timestamp,
    kwh: f64,
    kind: EnergyKind,
    // The fields that only one stream has: voltage, or state of charge. Zero until set.
    first: f64,
    battery_temp: f64,
    place: Option<Place<'a>>,
    /// Fields that were ignored.
    pub(super) ignored: u64,
}

impl<'a> Draft<'a> {
    #[inline]
    pub(super) fn new(stream: Stream) -> Self {
        Draft {
            stream,
            seen: 0,
            device: None,
            at: Timestamp::Y2000,
            kwh: 0.0,
            kind: EnergyKind::Interval,
            first: 0.0,
            battery_temp: 0.0,
            place: None,
            ignored: 0,
        }
    }

    /// Checks one field and keeps its value.
    #[inline]
    pub(super) fn field(
        &mut self,
        key: &str,
        value: Value<'a>,
        rules: &Rules,
    ) -> Result<(), Fault> {
        let Some((field, name)) = lookup(self.stream, key) else {
            if rules.dialect.unknown == UnknownFields::Ignore {
                self.ignored += 1;
                return Ok(());
            }
            return Err(unknown_field(self.stream, key));
        };
        if self.seen & bit(field) != 0 {
            return Err(fault(name, Code::DuplicateField, "must be given only once"));
        }
        self.seen |= bit(field);
        match field {
            Field::Device => self.device = Some(id(name, value)?),
            Field::Energy => self.kwh = number(name, value, 0.0, KWH_MAX)?,
            Field::Voltage => self.first = number(name, value, 0.0, VOLTAGE_MAX)?,
            Field::Soc => self.first = number(name, value, 0.0, SOC_MAX)?,
            Field::BatteryTemp => {
                self.battery_temp = number(name, value, BATTERY_TEMP_MIN, BATTERY_TEMP_MAX)?;
            }
            Field::Time => self.at = time(name, value, rules)?,
            Field::Kind => self.kind = kind(name, value)?,
            Field::Session => self.place = Some(Place::Session(id(name, value)?)),
            Field::AtMeter => self.place = Some(Place::Meter(id(name, value)?)),
        }
        Ok(())
    }

    /// The reading, unless a field is absent or fields conflict. Counts what was ignored.
    #[inline]
    pub(super) fn finish(self, rules: &Rules) -> Result<Reading<'a>, Fault> {
        let required = match self.stream {
            Stream::Meter => METER_REQUIRED_SEEN,
            Stream::Vehicle => VEHICLE_REQUIRED_SEEN,
        };
        let device = match self.device {
            Some(device) if self.seen & required == required => device,
            _ => return Err(self.missing()),
        };
        if self.names_two_places() {
            return Err(conflict());
        }
        let details = match self.stream {
            Stream::Meter => Details::Meter {
                voltage: self.first,
            },
            Stream::Vehicle => Details::Vehicle {
                soc: self.first,
                battery_temp: self.battery_temp,
                place: self.place,
            },
        };
        let energy = Energy {
            kwh: self.kwh,
            kind: self.kind,
        };
        if self.ignored > 0 {
            rules.ignored.set(rules.ignored.get() + self.ignored);
        }
        Ok(Reading {
            device,
            at: self.at,
            energy,
            details,
        })
    }

    #[inline]
    fn names_two_places(&self) -> bool {
        let both = bit(Field::Session) | bit(Field::AtMeter);
        self.seen & both == both
    }

    #[cold]
    fn missing(&self) -> Fault {
        let required = required(self.stream);
        let absent = required
            .iter()
            .find(|(field, _)| self.seen & bit(*field) == 0);
        let name = absent.map_or(required[0].1, |(_, name)| *name);
        fault(name, Code::Missing, "is required")
    }
}

#[cold]
fn fault(name: &'static str, code: Code, rule: &'static str) -> Fault {
    Fault {
        field: Some(name),
        code,
        message: Message::Field(name, rule),
    }
}

#[cold]
fn conflict() -> Fault {
    Fault {
        field: None,
        code: Code::Conflict,
        message: Message::Plain("sessionId and meterId must not both be given"),
    }
}

#[cold]
pub(super) fn forbidden(stream: Stream) -> Fault {
    let name = required(stream)[0].1;
    let rule = "names a device that this key does not cover";
    fault(name, Code::ForbiddenDevice, rule)
}

/// How much of an unknown key a message repeats, in characters.
const SHOWN_KEY_CHARS_MAX: usize = 40;

#[cold]
pub(super) fn unknown_field(stream: Stream, key: &str) -> Fault {
    let shown: String = key.chars().take(SHOWN_KEY_CHARS_MAX).collect();
    let dots = if shown.len() < key.len() { "…" } else { "" };
    let key = shown + dots;
    Fault {
        field: None,
        code: Code::UnknownField,
        message: Message::Unknown { key, stream },
    }
}

#[cold]
fn wrong_type(name: &'static str, wanted: &'static str, value: Value<'_>) -> Fault {
    let message = Message::Text(format!("{name} must be {wanted}, not {}", value.kind()));
    Fault {
        field: Some(name),
        code: Code::WrongType,
        message,
    }
}

#[inline]
fn number(name: &'static str, value: Value<'_>, low: f64, high: f64) -> Result<f64, Fault> {
    match value {
        // Adding zero turns -0 into 0 and changes no other number.
        Value::Number(number) if (low..=high).contains(&number) => Ok(number + 0.0),
        Value::Number(_) | Value::Beyond => {
            let message = Message::Range { name, low, high };
            Err(Fault {
                field: Some(name),
                code: Code::OutOfRange,
                message,
            })
        }
        _ => Err(wrong_type(name, "a number", value)),
    }
}

#[inline]
fn id<'a>(name: &'static str, value: Value<'a>) -> Result<ExternalId<'a>, Fault> {
    match value {
        Value::Text(text) => ExternalId::of_new(text).map_err(|error| Fault {
            field: Some(name),
            code: Code::InvalidId,
            message: Message::Id(name, error),
        }),
        Value::Surrogate => Err(fault(
            name,
            Code::InvalidId,
            "contains a lone surrogate escape",
        )),
        _ => Err(wrong_type(name, "a string", value)),
    }
}

fn kind(name: &'static str, value: Value<'_>) -> Result<EnergyKind, Fault> {
    match value {
        Value::Text("interval") => Ok(EnergyKind::Interval),
        Value::Text("register") => Ok(EnergyKind::Register),
        Value::Text(_) | Value::Surrogate => Err(fault(
            name,
            Code::InvalidValue,
            "must be \"interval\" or \"register\"",
        )),
        _ => Err(wrong_type(name, "a string", value)),
    }
}

#[inline]
fn time(name: &'static str, value: Value<'_>, rules: &Rules) -> Result<Timestamp, Fault> {
    let parsed = match value {
        Value::Text(text) => timestamp::parse(text),
        Value::Surrogate => None,
        _ => unix_time(name, value, rules.dialect.time)?,
    };
    let Some(at) = parsed else {
        let rule = match rules.dialect.time {
            TimeForm::Rfc3339 => {
                "must be an RFC 3339 time with an offset, such as 2024-02-09T15:30:00Z"
            }
            TimeForm::UnixMillis => {
                "must be a whole number of milliseconds since 1970 UTC, or an RFC 3339 time with an offset"
            }
        };
        return Err(fault(name, Code::InvalidTimestamp, rule));
    };
    let bounds = &rules.bounds;
    let (code, rule, limit) = if at < bounds.oldest {
        (Code::TooOld, "must not be before", bounds.oldest)
    } else if at > bounds.newest {
        (Code::InFuture, "must not be after", bounds.newest)
    } else {
        return Ok(at);
    };
    Err(Fault {
        field: Some(name),
        code,
        message: Message::Time(name, rule, limit),
    })
}

/// A time that is not a string.
#[cold]
fn unix_time(
    name: &'static str,
    value: Value<'_>,
    form: TimeForm,
) -> Result<Option<Timestamp>, Fault> {
    match (form, value) {
        // A part of a millisecond is not exact in a double. Cut like the digits of RFC 3339, or rounded, it could be
        // another microsecond than in that form, and the reading would be stored twice.
        (TimeForm::UnixMillis, Value::Number(ms)) if ms.fract() != 0.0 => Ok(None),
        // Whatever is outside the range of a time is far outside the bounds, too.
        (TimeForm::UnixMillis, Value::Number(ms)) => {
            Ok(Some(Timestamp::from_micros((ms * 1000.0) as i64)))
        }
        (TimeForm::UnixMillis, Value::Beyond) => Ok(None),
        (TimeForm::UnixMillis, _) => Err(wrong_type(name, "a number or a string", value)),
        (TimeForm::Rfc3339, _) => Err(wrong_type(name, "a string", value)),
    }
}
