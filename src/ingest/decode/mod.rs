//! From JSON to readings: parses and validates a request's body in one pass.
//!
//! [`Decoder::decode`] takes the decompressed bytes and passes on each valid [`Reading`], in the order of the
//! body. An invalid reading is rejected alone; a body that is not JSON is refused as a whole.
//!
//! Three parsers share one set of rules (`fields`). `flat` reads a body of one valid reading. The quick parser
//! (`tape`) runs simd-json over texts of at most [`TEXT_BYTES_MAX`]; larger bodies are split between readings, so
//! that memory stays bounded. The slow parser (`slow`) handles only what the quick one refuses.
//!
//! HTTP, compression and the log are absent on purpose. The caller bounds the body's size.

mod answer;
mod fields;
mod flat;
mod json;
mod names;
mod ndjson;
mod slow;
mod tape;
#[cfg(test)]
mod tests;
pub mod timestamp;

use std::cell::Cell;
use std::time::Duration;

pub use answer::{BodyError, Code, ERRORS_MAX, FAULTS_MAX, Outcome, ReadingError};

use crate::reading::{Reading, Stream, Timestamp};
use answer::{Fault, Faults, Message};
use tape::Parser;

/// The most brackets that may be open at once, including that of the array of readings.
///
/// Why 32: a reading is an object of plain values, at depth 2 in an array. The margin is for nested values in
/// unknown fields, for which "unknown field" is a more helpful error than "too deep".
pub const DEPTH_MAX: usize = 32;

/// The largest text that the quick parser gets in one call.
///
/// Why 128 KiB: a thousand readings fit. Per byte of text, the parser's buffers take at most 28 bytes (an index of
/// 4 and a node of 24 for each bracket), so they stay below 4 MiB for any body.
pub const TEXT_BYTES_MAX: usize = 128 * 1024;

/// How far ahead of the gateway's clock a reading may be. Why: devices' clocks drift.
pub const AHEAD_MAX: Duration = Duration::from_secs(600);

/// How a body contains its readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `application/json`: one reading, or an array of readings.
    Json,
    /// `application/x-ndjson`: one reading per line; lines of white space are skipped.
    Ndjson,
}

/// The range of accepted times, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The latest time. A later reading is `in_future`.
    pub newest: Timestamp,
    /// The earliest time. An earlier reading is `too_old`.
    pub oldest: Timestamp,
}

impl Bounds {
    /// The bounds at a moment: up to [`AHEAD_MAX`] ahead of it, not before 2000, and no older than `max_age` if
    /// that is set.
    pub fn at(now: Timestamp, max_age: Option<Duration>) -> Self {
        Bounds::between(now, now, max_age)
    }

    /// The bounds if the present time is only known to lie between two moments.
    pub fn between(earliest: Timestamp, latest: Timestamp, max_age: Option<Duration>) -> Self {
        let micros = |span: Duration| i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        let oldest = max_age.map_or(Timestamp::Y2000, |age| {
            let oldest = earliest.plus_micros(-micros(age));
            oldest.max(Timestamp::Y2000)
        });
        Bounds {
            newest: latest.plus_micros(micros(AHEAD_MAX)),
            oldest,
        }
    }
}

/// What a sender may write differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dialect {
    /// What happens to a field that no reading has.
    pub unknown: UnknownFields,
    /// How a time may be written.
    pub time: TimeForm,
}

/// What happens to a field that no reading has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownFields {
    /// Its reading is rejected: it may be a misspelled optional field.
    #[default]
    Refuse,
    /// It is counted and dropped.
    Ignore,
}

/// How a time may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimeForm {
    /// As a string of RFC 3339.
    #[default]
    Rfc3339,
    /// Also as a number: whole milliseconds since 1970 UTC.
    UnixMillis,
}

/// What the readings of a body are checked by.
#[derive(Debug)]
pub struct Rules {
    /// The times of its readings.
    pub bounds: Bounds,
    /// What its sender may write differently.
    pub dialect: Dialect,
    /// Ignored fields of valid readings so far.
    ignored: Cell<u64>,
}

impl Rules {
    /// Rules under which nothing has been ignored yet.
    pub const fn new(bounds: Bounds, dialect: Dialect) -> Self {
        Rules {
            bounds,
            dialect,
            ignored: Cell::new(0),
        }
    }
}

/// What a body is expected to contain.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// If the sender is restricted, the prefix of the device ids that it may report for.
    pub prefix: Option<&'a str>,
    /// The stream of its readings.
    pub stream: Stream,
    /// Its format.
    pub format: Format,
    /// What its readings are checked by.
    pub rules: &'a Rules,
}

/// A parser of bodies that reuses its buffers.
///
/// One per worker: it is `Send`, but not shared.
///
/// Shape:  keeps under 2 MiB between calls; during a call it uses at most 4 MiB besides the body, or a small
///         multiple of one reading if a single reading is larger than [`TEXT_BYTES_MAX`]
pub struct Decoder {
    parser: Parser,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// Makes a decoder without buffers. The first bodies allocate them.
    pub fn new() -> Self {
        Decoder {
            parser: Parser::new(),
        }
    }

    /// Parses and validates a body, and passes each valid reading to `take`, in order.
    ///
    /// A reading that breaks several rules has an error for each, and is counted by the first: its fields in the
    /// order of the body, then absent fields, then a conflict between two. `null` is not a valid value of any
    /// field, not even of an optional one (`wrong_type`). A number becomes the nearest double, and `-0` becomes 0.
    /// Keys and texts are compared unescaped.
    ///
    /// Shape:  any bytes; the caller bounds the body's size
    /// Order:  `take` gets each valid reading once, in the order of the body
    /// Blocks: never; a reading takes about 0.2 µs, or 0.3 µs in an array larger than [`TEXT_BYTES_MAX`], which is
    ///         parsed twice
    ///
    /// # Errors
    /// [`BodyError`]: the body is refused as a whole, and `take` was not called.
    ///
    /// Source: RFC 8259; `docs/src/sending-readings.md`
    pub fn decode(
        &mut self,
        stream: Stream,
        format: Format,
        body: &[u8],
        bounds: &Bounds,
        take: impl FnMut(Reading<'_>),
    ) -> Result<Outcome, BodyError> {
        let rules = Rules::new(*bounds, Dialect::default());
        let expected = Expected {
            prefix: None,
            stream,
            format,
            rules: &rules,
        };
        self.decode_of(&expected, body, take)
    }

    /// Like [`Decoder::decode`], for a sender that may be restricted to devices whose ids begin with a prefix.
    /// Readings of other devices are `forbidden_device`.
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    pub fn decode_of(
        &mut self,
        expected: &Expected<'_>,
        body: &[u8],
        take: impl FnMut(Reading<'_>),
    ) -> Result<Outcome, BodyError> {
        // The byte order marks of UTF-8 and UTF-16. Valid UTF-8 never begins with one of UTF-16.
        let marks: [&[u8]; 3] = [b"\xef\xbb\xbf", b"\xfe\xff", b"\xff\xfe"];
        if marks.iter().any(|mark| body.starts_with(mark)) {
            return Err(BodyError::ByteOrderMark);
        }
        let mut tally = Tally {
            outcome: Outcome::default(),
            take,
            prefix: expected.prefix,
            stream: expected.stream,
            rules: expected.rules,
        };
        let decoded = match expected.format {
            Format::Json => self.json(body, &mut tally),
            Format::Ndjson => self.ndjson(body, &mut tally),
        };
        self.parser.shrink(TEXT_BYTES_MAX);
        let mut outcome = tally.outcome;
        outcome.fields_ignored = expected.rules.ignored.take();
        decoded.map(|()| outcome)
    }

    /// Decodes one reading in a text of its own. If the quick parser refuses it, the slow one finds the errors.
    fn one(&mut self, text: &[u8], tally: &mut Tally<'_, impl FnMut(Reading<'_>)>) {
        if text.len() <= TEXT_BYTES_MAX && text.starts_with(b"{") {
            self.parser.text().extend_from_slice(text);
            if self.parser.parse(|nodes| tally.nodes(nodes)).is_some() {
                return;
            }
        }
        let (stream, rules, prefix) = (tally.stream, tally.rules, tally.prefix);
        match slow::Object::read(text, stream, rules.dialect.unknown) {
            Ok(object) => tally.count(object.reading(stream, rules), |_| {
                object.faults(stream, rules, prefix)
            }),
            Err(fault) => tally.count(Err(fault), Faults::from),
        }
    }
}

/// The result for the readings so far.
struct Tally<'b, F> {
    outcome: Outcome,
    take: F,
    prefix: Option<&'b str>,
    stream: Stream,
    rules: &'b Rules,
}

impl<F: FnMut(Reading<'_>)> Tally<'_, F> {
    /// Counts one reading. If it is invalid, `all` finds all of its faults.
    #[inline]
    fn count(&mut self, checked: Result<Reading<'_>, Fault>, all: impl FnOnce(Fault) -> Faults) {
        match checked {
            Ok(reading)
                if self
                    .prefix
                    .is_some_and(|p| !reading.device.as_str().starts_with(p)) =>
            {
                self.outcome
                    .reject(fields::forbidden(self.stream), Faults::from);
            }
            Ok(reading) => {
                self.outcome.accepted += 1;
                (self.take)(reading);
            }
            Err(first) => self.outcome.reject(first, all),
        }
    }

    /// Counts one value on a tape.
    #[inline]
    fn nodes(&mut self, nodes: &[simd_json::Node<'_>]) {
        let (stream, rules, prefix) = (self.stream, self.rules, self.prefix);
        self.count(tape::reading(stream, nodes, rules), |first| {
            tape::faults(stream, nodes, rules, prefix).unwrap_or_else(|| first.into())
        });
    }
}

#[cold]
fn not_an_object() -> Fault {
    Fault {
        field: None,
        code: Code::NotAnObject,
        message: Message::Plain("a reading must be a JSON object"),
    }
}
