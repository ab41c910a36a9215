//! The header of a segment: its run, and its number in the run.

use uuid::Uuid;

use super::bytes::{array, u16_at, u32_at, u64_at};
use crate::reading::Timestamp;

/// The size of a segment's header: one page, so that no frame shares the header's page.
pub const SEGMENT_HEADER_BYTES: u32 = 4096;
const HEADER_MAGIC: [u8; 8] = *b"WATTWAL1";
const HEADER_USED: usize = 52;
/// The version that this code writes. Other versions are refused, never misread.
pub const FORMAT_VERSION: u16 = 1;

/// The most shards that a log can have.
pub const SHARDS_MAX: u16 = 64;

/// The header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The run that wrote the segment.
    pub run_id: Uuid,
    /// The run's number among this log's runs.
    pub run_sequence: u64,
    /// The segment's number in its run, from 0.
    pub segment: u32,
    /// The number of shards of the run.
    pub shards: u16,
    /// When the segment was begun.
    pub created_at: Timestamp,
}

/// Why a segment's header cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It is torn, damaged, or not a header at all.
    #[error("its header is damaged")]
    Damaged,
    /// It was written by another version of the format.
    #[error("its format has version {0}, but this program reads version {FORMAT_VERSION}")]
    Version(u16),
}

impl SegmentHeader {
    /// Encodes the header as the first page of a segment.
    pub fn encode(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(SEGMENT_HEADER_BYTES as usize);
        page.extend_from_slice(&HEADER_MAGIC);
        page.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        page.extend_from_slice(&self.shards.to_le_bytes());
        page.extend_from_slice(&self.segment.to_le_bytes());
        page.extend_from_slice(self.run_id.as_bytes());
        page.extend_from_slice(&self.run_sequence.to_le_bytes());
        page.extend_from_slice(&self.created_at.as_micros().to_le_bytes());
        let crc = crc32c::crc32c(&page);
        page.extend_from_slice(&crc.to_le_bytes());
        page.resize(SEGMENT_HEADER_BYTES as usize, 0);
        page
    }

    /// Decodes a header from a segment's first page.
    ///
    /// # Errors
    /// [`HeaderError`]: do not read anything in the segment as data.
    pub fn decode(page: &[u8]) -> Result<Self, HeaderError> {
        let used = page.get(..HEADER_USED).ok_or(HeaderError::Damaged)?;
        if used[..8] != HEADER_MAGIC {
            return Err(HeaderError::Damaged);
        }
        let version = u16_at(used, 8);
        if version != FORMAT_VERSION {
            return Err(HeaderError::Version(version));
        }
        if crc32c::crc32c(&used[..HEADER_USED - 4]) != u32_at(used, HEADER_USED - 4) {
            return Err(HeaderError::Damaged);
        }
        let shards = u16_at(used, 10);
        if shards == 0 || shards > SHARDS_MAX {
            return Err(HeaderError::Damaged);
        }
        Ok(SegmentHeader {
            run_id: Uuid::from_bytes(array(used, 16)),
            run_sequence: u64_at(used, 32),
            segment: u32_at(used, 12),
            shards,
            created_at: Timestamp::from_micros(u64_at(used, 40) as i64),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_round_trips_and_other_versions_are_refused() {
        let header = SegmentHeader {
            run_id: Uuid::from_u128(0x1234_5678),
            run_sequence: 5,
            segment: 6,
            shards: 64,
            created_at: Timestamp::from_micros(123),
        };
        let page = header.encode();
        assert_eq!(page.len(), SEGMENT_HEADER_BYTES as usize);
        assert_eq!(SegmentHeader::decode(&page), Ok(header));
        let mut newer = page.clone();
        newer[8] = 2;
        assert_eq!(SegmentHeader::decode(&newer), Err(HeaderError::Version(2)));
        for bit in 16 * 8..HEADER_USED * 8 {
            let mut bad = page.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&bad), Err(HeaderError::Damaged));
        }
    }
}
