//! The result of decoding: counts, the errors of single readings, or why the whole body is refused.

use std::borrow::Cow;

use crate::reading::Stream;

/// The most errors that a response lists. If there are more, `errors_truncated` is set.
///
/// Why 100: a person corrects only the first few, and the response to a hostile body stays small.
pub const ERRORS_MAX: usize = 100;

/// The most errors of one reading that are listed.
///
/// Why 16: that is twice the number of fields, and one hostile reading cannot fill the list.
pub const FAULTS_MAX: usize = 16;

/// The rule that a reading broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The line is not JSON (only NDJSON; in other formats the body is refused).
    Malformed,
    /// The line nests deeper than [`DEPTH_MAX`](super::DEPTH_MAX) (only NDJSON).
    TooDeep,
    /// JSON, but not an object.
    NotAnObject,
    /// A required field is absent.
    Missing,
    /// A field that the stream does not have.
    UnknownField,
    /// A field that is given twice.
    DuplicateField,
    /// A value of the wrong JSON type, including `null` and numbers in strings.
    WrongType,
    /// A number outside the field's bounds, or too large for a double.
    OutOfRange,
    /// Not an id of a device or session.
    InvalidId,
    /// A text that is not one of the field's values.
    InvalidValue,
    /// Not an RFC 3339 time with an offset.
    InvalidTimestamp,
    /// Further ahead of the gateway's clock than allowed.
    InFuture,
    /// Before 2000, or older than the gateway accepts.
    TooOld,
    /// Both `sessionId` and `meterId`.
    Conflict,
    /// A device that the sender may not report for.
    ForbiddenDevice,
}

impl Code {
    /// Every code, in the order of [`Code::index`].
    pub const ALL: [Code; 15] = [
        Code::Malformed,
        Code::TooDeep,
        Code::NotAnObject,
        Code::Missing,
        Code::UnknownField,
        Code::DuplicateField,
        Code::WrongType,
        Code::OutOfRange,
        Code::InvalidId,
        Code::InvalidValue,
        Code::InvalidTimestamp,
        Code::InFuture,
        Code::TooOld,
        Code::Conflict,
        Code::ForbiddenDevice,
    ];

    /// The index of this code in [`Code::ALL`] and in [`Outcome::rejected_by_code`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The code in responses and in the metric's label, in snake case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Code::Malformed => "malformed",
            Code::TooDeep => "too_deep",
            Code::NotAnObject => "not_an_object",
            Code::Missing => "missing",
            Code::UnknownField => "unknown_field",
            Code::DuplicateField => "duplicate_field",
            Code::WrongType => "wrong_type",
            Code::OutOfRange => "out_of_range",
            Code::InvalidId => "invalid_id",
            Code::InvalidValue => "invalid_value",
            Code::InvalidTimestamp => "invalid_timestamp",
            Code::InFuture => "in_future",
            Code::TooOld => "too_old",
            Code::Conflict => "conflict",
            Code::ForbiddenDevice => "forbidden_device",
        }
    }
}

/// One rule that a reading broke. A reading that broke several has one error for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadingError {
    /// The reading's index from 0: its position in an array, or among the non-empty lines of NDJSON.
    pub index: u64,
    /// The field at fault, as spelled in the body; a long unknown name is shortened. `None` means the reading as a
    /// whole.
    pub field: Option<Cow<'static, str>>,
    /// The rule.
    pub code: Code,
    /// The rule in words, for the developer of the device.
    pub message: String,
}

/// The result for a body's readings.
///
/// Order:  `errors` by index; within a reading, first its fields in the order of the body, then the absent fields
///         in the order of the documentation, then conflicts between fields
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Readings accepted.
    pub accepted: u64,
    /// Readings rejected, whether or not `errors` lists them.
    pub rejected: u64,
    /// The first [`ERRORS_MAX`] errors, at most [`FAULTS_MAX`] of one reading.
    pub errors: Vec<ReadingError>,
    /// Whether there are more errors than `errors` lists.
    pub errors_truncated: bool,
    /// Rejected readings by the [`Code::index`] of their first error. Their sum is `rejected`.
    pub rejected_by_code: [u64; Code::ALL.len()],
    /// Fields of accepted readings that were ignored.
    pub fields_ignored: u64,
}

impl Outcome {
    /// Counts a rejected reading by the first rule that it broke, and lists its errors if there is room. `all`
    /// collects the errors, and is called only if there is room.
    pub(super) fn reject(&mut self, first: Fault, all: impl FnOnce(Fault) -> Faults) {
        let index = self.accepted + self.rejected;
        self.rejected += 1;
        self.rejected_by_code[first.code.index()] += 1;
        let room = ERRORS_MAX - self.errors.len();
        if room == 0 {
            self.errors_truncated = true;
            return;
        }
        let faults = all(first);
        self.errors_truncated |= faults.more || faults.list.len() > room;
        let listed = faults.list.into_iter().take(room);
        self.errors
            .extend(listed.map(|fault| fault.error_of(index)));
    }
}

/// The rules that one reading broke, at most [`FAULTS_MAX`].
#[derive(Debug, Default)]
pub(super) struct Faults {
    list: Vec<Fault>,
    more: bool,
}

impl Faults {
    pub(super) fn push(&mut self, fault: Fault) {
        if self.list.len() == FAULTS_MAX {
            self.more = true;
        } else {
            self.list.push(fault);
        }
    }

    /// Whether a further fault would change nothing.
    pub(super) fn is_full(&self) -> bool {
        self.more
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Faults {
            list: vec![fault],
            more: false,
        }
    }
}

/// A broken rule. Its message is formatted only if the error is listed.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) field: Option<&'static str>,
    pub(super) code: Code,
    pub(super) message: Message,
}

impl Fault {
    fn error_of(self, index: u64) -> ReadingError {
        let message = self.message.to_string();
        ReadingError {
            index,
            field: match self.message {
                Message::Unknown { key, .. } => Some(Cow::Owned(key)),
                _ => self.field.map(Cow::Borrowed),
            },
            code: self.code,
            message,
        }
    }
}

/// The message of a [`Fault`], cheap to construct.
#[derive(Debug, thiserror::Error)]
pub(super) enum Message {
    #[error("{0}")]
    Text(String),
    #[error("{0}")]
    Plain(&'static str),
    #[error("{0} {1}")]
    Field(&'static str, &'static str),
    #[error("{name} must be between {low} and {high}")]
    Range {
        name: &'static str,
        low: f64,
        high: f64,
    },
    #[error("{0} {1}")]
    Id(&'static str, crate::reading::IdError),
    #[error("{key:?} is not a field of a {stream} reading; its fields are {fields}", fields = super::names::all(*stream))]
    Unknown { key: String, stream: Stream },
    #[error("{0} {1} {2}")]
    Time(&'static str, &'static str, crate::reading::Timestamp),
}

/// Why a body is refused as a whole. Nothing in it was accepted.
///
/// The sender must correct the body; sending it again unchanged cannot succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Only white space, `[]`, or NDJSON with empty lines only.
    #[error("the body holds no readings")]
    Empty,
    /// The body begins with a UTF-8 or UTF-16 byte order mark.
    #[error("the body begins with a byte order mark; send UTF-8 without one")]
    ByteOrderMark,
    /// The body is not UTF-8.
    #[error("the body is not valid UTF-8 (at byte {offset})")]
    NotUtf8 {
        /// The first invalid byte, from 0.
        offset: usize,
    },
    /// The body is not JSON.
    #[error("the body is not valid JSON: {message} (line {line}, column {column})")]
    Malformed {
        /// What the parser expected.
        message: String,
        /// The line, from 1.
        line: usize,
        /// The byte within the line, from 1.
        column: usize,
    },
    /// The body nests deeper than [`DEPTH_MAX`](super::DEPTH_MAX).
    #[error(
        "the body nests deeper than {} levels (at byte {offset})",
        super::DEPTH_MAX
    )]
    TooDeep {
        /// The offset of the first bracket beyond the limit, from 0.
        offset: usize,
    },
}

impl BodyError {
    /// Every code that [`BodyError::code`] returns, for the metric's labels.
    pub const CODES: [&'static str; 5] = [
        "empty",
        "byte_order_mark",
        "not_utf8",
        "malformed",
        "too_deep",
    ];

    /// The code in responses and in the metric of rejected readings, where a refused body counts as 1.
    pub const fn code(&self) -> &'static str {
        match self {
            BodyError::Empty => "empty",
            BodyError::ByteOrderMark => "byte_order_mark",
            BodyError::NotUtf8 { .. } => "not_utf8",
            BodyError::Malformed { .. } => "malformed",
            BodyError::TooDeep { .. } => "too_deep",
        }
    }
}
