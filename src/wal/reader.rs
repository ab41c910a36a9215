//! Reads one shard of one run, frame by frame, from a cursor.
//!
//! A reader never passes the synced position, because unsynced bytes may vanish and their position may be used
//! again.

use std::io;
use std::sync::Arc;

use super::catalog::Catalog;
use super::frame::{FRAME_BYTES_MAX, Found, Frame, FrameKind, Position, Salt, ShardSection};
use super::header::SegmentHeader;
use super::progress::Progress;
use super::storage::SegmentFile;
use crate::reading::Timestamp;

/// The size of one read. A frame of any size fits.
const READ_BYTES: usize = 2 * FRAME_BYTES_MAX;

/// Why the log cannot be read at a position that must hold data.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// An error of the system.
    #[error("cannot read the write-ahead log: {0}")]
    Io(#[from] io::Error),
    /// An acknowledged frame is no longer intact.
    #[error(
        "the write-ahead log is damaged in {segment} at byte {offset}; stop the gateway: \
         `wattgate wal verify` lists the damage, `wattgate wal repair` copies the intact frames"
    )]
    Damaged {
        /// The file.
        segment: String,
        /// The offset in the file.
        offset: u32,
    },
    /// The segment was retired: the database was restored to a checkpoint older than what is retained.
    #[error("segment {number} of run {run} is no longer in the write-ahead log")]
    Retired {
        /// The run's number in the order of runs.
        run: u64,
        /// The segment's number.
        number: u32,
    },
}

/// What is at the cursor.
#[derive(Debug)]
pub enum Next<'a> {
    /// A frame. The shard's section in it may be empty.
    Frame(Item<'a>),
    /// Nothing more is durable yet.
    CaughtUp,
    /// The run has ended here.
    Ended,
}

/// One frame as one shard sees it.
#[derive(Debug)]
pub struct Item<'a> {
    /// The frame's position.
    pub position: Position,
    /// The position after it.
    pub end: Position,
    /// When its readings were received.
    pub received_at: Timestamp,
    /// The shard's records.
    pub section: ShardSection<'a>,
}

struct OpenSegment {
    number: u32,
    name: String,
    file: Arc<dyn SegmentFile>,
}

/// A cursor over one shard of one run.
pub struct Reader {
    catalog: Arc<Catalog>,
    progress: Arc<Progress>,
    run: u64,
    salt: Salt,
    shards: u16,
    shard: u16,
    cursor: Position,
    segment: Option<OpenSegment>,
    buffer: Vec<u8>,
    /// The range of the open segment that is in the buffer.
    buffered: std::ops::Range<u64>,
}

impl Reader {
    /// Starts at a position: a checkpoint, or the oldest position that a run still has.
    pub(super) fn new(
        catalog: Arc<Catalog>,
        progress: Arc<Progress>,
        run: &super::catalog::Run,
        shard: u16,
        cursor: Position,
    ) -> Self {
        Reader {
            catalog,
            progress,
            run: run.sequence,
            salt: run.salt(),
            shards: run.shards,
            shard,
            cursor,
            segment: None,
            buffer: Vec::new(),
            buffered: 0..0,
        }
    }

    /// The position of the next frame.
    pub fn cursor(&self) -> Position {
        self.cursor
    }

    /// Moves the cursor back to an earlier frame.
    pub fn rewind(&mut self, to: Position) {
        self.give_back();
        self.cursor = to;
    }

    /// Reads the next frame and moves past it.
    ///
    /// Blocks: on the disk if the segment is not in the page cache; do not call it on an async worker
    ///
    /// # Errors
    /// [`ReadError`]: the cursor did not move.
    pub fn next_frame(&mut self) -> Result<Next<'_>, ReadError> {
        loop {
            let end = self.catalog.run_end(self.run);
            if end.is_some_and(|end| self.cursor >= end) {
                return Ok(Next::Ended);
            }
            let limit = end.unwrap_or_else(|| self.progress.synced());
            if self.cursor >= limit {
                return Ok(Next::CaughtUp);
            }
            self.open()?;
            let found = self.find(limit)?;
            if found.kind == FrameKind::End {
                self.cursor = Position::start_of(self.cursor.segment() + 1);
                continue;
            }
            let at = self.cursor;
            let skip = (u64::from(at.offset()) - self.buffered.start) as usize;
            let frame = found.in_bytes(&self.buffer[skip..]);
            self.cursor = frame.end();
            return Ok(Next::Frame(Item {
                position: at,
                end: frame.end(),
                received_at: frame.appended_at,
                section: frame.section(self.shard),
            }));
        }
    }

    /// Distinguishes damage from a segment that was retired and recycled while it was read. The latter happens if
    /// a restored database has an older checkpoint.
    fn damage(&self, at: Position) -> ReadError {
        let number = at.segment();
        if self.catalog.segment(self.run, number).is_none() {
            return ReadError::Retired {
                run: self.run,
                number,
            };
        }
        let segment = self
            .segment
            .as_ref()
            .map(|s| s.name.clone())
            .unwrap_or_default();
        ReadError::Damaged {
            segment,
            offset: at.offset(),
        }
    }

    /// Finds the intact frame at the cursor, reading more of the file if it is not in the buffer.
    fn find(&mut self, limit: Position) -> Result<Found, ReadError> {
        let offset = u64::from(self.cursor.offset());
        for attempt in 0..2 {
            if self.buffered.contains(&offset) {
                let skip = (offset - self.buffered.start) as usize;
                let filled = (self.buffered.end - self.buffered.start) as usize;
                let bytes = &self.buffer[skip..filled];
                if let Ok(frame) = Frame::decode(bytes, self.salt, self.cursor, self.shards) {
                    return Ok(frame.found());
                }
            }
            if attempt == 1 {
                break;
            }
            // The buffer may have been filled before the last sync and end in zeros. Read again from here, up to
            // the synced position.
            let same = limit.segment() == self.cursor.segment();
            let most = if same {
                (u64::from(limit.offset()) - offset) as usize
            } else {
                READ_BYTES
            };
            let want = most.min(READ_BYTES);
            if self.buffer.len() < want {
                self.buffer = vec![0; want];
            }
            let Some(segment) = &self.segment else { break };
            let read = segment.file.read_at(&mut self.buffer[..want], offset)?;
            self.buffered = offset..offset + read as u64;
        }
        Err(self.damage(self.cursor))
    }

    /// Frees the buffer until the next read. Each shard has a reader, but few read at once.
    pub fn give_back(&mut self) {
        self.buffer = Vec::new();
        self.buffered = 0..0;
    }

    /// Opens the cursor's segment unless it is already open.
    fn open(&mut self) -> Result<(), ReadError> {
        let number = self.cursor.segment();
        if self.segment.as_ref().is_some_and(|s| s.number == number) {
            return Ok(());
        }
        self.segment = None;
        self.buffered = 0..0;
        let Some((name, _)) = self.catalog.segment(self.run, number) else {
            return Err(ReadError::Retired {
                run: self.run,
                number,
            });
        };
        let file = self.catalog.storage.open(&name)?;
        let mut page = [0; 64];
        file.read_at(&mut page, 0)?;
        let right = SegmentHeader::decode(&page)
            .is_ok_and(|h| h.segment == number && Salt::of(h.run_id) == self.salt);
        if !right {
            return Err(ReadError::Damaged {
                segment: name,
                offset: 0,
            });
        }
        self.segment = Some(OpenSegment { number, name, file });
        Ok(())
    }
}
