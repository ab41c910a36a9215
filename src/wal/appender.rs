//! The one thread that writes the log.
//!
//! The appender writes all requests waiting on the channel as one frame, does one fdatasync, and acknowledges them
//! together. There is no timer: while the disk syncs, the next group forms.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use tokio::sync::oneshot;

use super::append::{Append, AppendError, ByteBudget, Chunk, Message, Reservation, Stretch};
use super::catalog::{Catalog, Run};
use super::frame::{
    CHUNK_BYTES_MAX, FRAME_BYTES_MAX, FrameHead, FrameKind, Position, Salt, Section, encode_empty,
    encode_frame, end_frame_bytes, frame_overhead_bytes,
};
use super::header::{SEGMENT_HEADER_BYTES, SegmentHeader};
use super::progress::Progress;
use super::storage::SegmentFile;
use crate::failpoint;
use crate::failpoint::{Point, reach};
use crate::metrics;
use crate::reading::{PerStream, StreamCounts, Timestamp};

/// How long to wait for a spare segment before the log counts as failed. Admission accepts only what fits into
/// existing spares, so the wait covers at most the moment in which a spare is added.
const SPARE_WAIT: Duration = Duration::from_secs(30);

/// The bytes that a segment is certain to take, whatever the sizes of the chunks. Subtracted are its header, its
/// end frame, and a remainder that may be too small for the next chunk.
pub(super) fn segment_room_bytes(segment_bytes: u64, shards: u16) -> u64 {
    let lost = SEGMENT_HEADER_BYTES as usize
        + end_frame_bytes(shards)
        + CHUNK_BYTES_MAX
        + frame_overhead_bytes(shards);
    segment_bytes.saturating_sub(lost as u64)
}

/// Whether a write is followed by an fdatasync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyncMode {
    /// Every frame is durable before it is acknowledged.
    #[default]
    Always,
    /// Nothing is synced. For benchmarks only: a power cut loses acknowledged readings.
    Never,
}

struct Current {
    file: Arc<dyn SegmentFile>,
    number: u32,
    offset: u32,
}

/// A request with chunks that are still to be written.
struct Pending {
    chunks: VecDeque<Chunk>,
    wants_places: bool,
    /// The positions of the chunks that are already written.
    places: Vec<Stretch>,
    reply: Option<oneshot::Sender<Result<Vec<Stretch>, AppendError>>>,
    _reservation: Reservation,
    _memory: Reservation,
}

impl From<Append> for Pending {
    fn from(append: Append) -> Self {
        Pending {
            chunks: append.chunks.into(),
            wants_places: append.wants_places,
            places: Vec::new(),
            reply: append.reply,
            _reservation: append.reservation,
            _memory: append.memory,
        }
    }
}

/// What the appender shares with the rest of the log.
pub(super) struct Shared {
    pub(super) catalog: Arc<Catalog>,
    pub(super) progress: Arc<Progress>,
    pub(super) budget: Arc<ByteBudget>,
}

/// The writer of the log, on a thread of its own.
pub(super) struct Appender {
    catalog: Arc<Catalog>,
    progress: Arc<Progress>,
    budget: Arc<ByteBudget>,
    receiver: Receiver<Message>,
    sync: SyncMode,
    run: Run,
    salt: Salt,
    current: Option<Current>,
    appended: Vec<StreamCounts>,
    sections: Vec<Section>,
    frame: Vec<u8>,
    pending: VecDeque<Pending>,
    closing: bool,
}

impl Appender {
    pub(super) fn new(
        run: Run,
        shared: Shared,
        receiver: Receiver<Message>,
        sync: SyncMode,
    ) -> Self {
        let Shared {
            catalog,
            progress,
            budget,
        } = shared;
        let shards = usize::from(run.shards);
        Appender {
            catalog,
            progress,
            budget,
            receiver,
            sync,
            salt: run.salt(),
            run,
            current: None,
            appended: vec![StreamCounts::ZERO; shards],
            sections: vec![Section::default(); shards],
            frame: Vec::with_capacity(FRAME_BYTES_MAX + SEGMENT_HEADER_BYTES as usize),
            pending: VecDeque::new(),
            closing: false,
        }
    }

    /// Writes until it reads `Close` or every sender is dropped, then ends the run. Stops at the first disk error.
    pub(super) fn run(mut self) {
        let result = self.write_all();
        if let Err(error) = result {
            let reason = format!("writing the log failed: {error}");
            tracing::error!(
                reason,
                "the write-ahead log has failed; nothing more is acknowledged"
            );
            self.progress.fail(reason);
            self.refuse_everything();
        }
    }

    fn write_all(&mut self) -> io::Result<()> {
        loop {
            // `Close` may already have been read; do not block again.
            if self.pending.is_empty() && !self.closing {
                match self.receiver.recv() {
                    Ok(message) => self.take(message),
                    Err(_) => break,
                }
            }
            if self.pending.is_empty() && self.closing {
                break;
            }
            failpoint::thread("wal-append");
            self.write_group()?;
        }
        self.end_run()
    }

    /// Writes everything that waits on the channel and returns. Tests without threads use it as a step.
    #[cfg(test)]
    pub(super) fn write_what_waits(&mut self) -> io::Result<()> {
        while let Ok(message) = self.receiver.try_recv() {
            self.take(message);
        }
        while !self.pending.is_empty() {
            self.write_group()?;
        }
        Ok(())
    }

    /// Ends the run durably, and truncates its last segment.
    pub(super) fn end_run(&mut self) -> io::Result<()> {
        let mut end = Position::START;
        if let Some(current) = &self.current {
            end = Position::new(current.number, current.offset);
            self.write_end()?;
        }
        self.catalog
            .end_run(self.run.sequence, end, self.appended.clone());
        self.progress.ended(end);
        if let Some(current) = self.current.take() {
            // Restarts during a database outage must not fill the log with nearly empty segments.
            let used = u64::from(current.offset) + end_frame_bytes(self.run.shards) as u64;
            if current.file.truncate(used).is_ok() {
                self.catalog.resize(self.run.sequence, current.number, used);
            }
        }
        Ok(())
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Append(append) => self.pending.push_back(append.into()),
            Message::Close => self.closing = true,
        }
    }

    /// Writes one frame of the waiting requests, syncs it, and acknowledges those that are complete.
    fn write_group(&mut self) -> io::Result<()> {
        let finished = loop {
            if self.current.is_none() {
                self.begin_segment()?;
            }
            let (gathered, finished) = self.gather();
            if gathered {
                break finished;
            }
            // The rest of the segment is too small for the next chunk.
            self.write_end()?;
            self.current = None;
        };
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        let at = Position::new(current.number, current.offset);
        // A segment's header is written together with its first frame.
        let first = at == Position::start_of(current.number);
        self.frame.clear();
        if first {
            let header = SegmentHeader {
                run_id: self.run.id,
                run_sequence: self.run.sequence,
                segment: current.number,
                shards: self.run.shards,
                created_at: Timestamp::now(),
            };
            self.frame.extend_from_slice(&header.encode());
        }
        let header_len = self.frame.len();
        let head = FrameHead {
            kind: FrameKind::Data,
            salt: self.salt,
            at,
            appended_at: Timestamp::now(),
        };
        encode_frame(&head, &self.sections, &self.appended, &mut self.frame);
        let frame_bytes = (self.frame.len() - header_len) as u32;
        let readings = self
            .sections
            .iter()
            .map(|section| section.readings.map(u64::from).sum())
            .sum();
        let start = u64::from(current.offset) - header_len as u64;
        current.file.write_all_at(&self.frame, start)?;
        reach(Point::Append);
        if self.sync == SyncMode::Always {
            let began = Instant::now();
            current.file.sync_data()?;
            if first {
                self.catalog.storage.sync()?;
            }
            metrics::wal_synced(began.elapsed(), readings);
        }
        reach(Point::Fsync);
        if self.progress.has_failed() {
            return Err(io::Error::other("the log's directory has failed"));
        }
        current.offset += frame_bytes;
        self.budget.change(-i64::from(frame_bytes));
        let end = Position::new(current.number, current.offset);
        self.publish(end);
        for pending in finished {
            if let Some(reply) = pending.reply {
                // The client may have disconnected. Its readings are kept.
                reply.send(Ok(pending.places)).ok();
            }
        }
        reach(Point::Ack);
        Ok(())
    }

    /// Moves as many waiting chunks as fit into the sections of the next frame.
    ///
    /// Shape:  whether anything fitted, and the requests that this frame completes
    fn gather(&mut self) -> (bool, Vec<Pending>) {
        for section in &mut self.sections {
            section.bytes.clear();
            section.readings = PerStream::default();
        }
        let shards = self.run.shards;
        let (number, offset) = (self.current.as_ref()).map_or((0, 0), |c| (c.number, c.offset));
        let at = Position::new(number, offset);
        let left = self
            .catalog
            .segment_bytes
            .saturating_sub(u64::from(offset) + end_frame_bytes(shards) as u64);
        let room = (left as usize).min(FRAME_BYTES_MAX);
        let mut used = frame_overhead_bytes(shards);
        let mut gathered = false;
        let mut finished = Vec::new();
        loop {
            let Some(pending) = self.pending.front_mut() else {
                match self.receiver.try_recv() {
                    Ok(message) => self.take(message),
                    Err(_) => break,
                }
                continue;
            };
            while let Some(chunk) = pending.chunks.front() {
                if used + chunk.bytes.len() > room {
                    return (gathered, finished);
                }
                used += chunk.bytes.len();
                gathered = true;
                let section = &mut self.sections[usize::from(chunk.shard)];
                if pending.wants_places {
                    pending.places.push(Stretch {
                        shard: chunk.shard,
                        at,
                        first: section.readings.sum(),
                        readings: chunk.readings.sum(),
                    });
                }
                section.bytes.extend_from_slice(&chunk.bytes);
                section.readings += chunk.readings;
                pending.chunks.pop_front();
            }
            // Any frame completes a request without readings.
            gathered = true;
            finished.extend(self.pending.pop_front());
        }
        (gathered, finished)
    }

    /// Publishes the frame just written: adds its readings to the counts and lets readers pass.
    fn publish(&mut self, end: Position) {
        let sections = self.sections.iter();
        let readings: Vec<StreamCounts> = sections
            .map(|section| section.readings.map(u64::from))
            .collect();
        for (appended, readings) in self.appended.iter_mut().zip(&readings) {
            *appended += *readings;
        }
        self.progress.appended(&readings, end);
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        let number = self.run.segments.back().map_or(0, |s| s.number + 1);
        let file = self
            .catalog
            .take_segment(self.run.sequence, number, SPARE_WAIT)?;
        reach(Point::SegmentBegun);
        let name = super::catalog::segment_name(self.run.sequence, self.run.id, number);
        let file_bytes = self.catalog.segment_bytes;
        self.run.segments.push_back(super::catalog::Segment {
            number,
            name,
            file_bytes,
        });
        self.run.segments = self.run.segments.split_off(self.run.segments.len() - 1);
        self.current = Some(Current {
            file,
            number,
            offset: SEGMENT_HEADER_BYTES,
        });
        Ok(())
    }

    /// Ends the current segment durably, before anything is written to the next one.
    fn write_end(&mut self) -> io::Result<()> {
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        let head = FrameHead {
            kind: FrameKind::End,
            salt: self.salt,
            at: Position::new(current.number, current.offset),
            appended_at: Timestamp::now(),
        };
        let frame = encode_empty(&head, &self.appended);
        current
            .file
            .write_all_at(&frame, u64::from(current.offset))?;
        if self.sync == SyncMode::Always {
            current.file.sync_data()?;
        }
        // The rest of the segment will not be written, so its bytes leave the budget.
        let room = segment_room_bytes(self.catalog.segment_bytes, self.run.shards);
        let written = u64::from(current.offset - SEGMENT_HEADER_BYTES);
        self.budget.change(written as i64 - room as i64);
        Ok(())
    }

    /// Replies with the failure to every request, waiting or still to come.
    fn refuse_everything(&mut self) {
        let refuse = |pending: Pending| {
            if let Some(reply) = pending.reply {
                reply.send(Err(AppendError::Failed)).ok();
            }
        };
        for pending in self.pending.drain(..) {
            refuse(pending);
        }
        while let Ok(Message::Append(append)) = self.receiver.recv() {
            refuse(append.into());
        }
    }
}
