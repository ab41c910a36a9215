//! Inspects a log without opening it: what it holds, and what is damaged.
//!
//! Nothing is written or locked, so a log can be inspected while a gateway appends to it. Every frame is read and
//! its checksum verified. The next intact frame after damage shows how far the damage extends and, by its counts,
//! how many readings are lost.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use uuid::Uuid;

use super::catalog::{parse_segment_name, parse_spare_name};
use super::frame::{Frame, FrameKind, Position, Salt};
use super::header::{HeaderError, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::record;
use super::scan::{Met, scan};
use super::storage::{DirectoryView, SegmentFile};
use crate::reading::{StreamCounts, Timestamp};

/// What a log's directory holds.
#[derive(Debug, Default)]
pub struct Inspection {
    /// Its runs, oldest first.
    pub runs: Vec<InspectedRun>,
    /// Spare segments.
    pub spares: u64,
    /// The bytes of all of these on disk.
    pub total_bytes: u64,
}

/// One run.
#[derive(Debug)]
pub struct InspectedRun {
    /// Its number in the order of runs.
    pub sequence: u64,
    /// The key of its checkpoints.
    pub id: Uuid,
    /// Its number of shards; 0 if no header or frame is intact.
    pub shards: u16,
    /// Its segments, oldest first.
    pub segments: Vec<InspectedSegment>,
    /// Where its intact frames end.
    pub end: Position,
    /// Whether it has an end frame. If not, it is still being appended to, or was not closed.
    pub ended: bool,
    /// The readings that the log holds of each shard.
    pub readings: Vec<StreamCounts>,
    /// All readings that were appended, by shard, including those of retired segments.
    pub appended: Vec<StreamCounts>,
    /// Readings lost to the damage.
    pub lost: u64,
}

/// One segment.
#[derive(Debug)]
pub struct InspectedSegment {
    /// Its number in its run.
    pub number: u32,
    /// Its file.
    pub name: String,
    /// The size of the file on disk.
    pub file_bytes: u64,
    /// The length up to the end of its last intact frame.
    pub used_bytes: u64,
    /// Its intact data frames.
    pub frames: u64,
    /// The readings in them, by stream.
    pub readings: StreamCounts,
    /// When it was begun; `None` if its header is damaged.
    pub created_at: Option<Timestamp>,
    /// Its damaged places.
    pub faults: Vec<Fault>,
}

/// One damaged place.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its offset in the file.
    pub offset: u64,
    /// Its length in bytes; 0 if unknown.
    pub bytes: u64,
    /// What is wrong there.
    pub what: String,
}

/// Inspects everything in a log's directory.
///
/// Blocks: until every frame is read
///
/// # Errors
/// I/O errors. Damage is not an error, but part of the result.
pub fn inspect(directory: &DirectoryView) -> io::Result<Inspection> {
    let mut inspection = Inspection::default();
    let mut runs: BTreeMap<(u64, Uuid), Vec<(u32, String)>> = BTreeMap::new();
    for name in directory.list()? {
        if let Some((sequence, id, number)) = parse_segment_name(&name) {
            runs.entry((sequence, id)).or_default().push((number, name));
        } else if parse_spare_name(&name).is_some()
            && let Some(file) = directory.open_if_there(&name)?
        {
            inspection.spares += 1;
            inspection.total_bytes += file.size_bytes()?;
        }
    }
    for ((sequence, id), mut files) in runs {
        files.sort_unstable();
        let mut reader = RunReader::new(sequence, id);
        let last = files.last().map(|(number, _)| *number);
        for (number, name) in files {
            let Some(file) = directory.open_if_there(&name)? else {
                continue;
            };
            let place = match last == Some(number) {
                true => Place::Last,
                false => Place::Earlier,
            };
            let mut segment = reader.read(&*file, number, &name, place)?;
            if !segment.faults.is_empty() && directory.open_if_there(&name)?.is_none() {
                // The segment was retired and its file recycled while it was read.
                continue;
            }
            reader.look_for_a_missing_one(&mut segment);
            inspection.total_bytes += segment.file_bytes;
            reader.run.segments.push(segment);
        }
        if !reader.run.segments.is_empty() {
            inspection.runs.push(reader.run);
        }
    }
    Ok(inspection)
}

/// The position of a segment in its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Last,
    Earlier,
}

/// Reads the segments of one run in order and counts their readings.
struct RunReader {
    run: InspectedRun,
    salt: Salt,
    known: bool,
}

impl RunReader {
    fn new(sequence: u64, id: Uuid) -> Self {
        RunReader {
            run: InspectedRun {
                sequence,
                id,
                shards: 0,
                segments: Vec::new(),
                end: Position::START,
                ended: false,
                readings: Vec::new(),
                appended: Vec::new(),
                lost: 0,
            },
            salt: Salt::of(id),
            known: false,
        }
    }

    fn read(
        &mut self,
        file: &dyn SegmentFile,
        number: u32,
        name: &str,
        place: Place,
    ) -> io::Result<InspectedSegment> {
        let mut segment = InspectedSegment {
            number,
            name: name.to_owned(),
            file_bytes: file.size_bytes()?,
            used_bytes: u64::from(SEGMENT_HEADER_BYTES),
            frames: 0,
            readings: StreamCounts::ZERO,
            created_at: None,
            faults: Vec::new(),
        };
        let header = self.read_header(file, number, &mut segment)?;
        let mut faults = Vec::new();
        let end = scan(file, self.salt, number, |met| {
            match met {
                Met::Hole(hole) => faults.push(Fault {
                    offset: hole.start,
                    bytes: hole.end - hole.start,
                    what: "no frame is intact here, but intact data follows".to_owned(),
                }),
                Met::Frame(frame) => self.count(&frame, &mut segment, &mut faults),
            }
            Ok(())
        })?;
        segment.used_bytes = end.offset;
        // A header is written together with its first frame. If no frame follows that one, it was never
        // acknowledged.
        if !header && (place == Place::Earlier || segment.frames > 1) && segment.faults.is_empty() {
            faults.push(fault(0, "its header is damaged"));
        }
        if !end.has_end_frame && place == Place::Earlier {
            faults.push(fault(
                end.offset,
                "the segment has no end, but the run continues after it",
            ));
        }
        segment.faults.append(&mut faults);
        self.run.end = Position::new(number, end.offset as u32);
        self.run.ended = end.has_end_frame;
        Ok(segment)
    }

    /// Reads the header. Returns whether it is intact and belongs to this segment.
    fn read_header(
        &mut self,
        file: &dyn SegmentFile,
        number: u32,
        segment: &mut InspectedSegment,
    ) -> io::Result<bool> {
        let mut page = vec![0; SEGMENT_HEADER_BYTES as usize];
        file.read_at(&mut page, 0)?;
        match SegmentHeader::decode(&page) {
            Ok(header) if header.segment == number && Salt::of(header.run_id) == self.salt => {
                segment.created_at = Some(header.created_at);
                self.set_shards(header.shards);
                Ok(true)
            }
            Err(error @ HeaderError::Version(_)) => {
                segment.faults.push(fault(8, &error.to_string()));
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    fn set_shards(&mut self, shards: u16) {
        if self.run.shards == 0 {
            self.run.shards = shards;
            self.run.readings = vec![StreamCounts::ZERO; usize::from(shards)];
            self.run.appended = vec![StreamCounts::ZERO; usize::from(shards)];
        }
    }

    /// Decodes and counts a frame's readings, and counts those missing before it.
    fn count(
        &mut self,
        frame: &Frame<'_>,
        segment: &mut InspectedSegment,
        faults: &mut Vec<Fault>,
    ) {
        self.set_shards(frame.shards());
        let offset = u64::from(frame.position.offset());
        if frame.shards() != self.run.shards {
            faults.push(fault(
                offset,
                "a frame and its run have different numbers of shards",
            ));
            return;
        }
        segment.frames += u64::from(frame.kind == FrameKind::Data);
        for shard in 0..frame.shards() {
            let section = frame.section(shard);
            let counted = section.readings.map(u64::from);
            if !records_are_whole(section.records, counted) {
                let what = format!("the records of shard {shard} cannot be read");
                faults.push(fault(offset, &what));
            }
            let at = usize::from(shard);
            let appended = &mut self.run.appended[at];
            if self.known {
                self.run.lost += section.before.saturating_sub(*appended).sum();
            }
            *appended = section.after();
            self.run.readings[at] += counted;
            segment.readings += counted;
        }
        self.known = true;
    }

    /// A run loses its first segments when they are retired, but never one in the middle.
    fn look_for_a_missing_one(&self, segment: &mut InspectedSegment) {
        let before = self.run.segments.last();
        if before.is_some_and(|before| before.number + 1 != segment.number) {
            segment
                .faults
                .insert(0, fault(0, "the segment before it is missing"));
        }
    }
}

fn records_are_whole(mut records: &[u8], expected: StreamCounts) -> bool {
    let mut found = StreamCounts::ZERO;
    while !records.is_empty() {
        match record::decode(&mut records) {
            Ok(reading) => found[reading.stream()] += 1,
            Err(_) => return false,
        }
    }
    found == expected
}

fn fault(offset: u64, what: &str) -> Fault {
    Fault {
        offset,
        bytes: 0,
        what: what.to_owned(),
    }
}

impl Inspection {
    /// The number of damaged places.
    pub fn faults(&self) -> usize {
        let segments = self.runs.iter().flat_map(|run| &run.segments);
        segments.map(|segment| segment.faults.len()).sum()
    }
}

impl DirectoryView {
    /// Opens a file; `None` if it was removed since it was listed.
    fn open_if_there(&self, name: &str) -> io::Result<Option<Arc<dyn SegmentFile>>> {
        match self.open(name) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}
