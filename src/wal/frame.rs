//! The format of the log, version 1.
//!
//! A log is a directory of segments; a segment belongs to a run (one opening of the log):
//!
//! ```text
//! segment   header (4096 bytes) · frame · frame · … · end frame · zeros or leftovers
//! header    "WATTWAL1" · version u16 · shards u16 · segment u32 · run id [16] · run sequence u64
//!           · created i64 µs · crc32c u32 · zeros
//! frame     magic u32 · kind u8 · 0 u8 · shards u16 · bytes u32 · segment u32 · offset u32
//!           · crc32c u32 · appended i64 µs · shards × table · sections · zeros to a multiple of 8
//! table     section bytes u32 · readings [u32; 2] · 0 u32 · readings before [u64; 2]
//! ```
//!
//! All numbers are little-endian. [`super::record`] describes the records in a section. A position is a segment's
//! number and the offset of a frame in it. The database stores it as one `bigint`.
//!
//! A frame is a group of requests, written with one write, one checksum and one fdatasync. Each section holds the
//! records of one shard, so that a reader decodes only its own. The checksum is a CRC32C of the whole frame except
//! the checksum itself. It is salted with the run's id and covers the frame's position, so that old frames in a
//! recycled file, or a frame at the wrong position, are never taken for data. The counts of earlier readings are
//! cumulative over the run. So the backlog after a checkpoint is known without reading it, and after damage the
//! next intact frame shows how many readings are lost.
//!
//! # Files
//!
//! | name | what it is |
//! | --- | --- |
//! | `<sequence>-<run id>-<segment>.wal` | a segment; names sort in the order of the log |
//! | `spare-<number>` | a segment for future use: zero-filled and synced, or recycled |
//! | `sealing` | an unfinished copy of a run's last segment; ignored and removed at a start |
//! | `lock` | locked for the life of the process that holds the log |
//! | `gone` | the retired runs, and what they held ([`super::retired_runs`]) |
//! | `gap-accepted` | the readings that an operator has accepted as lost |
//! | `database` | the id of the database that the log is bound to |
//! | `database.new` | reserved space for `database` |
//!
//! A segment is preallocated, so that an append changes neither the file's length nor its block map. Renaming a
//! spare makes it part of a run. Its header is written with its first frame, and the directory is synced before
//! that frame is acknowledged. When a run ends, its last segment is truncated.
//!
//! # Recovery
//!
//! 1. Each opening begins a new run. An older run is never appended to, so that no position is used twice. A run
//!    has no segment before its first append.
//! 2. A run ends at the end frame of its last segment. Without one, it ends after the last intact frame. The
//!    intact frames are then copied to a new file with an end frame, which is synced and renamed over the old one.
//!    They are copied because, after a failed sync, a process may read data from the page cache that is not on the
//!    disk. If there is no space for a copy, the same bytes are written again in place.
//! 3. A broken frame without an intact one after it was never acknowledged, and is dropped. So is a last segment
//!    without any intact frame.
//! 4. An intact frame *after* a broken one proves damage, because a frame is written only after the previous one
//!    was synced. So do a missing segment, a damaged header with two intact frames after it, and a segment of
//!    another run under this run's number. The log is then refused and left unchanged; continue with
//!    `wattgate wal verify` and `repair`.
//! 5. Another version of the format is refused. Opening reads only the last segment of each run, so that it takes
//!    no longer for a larger log. Readers verify every frame they pass.
//! 6. A segment is retired when every shard's checkpoint has passed it and it is no longer retained. If the disk
//!    has no space for another segment, retained ones are retired too. The oldest goes first, and the directory is
//!    synced after each, so that a power cut leaves no gap.

use uuid::Uuid;

use super::bytes::{u16_at, u32_at, u64_at};
use super::header::SHARDS_MAX;
use crate::reading::{PerStream, StreamCounts, Timestamp};

mod position;

pub use position::Position;

const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"WFRM");
const FRAME_FIXED: usize = 32;
const TABLE_ENTRY: usize = 32;
const LENGTH_AT: usize = 8;
const CRC_AT: usize = 20;
/// Frames begin at multiples of this.
pub const FRAME_ALIGN: usize = 8;

/// The largest frame. It bounds a reader's memory and the time of one write.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// The largest part of a request that must fit in one frame. Smaller chunks waste less at the end of a segment;
/// larger ones need fewer frames for a very large request.
pub const CHUNK_BYTES_MAX: usize = 128 << 10;

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// Holds readings.
    Data,
    /// The last frame of its segment. The run continues in the next segment, or has ended.
    End,
}

/// One shard's part of a frame that is about to be written.
#[derive(Debug, Default, Clone)]
pub struct Section {
    /// The records, concatenated.
    pub bytes: Vec<u8>,
    /// The number of records of each stream.
    pub readings: PerStream<u32>,
}

/// The salt of all checksums of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Salt(u32);

impl Salt {
    /// The salt of a run.
    pub fn of(run_id: Uuid) -> Self {
        Salt(crc32c::crc32c(run_id.as_bytes()))
    }
}

/// The bytes that a frame needs in addition to its records.
pub const fn frame_overhead_bytes(shards: u16) -> usize {
    FRAME_FIXED + TABLE_ENTRY * shards as usize + (FRAME_ALIGN - 1)
}

/// The bytes of an end frame.
pub const fn end_frame_bytes(shards: u16) -> usize {
    (FRAME_FIXED + TABLE_ENTRY * shards as usize).next_multiple_of(FRAME_ALIGN)
}

/// The fields of a frame, apart from its shards' sections.
#[derive(Debug, Clone, Copy)]
pub struct FrameHead {
    /// Its kind.
    pub kind: FrameKind,
    /// The salt of its run.
    pub salt: Salt,
    /// Its position in the log.
    pub at: Position,
    /// When it is appended, which is when its readings count as received.
    pub appended_at: Timestamp,
}

/// Encodes one frame for its position in the log and appends it to `out`.
///
/// Shape:  `sections` and `before` have one entry per shard; the frame's length is a multiple of [`FRAME_ALIGN`]
///         and at most [`FRAME_BYTES_MAX`]
pub fn encode_frame(
    head: &FrameHead,
    sections: &[Section],
    before: &[StreamCounts],
    out: &mut Vec<u8>,
) {
    let start = out.len();
    let body: usize = sections.iter().map(|s| s.bytes.len()).sum();
    let bytes = (FRAME_FIXED + TABLE_ENTRY * sections.len() + body).next_multiple_of(FRAME_ALIGN);
    out.reserve(bytes);
    out.extend_from_slice(&FRAME_MAGIC.to_le_bytes());
    out.push(match head.kind {
        FrameKind::Data => 1,
        FrameKind::End => 2,
    });
    out.push(0);
    out.extend_from_slice(&(sections.len() as u16).to_le_bytes());
    out.extend_from_slice(&(bytes as u32).to_le_bytes());
    out.extend_from_slice(&head.at.segment().to_le_bytes());
    out.extend_from_slice(&head.at.offset().to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&head.appended_at.as_micros().to_le_bytes());
    for (section, before) in sections.iter().zip(before) {
        out.extend_from_slice(&(section.bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(&section.readings.meter.to_le_bytes());
        out.extend_from_slice(&section.readings.vehicle.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&before.meter.to_le_bytes());
        out.extend_from_slice(&before.vehicle.to_le_bytes());
    }
    for section in sections {
        out.extend_from_slice(&section.bytes);
    }
    out.resize(start + bytes, 0);
    let crc = checksum(head.salt, &out[start..]);
    out[start + CRC_AT..start + CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Encodes a frame without readings.
pub fn encode_empty(head: &FrameHead, before: &[StreamCounts]) -> Vec<u8> {
    let mut out = Vec::new();
    let sections = vec![Section::default(); before.len()];
    encode_frame(head, &sections, before, &mut out);
    out
}

/// Encodes a frame of the given length without readings, to replace a damaged one.
///
/// Shape:  `bytes` is a multiple of [`FRAME_ALIGN`], at least [`end_frame_bytes`] and at most
///         [`FRAME_BYTES_MAX`]
pub fn encode_filler(head: &FrameHead, bytes: usize, before: &[StreamCounts]) -> Vec<u8> {
    let mut out = encode_empty(head, before);
    out.resize(bytes, 0);
    out[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&(bytes as u32).to_le_bytes());
    let crc = checksum(head.salt, &out);
    out[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    out
}

/// The checksum of a frame, without its own four bytes.
fn checksum(salt: Salt, frame: &[u8]) -> u32 {
    let head = crc32c::crc32c_append(salt.0, &frame[..CRC_AT]);
    crc32c::crc32c_append(head, &frame[CRC_AT + 4..])
}

/// One intact frame, borrowed from the bytes that were read.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Its kind.
    pub kind: FrameKind,
    /// When it was appended, which is when its readings count as received.
    pub appended_at: Timestamp,
    /// Its position.
    pub position: Position,
    bytes: &'a [u8],
    shards: u16,
}

/// An intact frame without its bytes, for a caller that must borrow them again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) kind: FrameKind,
    appended_at: Timestamp,
    position: Position,
    bytes: usize,
    shards: u16,
}

impl Found {
    /// The frame that [`Frame::decode`] has found in these bytes.
    ///
    /// The checksum is not verified again, so the bytes must be unchanged.
    pub(super) fn in_bytes(self, bytes: &[u8]) -> Frame<'_> {
        Frame {
            kind: self.kind,
            appended_at: self.appended_at,
            position: self.position,
            bytes: &bytes[..self.bytes],
            shards: self.shards,
        }
    }
}

/// One shard's part of a frame.
#[derive(Debug, Clone, Copy)]
pub struct ShardSection<'a> {
    /// The records, concatenated.
    pub records: &'a [u8],
    /// The number of records of each stream.
    pub readings: PerStream<u32>,
    /// How many readings of this run and shard earlier frames hold.
    pub before: StreamCounts,
}

impl ShardSection<'_> {
    /// How many readings of this run and shard there are up to the end of this frame.
    pub fn after(&self) -> StreamCounts {
        self.before + self.readings.map(u64::from)
    }
}

/// Why no frame can be decoded at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// The frame may continue past the given bytes. At least this many bytes are needed.
    Short(usize),
    /// No intact frame begins here.
    Invalid,
}

impl<'a> Frame<'a> {
    /// Decodes the frame at a position.
    ///
    /// Shape:  `bytes` starts at `at` and may hold more than the frame
    ///
    /// # Errors
    /// [`FrameError::Short`]: read more and call again. [`FrameError::Invalid`]: the frame is torn or damaged, or
    /// nothing was ever written here.
    pub fn decode(
        bytes: &'a [u8],
        salt: Salt,
        at: Position,
        shards: u16,
    ) -> Result<Self, FrameError> {
        let table_end = FRAME_FIXED + TABLE_ENTRY * usize::from(shards);
        let Some(head) = bytes.get(..FRAME_FIXED) else {
            return Err(FrameError::Short(table_end));
        };
        let kind = match head[4] {
            1 => FrameKind::Data,
            2 => FrameKind::End,
            _ => return Err(FrameError::Invalid),
        };
        let len = u32_at(head, 8) as usize;
        let in_place = u32_at(head, 0) == FRAME_MAGIC
            && u16_at(head, 6) == shards
            && u32_at(head, 12) == at.segment()
            && u32_at(head, 16) == at.offset()
            && (table_end..=FRAME_BYTES_MAX).contains(&len)
            && len.is_multiple_of(FRAME_ALIGN);
        if !in_place {
            return Err(FrameError::Invalid);
        }
        let frame = bytes.get(..len).ok_or(FrameError::Short(len))?;
        if checksum(salt, frame) != u32_at(head, CRC_AT) {
            return Err(FrameError::Invalid);
        }
        let frame = Frame {
            kind,
            appended_at: Timestamp::from_micros(u64_at(head, 24) as i64),
            position: at,
            bytes: frame,
            shards,
        };
        let body: usize = (0..shards).map(|s| frame.entry(s).0 as usize).sum();
        if table_end + body > len {
            return Err(FrameError::Invalid);
        }
        Ok(frame)
    }

    /// The frame without its bytes.
    pub(super) fn found(&self) -> Found {
        Found {
            kind: self.kind,
            appended_at: self.appended_at,
            position: self.position,
            bytes: self.bytes.len(),
            shards: self.shards,
        }
    }

    /// Decodes a frame of a run whose number of shards is unknown because its header is damaged.
    ///
    /// # Errors
    /// As [`Frame::decode`].
    pub fn decode_any(bytes: &'a [u8], salt: Salt, at: Position) -> Result<Self, FrameError> {
        let Some(head) = bytes.get(..FRAME_FIXED) else {
            return Err(FrameError::Short(FRAME_FIXED));
        };
        match u16_at(head, 6) {
            shards @ 1..=SHARDS_MAX => Frame::decode(bytes, salt, at, shards),
            _ => Err(FrameError::Invalid),
        }
    }

    /// The whole frame as it is in the file.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The number of shards that the frame has sections for.
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// The frame's length in bytes.
    pub fn len_bytes(&self) -> u32 {
        self.bytes.len() as u32
    }

    /// The position right after this frame.
    pub fn end(&self) -> Position {
        self.position.plus(self.len_bytes())
    }

    /// One shard's section.
    ///
    /// Shape:  `shard` below the run's number of shards
    pub fn section(&self, shard: u16) -> ShardSection<'a> {
        let skip: usize = (0..shard).map(|s| self.entry(s).0 as usize).sum();
        let start = FRAME_FIXED + TABLE_ENTRY * usize::from(self.shards) + skip;
        let (len, readings, before) = self.entry(shard);
        ShardSection {
            records: &self.bytes[start..start + len as usize],
            readings,
            before,
        }
    }

    fn entry(&self, shard: u16) -> (u32, PerStream<u32>, StreamCounts) {
        let at = FRAME_FIXED + TABLE_ENTRY * usize::from(shard);
        let entry = &self.bytes[at..at + TABLE_ENTRY];
        (
            u32_at(entry, 0),
            PerStream {
                meter: u32_at(entry, 4),
                vehicle: u32_at(entry, 8),
            },
            PerStream {
                meter: u64_at(entry, 16),
                vehicle: u64_at(entry, 24),
            },
        )
    }
}

#[cfg(test)]
mod tests;
