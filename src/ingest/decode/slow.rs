//! The slow parser: tells a body that is not JSON from one with an impossible value.
//!
//! simd-json refuses a whole text for a number too large for a double, or for a lone surrogate escape. By the
//! grammar, both are JSON. This parser first checks the grammar alone and then each value, so that such a value
//! rejects only its own reading. It allocates: an array of 500 with one such value takes three times as long.

use std::fmt;

use serde::de::{Deserialize, Deserializer as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::answer::{BodyError, Code, Fault, Faults, Message};
use super::fields;
use super::fields::{Draft, FIELDS_MAX, FIELDS_READ_MAX, Value, unknown_field};
use super::names::lookup;
use super::{DEPTH_MAX, Rules, UnknownFields};
use crate::reading::{Reading, Stream};

/// Checks that a text follows the JSON grammar and is not nested too deep.
pub(super) fn check(bytes: &[u8]) -> Result<&str, BodyError> {
    let text = std::str::from_utf8(bytes).map_err(|error| BodyError::NotUtf8 {
        offset: error.valid_up_to(),
    })?;
    if let Some(offset) = too_deep_at(bytes) {
        return Err(BodyError::TooDeep { offset });
    }
    let mut json = serde_json::Deserializer::from_str(text);
    IgnoredAny::deserialize(&mut json)
        .and_then(|_| json.end())
        .map_err(malformed)?;
    Ok(text)
}

/// The offset of the first bracket beyond [`DEPTH_MAX`] open ones.
fn too_deep_at(bytes: &[u8]) -> Option<usize> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for (offset, byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Some(offset);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

fn malformed(error: serde_json::Error) -> BodyError {
    let (line, column) = (error.line(), error.column());
    // The message ends with the position, which the error holds in its own fields.
    let mut message = error.to_string();
    if let Some(end) = message.rfind(" at line ") {
        message.truncate(end);
    }
    BodyError::Malformed {
        message,
        line,
        column,
    }
}

/// Passes on the raw text of each element of an array. The text has passed [`check`].
pub(super) fn elements(array: &str, each: impl FnMut(&str)) -> Result<(), BodyError> {
    let mut json = serde_json::Deserializer::from_str(array);
    json.deserialize_seq(EachElement(each)).map_err(malformed)
}

struct EachElement<F>(F);

impl<'de, F: FnMut(&str)> Visitor<'de> for EachElement<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while let Some(raw) = seq.next_element::<&RawValue>()? {
            (self.0)(raw.get());
        }
        Ok(())
    }
}

/// An object of a text.
pub(super) struct Object {
    /// Its first [`FIELDS_READ_MAX`] fields, without ignored ones. `None` means a key that is not Unicode.
    fields: Vec<(Option<String>, RawField)>,
    ignored: u64,
}

impl Object {
    /// Reads an object. In NDJSON, a line that is not JSON is the fault of this reading alone.
    pub(super) fn read(
        bytes: &[u8],
        stream: Stream,
        unknown: UnknownFields,
    ) -> Result<Object, Fault> {
        let text = check(bytes).map_err(line_fault)?;
        let text = text.trim_ascii_start();
        if !text.starts_with('{') {
            return Err(super::not_an_object());
        }
        let mut json = serde_json::Deserializer::from_str(text);
        json.deserialize_map(FirstFields { stream, unknown })
            .map_err(|error| line_fault(malformed(error)))
    }

    /// Validates the object as a reading.
    pub(super) fn reading(&self, stream: Stream, rules: &Rules) -> Result<Reading<'_>, Fault> {
        let mut draft = Draft::new(stream);
        for (key, value) in &self.fields {
            let Some(key) = key else {
                return Err(unknown_field(stream, "\u{fffd}"));
            };
            draft.field(key, value.as_value(), rules)?;
        }
        draft.ignored = self.ignored;
        draft.finish(rules)
    }

    /// All faults of an object that is not a valid reading.
    pub(super) fn faults(&self, stream: Stream, rules: &Rules, prefix: Option<&str>) -> Faults {
        let all = self.fields.iter();
        let all = all.map(|(key, value)| (key.as_deref(), value.as_value()));
        fields::faults(stream, rules, prefix, all)
    }
}

fn line_fault(error: BodyError) -> Fault {
    let (code, message) = match error {
        BodyError::TooDeep { .. } => (
            Code::TooDeep,
            format!("the line nests deeper than {DEPTH_MAX} levels"),
        ),
        BodyError::NotUtf8 { offset } => (
            Code::Malformed,
            format!("the line is not valid UTF-8 (at byte {offset})"),
        ),
        BodyError::Malformed {
            message, column, ..
        } => (
            Code::Malformed,
            format!("the line is not valid JSON: {message} (column {column})"),
        ),
        BodyError::Empty | BodyError::ByteOrderMark => (Code::Malformed, error.to_string()),
    };
    Fault {
        field: None,
        code,
        message: Message::Text(message),
    }
}

struct FirstFields {
    stream: Stream,
    unknown: UnknownFields,
}

impl FirstFields {
    fn ignores(&self, key: Option<&str>) -> bool {
        self.unknown == UnknownFields::Ignore
            && key.is_none_or(|key| lookup(self.stream, key).is_none())
    }
}

impl<'de> Visitor<'de> for FirstFields {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut fields, mut ignored) = (Vec::with_capacity(FIELDS_MAX + 1), 0);
        while fields.len() < FIELDS_READ_MAX {
            let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? else {
                return Ok(Object { fields, ignored });
            };
            let key = unquote(key.get());
            if self.ignores(key.as_deref()) {
                ignored += 1;
            } else {
                fields.push((key, RawField::new(value.get())));
            }
        }
        // `RawValue`, because `IgnoredAny` refuses a key with a lone surrogate, which is valid JSON.
        while map.next_entry::<&RawValue, IgnoredAny>()?.is_some() {}
        Ok(Object { fields, ignored })
    }
}

/// The text of a JSON string; `None` if it has a lone surrogate.
fn unquote(raw: &str) -> Option<String> {
    serde_json::from_str(raw).ok()
}

/// A value, with texts unescaped.
enum RawField {
    Text(String),
    Other(Value<'static>),
}

impl RawField {
    fn new(raw: &str) -> Self {
        let value = match raw.as_bytes().first() {
            Some(b'"') => match unquote(raw) {
                Some(text) => return RawField::Text(text),
                None => Value::Surrogate,
            },
            Some(b'{' | b'[') => Value::Nested,
            Some(b't' | b'f') => Value::Bool,
            Some(b'n') => Value::Null,
            _ => match raw.parse::<f64>() {
                Ok(number) if number.is_finite() => Value::Number(number),
                _ => Value::Beyond,
            },
        };
        RawField::Other(value)
    }

    fn as_value(&self) -> Value<'_> {
        match self {
            RawField::Text(text) => Value::Text(text),
            RawField::Other(value) => *value,
        }
    }
}
