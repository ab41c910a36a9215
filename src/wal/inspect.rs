//! Looking at a log without opening it: what is in it, and what of that is sound.
//!
//! Nothing is written and nothing is locked, so that a log can be looked at while a gateway
//! appends to it. Every frame is read and its checksum verified; where one is not intact, the
//! search for the next intact one tells how much is damaged, and the counts in it tell how many
//! readings that cost.

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
pub struct Survey {
    /// Its runs, oldest first.
    pub runs: Vec<RunSurvey>,
    /// Segments made ready and not used yet.
    pub spares: u64,
    /// All of the above on disk, in bytes.
    pub total_bytes: u64,
}

/// One run.
#[derive(Debug)]
pub struct RunSurvey {
    /// Its place in the order of runs.
    pub sequence: u64,
    /// The key of its checkpoints.
    pub id: Uuid,
    /// Its number of shards; 0 where nothing in it tells.
    pub shards: u16,
    /// Its segments, oldest first.
    pub segments: Vec<SegmentSurvey>,
    /// Where the intact frames end.
    pub end: Position,
    /// Whether an end frame stands there; else it is appended to, or was not closed.
    pub ended: bool,
    /// The readings that the log holds of each shard.
    pub readings: Vec<StreamCounts>,
    /// The readings that were appended in all, those that are gone included, by shard.
    pub appended: Vec<StreamCounts>,
    /// Readings that stood where the damage is.
    pub lost: u64,
}

/// One segment.
#[derive(Debug)]
pub struct SegmentSurvey {
    /// Its number in its run.
    pub number: u32,
    /// Its file.
    pub name: String,
    /// What the file takes on disk.
    pub file_bytes: u64,
    /// Up to the end of its last intact frame.
    pub used_bytes: u64,
    /// Its intact data frames.
    pub frames: u64,
    /// The readings in them, by stream.
    pub readings: StreamCounts,
    /// When it was begun; none where its header is damaged.
    pub created_at: Option<Timestamp>,
    /// What is wrong with it.
    pub faults: Vec<Fault>,
}

/// One damaged place.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where it begins in the file.
    pub offset: u64,
    /// How much is damaged, in bytes; 0 where that is not known.
    pub bytes: u64,
    /// What is wrong there.
    pub what: String,
}

/// Looks at everything in a log's directory.
///
/// Blocks: until every frame is read
///
/// # Errors
/// As the system gives them; damage is no error, it is in the result.
pub fn survey(directory: &DirectoryView) -> io::Result<Survey> {
    let mut survey = Survey::default();
    let mut runs: BTreeMap<(u64, Uuid), Vec<(u32, String)>> = BTreeMap::new();
    for name in directory.list()? {
        if let Some((sequence, id, number)) = parse_segment_name(&name) {
            runs.entry((sequence, id)).or_default().push((number, name));
        } else if parse_spare_name(&name).is_some()
            && let Some(file) = directory.open_if_there(&name)?
        {
            survey.spares += 1;
            survey.total_bytes += file.size_bytes()?;
        }
    }
    for ((sequence, id), mut files) in runs {
        files.sort_unstable();
        let mut run = RunReader::new(sequence, id);
        let last = files.last().map(|(number, _)| *number);
        for (number, name) in files {
            let Some(file) = directory.open_if_there(&name)? else {
                continue;
            };
            let mut segment = run.read(&*file, number, &name, last == Some(number))?;
            if !segment.faults.is_empty() && directory.open_if_there(&name)?.is_none() {
                // It was let go of, and is being written anew, while it was read.
                continue;
            }
            run.look_for_a_missing_one(&mut segment);
            survey.total_bytes += segment.file_bytes;
            run.survey.segments.push(segment);
        }
        if !run.survey.segments.is_empty() {
            survey.runs.push(run.survey);
        }
    }
    Ok(survey)
}

/// Reads the segments of one run in order, and keeps count.
pub(super) struct RunReader {
    pub(super) survey: RunSurvey,
    salt: Salt,
    known: bool,
}

impl RunReader {
    pub(super) fn new(sequence: u64, id: Uuid) -> Self {
        RunReader {
            survey: RunSurvey {
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
        is_last: bool,
    ) -> io::Result<SegmentSurvey> {
        let mut segment = SegmentSurvey {
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
                    what: "no intact frame stands here, and intact data follow".to_owned(),
                }),
                Met::Frame(frame) => self.count(&frame, &mut segment, &mut faults),
            }
            Ok(())
        })?;
        segment.used_bytes = end.offset;
        // A header is written with its first frame: alone, that frame was never acknowledged.
        if !header && (!is_last || segment.frames > 1) && segment.faults.is_empty() {
            faults.push(fault(0, "its header is damaged"));
        }
        if !end.has_end_frame && !is_last {
            faults.push(fault(
                end.offset,
                "the segment has no end, and the run goes on",
            ));
        }
        segment.faults.append(&mut faults);
        self.survey.end = Position::new(number, end.offset as u32);
        self.survey.ended = end.has_end_frame;
        Ok(segment)
    }

    /// Reads the header; tells whether it is this segment's own.
    fn read_header(
        &mut self,
        file: &dyn SegmentFile,
        number: u32,
        segment: &mut SegmentSurvey,
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
        if self.survey.shards == 0 {
            self.survey.shards = shards;
            self.survey.readings = vec![StreamCounts::ZERO; usize::from(shards)];
            self.survey.appended = vec![StreamCounts::ZERO; usize::from(shards)];
        }
    }

    /// Counts a frame's readings, reads them, and notices how many are missing before it.
    fn count(&mut self, frame: &Frame<'_>, segment: &mut SegmentSurvey, faults: &mut Vec<Fault>) {
        self.set_shards(frame.shards());
        let offset = u64::from(frame.position.offset());
        if frame.shards() != self.survey.shards {
            faults.push(fault(
                offset,
                "a frame has another number of shards than its run",
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
            let appended = &mut self.survey.appended[at];
            if self.known {
                self.survey.lost += section.before.saturating_sub(*appended).sum();
            }
            *appended = section.after();
            self.survey.readings[at] += counted;
            segment.readings += counted;
        }
        self.known = true;
    }

    /// The first segments of a run go when they are stored; one in the middle never does.
    fn look_for_a_missing_one(&self, segment: &mut SegmentSurvey) {
        let before = self.survey.segments.last();
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

impl Survey {
    /// How many places are damaged.
    pub fn faults(&self) -> usize {
        let segments = self.runs.iter().flat_map(|run| &run.segments);
        segments.map(|segment| segment.faults.len()).sum()
    }
}

impl DirectoryView {
    /// Opens a file; none where it has gone since it was listed.
    fn open_if_there(&self, name: &str) -> io::Result<Option<Arc<dyn SegmentFile>>> {
        match self.open(name) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}
