//! Copies the intact frames of a damaged log to another directory.
//!
//! The copy keeps runs, segments and positions, so that the checkpoints in the database stay valid and nothing is
//! stored twice. A damaged range is filled with empty frames of the same length, and a missing segment is replaced
//! with an empty one. Readers pass over them.

use std::collections::BTreeMap;
use std::io;

use uuid::Uuid;

use super::catalog::{parse_segment_name, segment_name};
use super::frame::{
    FRAME_BYTES_MAX, FrameHead, FrameKind, Position, Salt, encode_empty, encode_filler,
    end_frame_bytes,
};
use super::header::{SEGMENT_HEADER_BYTES, SegmentHeader};
use super::inspect::inspect;
use super::retired_runs;
use super::scan::{Met, scan};
use super::storage::{DirectoryView, SegmentFile, Storage};
use crate::reading::{StreamCounts, Timestamp};

/// The result of a repair.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Segments copied.
    pub segments: u64,
    /// Readings copied.
    pub readings: u64,
    /// Readings that can no longer be read, as far as the log's counts show.
    pub lost: u64,
    /// Damaged places that were skipped.
    pub faults: u64,
}

/// Copies a log's intact frames into an empty directory.
///
/// Blocks: until the copy is durable
///
/// # Errors
/// I/O errors; `Unsupported` for segments of another format, because nothing is guessed. Do not use the copy then.
/// The log itself is never written to.
pub fn repair(from: &DirectoryView, into: &dyn Storage) -> io::Result<Repaired> {
    let found = inspect(from)?;
    let mut repaired = Repaired {
        faults: found.faults() as u64,
        ..Repaired::default()
    };
    for run in &found.runs {
        repaired.lost += run.lost;
        repaired.readings += run.readings.iter().map(|counts| counts.sum()).sum::<u64>();
    }
    let mut runs: BTreeMap<(u64, Uuid), BTreeMap<u32, String>> = BTreeMap::new();
    for run in &found.runs {
        for segment in &run.segments {
            if segment.faults.iter().any(|fault| fault.offset == 8) {
                let what = format!("{} has another version of the format", segment.name);
                return Err(io::Error::new(io::ErrorKind::Unsupported, what));
            }
        }
    }
    for name in from.list()? {
        if let Some((sequence, id, number)) = parse_segment_name(&name) {
            runs.entry((sequence, id)).or_default().insert(number, name);
        }
    }
    for ((sequence, id), segments) in runs {
        let inspected = found.runs.iter().find(|r| r.id == id);
        let Some(inspected) = inspected.filter(|r| r.shards > 0) else {
            // Nothing in it was ever durable, or nothing in it is readable.
            continue;
        };
        let mut run = RunCopy {
            sequence,
            id,
            appended: vec![StreamCounts::ZERO; usize::from(inspected.shards)],
        };
        let (Some(first), Some(last)) = (segments.keys().next(), segments.keys().last()) else {
            continue;
        };
        for number in *first..=*last {
            match segments.get(&number) {
                Some(name) => run.copy(&*from.open(name)?, number, into)?,
                None => run.stand_in(number, into)?,
            }
            repaired.segments += 1;
        }
    }
    if from
        .list()?
        .iter()
        .any(|name| name == retired_runs::FILE_NAME)
    {
        copy_whole(
            &*from.open(retired_runs::FILE_NAME)?,
            retired_runs::FILE_NAME,
            into,
        )?;
    }
    into.sync()?;
    Ok(repaired)
}

/// Copies a file unchanged.
fn copy_whole(from: &dyn SegmentFile, name: &str, into: &dyn Storage) -> io::Result<()> {
    let mut bytes = vec![0; from.size_bytes()? as usize];
    from.read_at(&mut bytes, 0)?;
    let copy = into.create(name)?;
    copy.write_all_at(&bytes, 0)?;
    copy.sync_data()
}

/// One run that is being copied.
struct RunCopy {
    sequence: u64,
    id: Uuid,
    /// The readings of each shard in the run, up to the end of the copy.
    appended: Vec<StreamCounts>,
}

impl RunCopy {
    fn begin(
        &self,
        number: u32,
        into: &dyn Storage,
    ) -> io::Result<std::sync::Arc<dyn SegmentFile>> {
        let file = into.create(&segment_name(self.sequence, self.id, number))?;
        let header = SegmentHeader {
            run_id: self.id,
            run_sequence: self.sequence,
            segment: number,
            shards: self.appended.len() as u16,
            created_at: Timestamp::now(),
        };
        file.write_all_at(&header.encode(), 0)?;
        Ok(file)
    }

    /// Copies a segment's intact frames to their positions, and fills the gaps between them.
    fn copy(&mut self, from: &dyn SegmentFile, number: u32, into: &dyn Storage) -> io::Result<()> {
        let copy = self.begin(number, into)?;
        let salt = Salt::of(self.id);
        let shards = self.appended.len() as u16;
        let end = scan(from, salt, number, |met| match met {
            Met::Hole(hole) => self.fill(&*copy, number, hole),
            Met::Frame(frame) if frame.shards() == shards => {
                for shard in 0..shards {
                    let section = frame.section(shard);
                    self.appended[usize::from(shard)] = section.after();
                }
                copy.write_all_at(frame.bytes(), u64::from(frame.position.offset()))
            }
            Met::Frame(frame) => {
                let start = u64::from(frame.position.offset());
                self.fill(&*copy, number, start..start + u64::from(frame.len_bytes()))
            }
        })?;
        if !end.has_end_frame {
            self.end(&*copy, number, end.offset)?;
        }
        copy.sync_data()
    }

    /// Makes an empty segment in place of a missing one.
    fn stand_in(&self, number: u32, into: &dyn Storage) -> io::Result<()> {
        let file = self.begin(number, into)?;
        self.end(&*file, number, u64::from(SEGMENT_HEADER_BYTES))?;
        file.sync_data()
    }

    fn end(&self, file: &dyn SegmentFile, number: u32, at: u64) -> io::Result<()> {
        let head = self.head(FrameKind::End, number, at);
        file.write_all_at(&encode_empty(&head, &self.appended), at)
    }

    fn head(&self, kind: FrameKind, number: u32, at: u64) -> FrameHead {
        FrameHead {
            kind,
            salt: Salt::of(self.id),
            at: Position::new(number, at as u32),
            appended_at: Timestamp::now(),
        }
    }

    /// Writes empty frames over a range without intact frames.
    fn fill(
        &self,
        file: &dyn SegmentFile,
        number: u32,
        hole: std::ops::Range<u64>,
    ) -> io::Result<()> {
        let least = end_frame_bytes(self.appended.len() as u16) as u64;
        let mut at = hole.start;
        while at < hole.end {
            let left = hole.end - at;
            let mut len = left.min(FRAME_BYTES_MAX as u64);
            if left > len && left - len < least {
                len -= least;
            }
            if len < least {
                let what = format!("{left} damaged bytes at {at} are less than any frame has");
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
            let head = self.head(FrameKind::Data, number, at);
            file.write_all_at(&encode_filler(&head, len as usize, &self.appended), at)?;
            at += len;
        }
        Ok(())
    }
}
