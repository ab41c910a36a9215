//! A position in the log, as one number.

use crate::wal::header::SEGMENT_HEADER_BYTES;

/// A position in one run of the log: a segment and an offset in it, always the start of a frame.
///
/// Order:  the order in which frames were written; one number, so that the database can compare positions as plain
///         `bigint`s
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position(u64);

impl Position {
    /// The start of a run.
    pub const START: Position = Position(SEGMENT_HEADER_BYTES as u64);

    /// Makes a position from a segment's number in its run and an offset in that segment.
    pub const fn new(segment: u32, offset: u32) -> Self {
        Position(((segment as u64) << 32) | offset as u64)
    }

    /// The first frame of a segment.
    pub const fn start_of(segment: u32) -> Self {
        Position::new(segment, SEGMENT_HEADER_BYTES)
    }

    /// The segment's number in its run.
    pub const fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Bytes from the segment's start.
    pub const fn offset(self) -> u32 {
        self.0 as u32
    }

    /// As a PostgreSQL `bigint`; segment numbers stay below 2^31.
    pub const fn to_i64(self) -> i64 {
        self.0 as i64
    }

    /// From a PostgreSQL `bigint`.
    pub const fn from_i64(value: i64) -> Self {
        Position(value as u64)
    }

    /// The position some bytes further in the same segment.
    #[must_use]
    pub const fn plus(self, bytes: u32) -> Self {
        Position(self.0 + bytes as u64)
    }
}
