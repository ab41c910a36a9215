//! Ends a run that was not closed.
//!
//! Data that an earlier process failed to sync can still be read from the page cache, without being on the disk.
//! So the intact frames are written again, closed with an end frame, and synced.

use std::collections::VecDeque;
use std::io;

use super::frame::{FRAME_BYTES_MAX, FrameHead, FrameKind, Position, Salt, encode_empty};
use super::storage::{SegmentFile, Storage, is_full};
use crate::reading::{StreamCounts, Timestamp};

/// The unfinished copy of a last segment. It is ignored and removed at a start.
pub(super) const SEAL_NAME: &str = "sealing";

/// The last segment of a run without an end frame.
pub(super) struct Unended<'a> {
    pub(super) storage: &'a dyn Storage,
    /// The name of its file.
    pub(super) name: &'a str,
    pub(super) file: &'a dyn SegmentFile,
    pub(super) salt: Salt,
    /// The position after its last intact frame.
    pub(super) end: Position,
    /// The readings of each shard in the whole run, up to there.
    pub(super) appended: &'a [StreamCounts],
    pub(super) now: Timestamp,
}

impl Unended<'_> {
    /// Ends the segment in a copy that then takes its name. If a full disk has no space for a copy, spares are
    /// removed to make some. Without spares, it is ended in place.
    ///
    /// Shape:  the file's length in bytes
    /// Blocks: until it is durable
    pub(super) fn seal(&self, spares: &mut VecDeque<String>) -> io::Result<u64> {
        loop {
            match self.in_a_copy() {
                // Give up a spare: the log must open, because only storing its readings frees more space.
                Err(error) if is_full(&error) => match spares.pop_back() {
                    Some(spare) => self.storage.remove(&spare)?,
                    None => {
                        // The copy may not even exist.
                        drop(self.storage.remove(SEAL_NAME));
                        return self.in_place();
                    }
                },
                result => return result,
            }
        }
    }

    fn in_a_copy(&self) -> io::Result<u64> {
        let copy = self.storage.create(SEAL_NAME)?;
        self.write_to(&*copy)?;
        self.storage.rename(SEAL_NAME, self.name)?;
        self.storage.sync()?;
        copy.size_bytes()
    }

    /// Writes the same bytes again in place.
    ///
    /// That makes the pages dirty again, so that the next sync writes them to the disk. The bytes do not change,
    /// so a crash in between loses nothing.
    fn in_place(&self) -> io::Result<u64> {
        self.write_to(self.file)?;
        self.file.size_bytes()
    }

    fn write_to(&self, to: &dyn SegmentFile) -> io::Result<()> {
        let end = u64::from(self.end.offset());
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        let mut at = 0;
        while at < end {
            let len = (end - at).min(buffer.len() as u64) as usize;
            let read = self.file.read_at(&mut buffer[..len], at)?;
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            to.write_all_at(&buffer[..read], at)?;
            at += read as u64;
        }
        let head = FrameHead {
            kind: FrameKind::End,
            salt: self.salt,
            at: self.end,
            appended_at: self.now,
        };
        to.write_all_at(&encode_empty(&head, self.appended), end)?;
        to.sync_data()
    }
}
