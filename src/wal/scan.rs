//! Reads a segment frame by frame, from its first frame to its end. Recovery, inspection and repair share it.

use std::io;
use std::ops::Range;

use super::frame::{FRAME_ALIGN, FRAME_BYTES_MAX, Frame, FrameKind, Position, Salt};
use super::header::SEGMENT_HEADER_BYTES;
use super::storage::SegmentFile;

/// What a scan meets, in the order of the file.
pub(super) enum Met<'a> {
    /// An intact frame.
    Frame(Frame<'a>),
    /// Bytes that are not a frame, followed by an intact frame.
    Hole(Range<u64>),
}

/// Where the intact frames of a segment end.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    /// The position after the last intact data frame, or that of the end frame.
    pub(super) offset: u64,
    /// Whether there is an end frame.
    pub(super) has_end_frame: bool,
}

/// Scans a segment up to its end frame or, if it has none, to the end of the file.
///
/// # Errors
/// I/O errors, and errors of `visit`.
pub(super) fn scan(
    file: &dyn SegmentFile,
    salt: Salt,
    segment: u32,
    mut visit: impl FnMut(Met<'_>) -> io::Result<()>,
) -> io::Result<End> {
    let size = file.size_bytes()?;
    // Large reads, because a frame may begin anywhere and must lie in the buffer completely.
    let mut buffer = vec![0; 4 * FRAME_BYTES_MAX];
    let mut from = u64::from(SEGMENT_HEADER_BYTES);
    let mut filled = file.read_at(&mut buffer, from)?;
    let (mut at, mut intact) = (from, from);
    while at < size {
        let known = from + filled as u64;
        if at + FRAME_BYTES_MAX as u64 > known && known < size {
            from = at;
            filled = file.read_at(&mut buffer, from)?;
        }
        let place = Position::new(segment, at as u32);
        let Some(bytes) = buffer[..filled].get((at - from) as usize..) else {
            break;
        };
        let Ok(frame) = Frame::decode_any(bytes, salt, place) else {
            at += FRAME_ALIGN as u64;
            continue;
        };
        if intact < at {
            visit(Met::Hole(intact..at))?;
        }
        visit(Met::Frame(frame))?;
        if frame.kind == FrameKind::End {
            return Ok(End {
                offset: at,
                has_end_frame: true,
            });
        }
        at += u64::from(frame.len_bytes());
        intact = at;
    }
    Ok(End {
        offset: intact,
        has_end_frame: false,
    })
}
