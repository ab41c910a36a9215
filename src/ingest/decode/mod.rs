//! JSON to readings: parses and validates a request's body in one pass.
//!
//! [`Decoder::decode`] takes the bytes as they came (decompressed) and hands each valid
//! [`Reading`] on, in the order of the body. What is wrong with a reading costs that reading
//! only; a body that is no JSON is refused whole.
//!
//! Two parsers share one set of rules (`fields`). The quick one (`tape`) is simd-json over
//! texts of at most [`TEXT_BYTES_MAX`]; larger bodies are cut between readings, so that memory
//! stays flat. The slow one (`slow`) sees only what the quick one refuses.
//!
//! Absent on purpose: HTTP, compression, the log; the caller bounds the body's size.

mod answer;
mod fields;
mod json;
mod names;
mod ndjson;
mod slow;
mod tape;
#[cfg(test)]
mod tests;
pub mod timestamp;

use std::time::Duration;

pub use answer::{BodyError, Code, ERRORS_MAX, FAULTS_MAX, Outcome, ReadingError};

use crate::reading::{Reading, Stream, Timestamp};
use answer::{Fault, Faults, Message};
use tape::Parser;

/// The most brackets that may be open at once, the array of readings included.
///
/// Why 32: a reading is an object of plain values, depth 2 in an array; the rest is room for an
/// unknown field, whose error is worth more to its sender than "too deep".
pub const DEPTH_MAX: usize = 32;

/// The largest text that the quick parser gets at once.
///
/// Why 128 KiB: a thousand readings go in one piece, and the parser's buffers, at most 28 bytes
/// for a byte of text (an index of 4 and a node of 24 for each bracket), stay below 4 MiB
/// whatever the body is.
pub const TEXT_BYTES_MAX: usize = 128 * 1024;

/// How far ahead of the gateway's clock a reading may be: clocks of devices drift.
pub const AHEAD_MAX: Duration = Duration::from_secs(600);

/// How a body holds its readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `application/json`: one reading, or an array of readings.
    Json,
    /// `application/x-ndjson`: a reading a line; lines of nothing but white space are skipped.
    Ndjson,
}

/// The times of readings that are taken, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The latest time taken; after it a reading is `in_future`.
    pub newest: Timestamp,
    /// The earliest time taken; before it a reading is `too_old`.
    pub oldest: Timestamp,
}

impl Bounds {
    /// The bounds at a moment: up to [`AHEAD_MAX`] ahead, not before 2000, and not older than
    /// `max_age` where one is set.
    pub fn at(now: Timestamp, max_age: Option<Duration>) -> Self {
        Bounds::between(now, now, max_age)
    }

    /// The same where it is not certain what time it is: between two moments.
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

/// A parser of bodies that keeps its buffers from one to the next.
///
/// One a worker: it is `Send`, and not shared.
///
/// Shape:  keeps under 2 MiB between calls; uses at most 4 MiB beside the body during one, and a
///         small multiple of one reading where a single reading is larger than [`TEXT_BYTES_MAX`]
pub struct Decoder {
    parser: Parser,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// Makes a decoder without memory; the first bodies bring it.
    pub fn new() -> Self {
        Decoder {
            parser: Parser::new(),
        }
    }

    /// Parses and validates a body, and hands each valid reading on, in its order.
    ///
    /// Where a reading breaks several rules, each has an error, and the first counts: its fields in
    /// the order of the body, then the absent fields, then the conflict of two. `null` is no value
    /// of any field, of an optional one neither (`wrong_type`). A number is the nearest double of
    /// its text, and `-0` is 0. Keys and texts are compared after their escapes are undone.
    ///
    /// Shape:  any bytes; the body's size is the caller's to bound
    /// Order:  `take` sees the readings in the order of the body, once each
    /// Blocks: never; about 0.2 µs a reading, 0.3 in an array larger than
    /// [`TEXT_BYTES_MAX`], which is parsed twice
    ///
    /// # Errors
    /// [`BodyError`]: the body is refused whole, and `take` was not called once.
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
        self.decode_of(None, stream, format, body, bounds, take)
    }

    /// As [`Decoder::decode`], of a sender that may speak only for devices whose ids begin with
    /// the prefix, where there is one; a reading of another device is `forbidden_device`.
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    pub fn decode_of(
        &mut self,
        prefix: Option<&str>,
        stream: Stream,
        format: Format,
        body: &[u8],
        bounds: &Bounds,
        take: impl FnMut(Reading<'_>),
    ) -> Result<Outcome, BodyError> {
        // UTF-8's mark, and those of UTF-16, which begin no UTF-8.
        let marks: [&[u8]; 3] = [b"\xef\xbb\xbf", b"\xfe\xff", b"\xff\xfe"];
        if marks.iter().any(|mark| body.starts_with(mark)) {
            return Err(BodyError::ByteOrderMark);
        }
        let mut tally = Tally {
            outcome: Outcome::default(),
            take,
            prefix,
            stream,
            bounds,
        };
        let decoded = match format {
            Format::Json => self.json(body, &mut tally),
            Format::Ndjson => self.ndjson(body, &mut tally),
        };
        self.parser.shrink(TEXT_BYTES_MAX);
        decoded.map(|()| tally.outcome)
    }

    /// Decodes one reading in a text of its own; what the quick parser refuses, the slow one
    /// explains.
    fn one(&mut self, text: &[u8], tally: &mut Tally<'_, impl FnMut(Reading<'_>)>) {
        if text.len() <= TEXT_BYTES_MAX && text.starts_with(b"{") {
            self.parser.text().extend_from_slice(text);
            if self.parser.parse(|nodes| tally.nodes(nodes)).is_some() {
                return;
            }
        }
        let (stream, bounds, prefix) = (tally.stream, tally.bounds, tally.prefix);
        match slow::Object::read(text) {
            Ok(object) => tally.count(object.reading(stream, bounds), |_| {
                object.faults(stream, bounds, prefix)
            }),
            Err(fault) => tally.count(Err(fault), Faults::from),
        }
    }
}

/// What came of the readings so far.
struct Tally<'b, F> {
    outcome: Outcome,
    take: F,
    prefix: Option<&'b str>,
    stream: Stream,
    bounds: &'b Bounds,
}

impl<F: FnMut(Reading<'_>)> Tally<'_, F> {
    /// Counts what came of one reading; `all` finds every fault of one that has a first.
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

    /// Counts one value of a tape.
    #[inline]
    fn nodes(&mut self, nodes: &[simd_json::Node<'_>]) {
        let (stream, bounds, prefix) = (self.stream, self.bounds, self.prefix);
        self.count(tape::reading(stream, nodes, bounds), |first| {
            tape::faults(stream, nodes, bounds, prefix).unwrap_or_else(|| first.into())
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
