//! Opening a log: which runs there are, where the last one really ends, what is damaged.
//!
//! Older runs are never appended to. The tail of a run that did not end by itself is found by
//! reading its last segment frame by frame: what is intact up to the first torn frame is copied
//! to a new file, closed with an end frame and synced, because what an earlier process could not
//! sync proves nothing when it is read from the page cache. A torn frame is what a crash leaves
//! behind: it was never acknowledged. An intact frame *behind* a broken one is not: the log
//! writes a frame only when the one before was synced, so that is damage, and is refused.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use super::catalog::{Run, Segment, parse_segment_name, parse_spare_name};
use super::frame::{
    FRAME_ALIGN, FRAME_BYTES_MAX, Frame, FrameError, FrameKind, HeaderError, Position,
    SEGMENT_HEADER_BYTES, Salt, Section, SegmentHeader, encode_frame,
};
use super::storage::{SegmentFile, Storage, is_full};
use crate::reading::{StreamCounts, Timestamp};

const SEAL_NAME: &str = "sealing";

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The system refuses.
    #[error("cannot read the write-ahead log: {0}")]
    Io(#[from] io::Error),
    /// A broken place with intact data behind it, or a missing segment.
    #[error(
        "the write-ahead log is damaged in {segment} at byte {offset}: {what}. Nothing was \
         changed. `wattgate wal verify` tells what is damaged, `wattgate wal repair` copies what \
         is sound to another directory"
    )]
    Damaged {
        /// The file.
        segment: String,
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// A segment of another version of the format.
    #[error("the segment {segment} of the write-ahead log cannot be read: {what}")]
    Version {
        /// The file.
        segment: String,
        /// Which version.
        what: String,
    },
}

/// What was found in a log's directory.
#[derive(Debug)]
pub struct Recovered {
    /// All runs that hold data, oldest first, each with its end.
    pub runs: VecDeque<Run>,
    /// Spare segments of the size asked for.
    pub spares: VecDeque<String>,
    /// The place in order of the next run.
    pub next_sequence: u64,
}

/// Finds the runs of a log and seals the last one where it did not end by itself.
///
/// Blocks: until everything that it changed is durable
///
/// # Errors
/// [`RecoveryError`]: the log is left as it was.
pub fn recover(
    storage: &dyn Storage,
    segment_bytes: u64,
    now: Timestamp,
) -> Result<Recovered, RecoveryError> {
    let mut by_run: BTreeMap<u64, Vec<(u32, String)>> = BTreeMap::new();
    let mut spares = VecDeque::new();
    let mut next_sequence = 1;
    let mut changed = false;
    for name in storage.list()? {
        if let Some((sequence, _, number)) = parse_segment_name(&name) {
            next_sequence = next_sequence.max(sequence + 1);
            by_run.entry(sequence).or_default().push((number, name));
        } else if parse_spare_name(&name).is_some() {
            if storage.open(&name)?.size_bytes()? == segment_bytes {
                spares.push_back(name);
            } else {
                // Of another size, or left half-made by a crash: it holds nothing.
                storage.remove(&name)?;
                changed = true;
            }
        } else if name == SEAL_NAME {
            storage.remove(&name)?;
            changed = true;
        }
    }
    let mut runs = VecDeque::new();
    for (sequence, mut segments) in by_run {
        segments.sort_unstable();
        let (run, sealed) = recover_run(storage, sequence, &segments, &mut spares, now)?;
        changed |= sealed;
        runs.extend(run);
    }
    if changed {
        storage.sync()?;
    }
    Ok(Recovered {
        runs,
        spares,
        next_sequence,
    })
}

/// The segments of one run, and what their headers say.
struct RunFiles {
    segments: VecDeque<Segment>,
    headers: Vec<SegmentHeader>,
    /// The last segment, where its header is torn: nothing in it was ever acknowledged.
    torn: Option<String>,
}

/// Reads one run; none where nothing in it was ever durable. The flag says that files changed.
fn recover_run(
    storage: &dyn Storage,
    sequence: u64,
    files: &[(u32, String)],
    spares: &mut VecDeque<String>,
    now: Timestamp,
) -> Result<(Option<Run>, bool), RecoveryError> {
    let mut found = read_headers(storage, sequence, files)?;
    let mut torn: Vec<String> = found.torn.take().into_iter().collect();
    // The last segment with an intact frame is where the run ends. A segment is begun only when
    // the one before has been ended durably, so that at most one holds none.
    let run = loop {
        let (Some(last), Some(header)) = (found.segments.back(), found.headers.last()) else {
            break None;
        };
        let file = storage.open(&last.name)?;
        let salt = Salt::of(header.run_id);
        let tail = walk(&*file, salt, last.number, header.shards, last.file_bytes)?;
        if !tail.ended {
            let (number, size) = (last.number, last.file_bytes);
            if intact_frames_behind(&*file, salt, number, tail.offset, size)? > 0 {
                let what = "a frame is damaged, and intact data follow";
                return Err(damaged(&last.name, tail.offset, what));
            }
            if tail.frames == 0 {
                torn.push(last.name.clone());
                found.segments.pop_back();
                found.headers.pop();
                continue;
            }
        }
        break Some((tail, *header, file));
    };
    let changed = !torn.is_empty() || run.as_ref().is_some_and(|(tail, ..)| !tail.ended);
    let run = match run {
        Some((tail, header, file)) => {
            let segments = found.segments;
            Some(end_run(
                storage, sequence, segments, &header, &tail, &*file, spares, now,
            )?)
        }
        None => None,
    };
    for name in torn {
        storage.remove(&name)?;
    }
    Ok((run, changed))
}

/// Reads the headers of a run's segments, in order.
fn read_headers(
    storage: &dyn Storage,
    sequence: u64,
    files: &[(u32, String)],
) -> Result<RunFiles, RecoveryError> {
    let mut found = RunFiles {
        segments: VecDeque::new(),
        headers: Vec::new(),
        torn: None,
    };
    let first_id = files.first().and_then(|(_, name)| parse_segment_name(name));
    for (at, (number, name)) in files.iter().enumerate() {
        let file = storage.open(name)?;
        let mut page = vec![0; SEGMENT_HEADER_BYTES as usize];
        file.read_at(&mut page, 0)?;
        let run_id = parse_segment_name(name).map(|(_, id, _)| id);
        if run_id != first_id.map(|(_, id, _)| id) {
            return Err(damaged(name, 0, "it comes from another log"));
        }
        if at > 0 && files[at - 1].0 + 1 != *number {
            return Err(damaged(name, 0, "the segment before it is missing"));
        }
        match SegmentHeader::decode(&page) {
            Ok(header)
                if Some(header.run_id) == run_id
                    && header.run_sequence == sequence
                    && header.segment == *number =>
            {
                found.headers.push(header);
            }
            Err(error @ HeaderError::Version(_)) => {
                return Err(RecoveryError::Version {
                    segment: name.clone(),
                    what: error.to_string(),
                });
            }
            // The header of the last segment may be torn: it is written with its first frame.
            _ if at + 1 == files.len() => {
                expect_nothing_acknowledged(&*file, name)?;
                found.torn = Some(name.clone());
                return Ok(found);
            }
            _ => return Err(damaged(name, 0, "its header is damaged")),
        }
        let file_bytes = file.size_bytes()?;
        found.segments.push_back(Segment {
            number: *number,
            name: name.clone(),
            file_bytes,
        });
    }
    Ok(found)
}

/// Makes sure that a segment whose header is not intact never got beyond its first write.
fn expect_nothing_acknowledged(file: &dyn SegmentFile, name: &str) -> Result<(), RecoveryError> {
    let Some((_, run_id, number)) = parse_segment_name(name) else {
        return Ok(());
    };
    let from = u64::from(SEGMENT_HEADER_BYTES);
    // The first frame is written together with the header, so only a second one proves that the
    // header was durable once.
    if intact_frames_behind(file, Salt::of(run_id), number, from, file.size_bytes()?)? > 1 {
        let what = "its header is damaged, and intact data follow";
        return Err(damaged(name, 0, what));
    }
    Ok(())
}

/// Makes a run of what was found, and writes its end where there is none.
#[expect(clippy::too_many_arguments, reason = "what recovery has found, once")]
fn end_run(
    storage: &dyn Storage,
    sequence: u64,
    mut segments: VecDeque<Segment>,
    header: &SegmentHeader,
    tail: &Tail,
    file: &dyn SegmentFile,
    spares: &mut VecDeque<String>,
    now: Timestamp,
) -> io::Result<Run> {
    let mut end = Position::START;
    if let Some(last) = segments.back_mut() {
        end = Position::new(last.number, tail.offset as u32);
        if !tail.ended {
            last.file_bytes = loop {
                match write_sealed(storage, &last.name, file, end, header, tail, now) {
                    // What is in the log must get out for there to be room again.
                    Err(error) if is_full(&error) => match spares.pop_back() {
                        Some(spare) => storage.remove(&spare)?,
                        None => {
                            // It may not even have been made.
                            drop(storage.remove(SEAL_NAME));
                            break seal_in_place(file, end, header, tail, now)?;
                        }
                    },
                    result => break result?,
                }
            };
        }
    }
    Ok(Run {
        sequence,
        id: header.run_id,
        shards: header.shards,
        segments,
        end: Some(end),
        appended: tail.appended.clone(),
    })
}

/// Where the intact frames of a segment end.
#[derive(Debug)]
pub struct Tail {
    /// The place behind the last data frame; where the end frame stands, if there is one.
    pub offset: u64,
    /// Whether an end frame stands there.
    pub ended: bool,
    /// How many data frames there are.
    pub frames: u64,
    /// The readings of each shard, over the run up to here.
    pub appended: Vec<StreamCounts>,
}

/// Reads a segment frame by frame up to its end frame or the first frame that is not intact.
///
/// # Errors
/// As the system gives them.
pub fn walk(
    file: &dyn SegmentFile,
    salt: Salt,
    segment: u32,
    shards: u16,
    size: u64,
) -> io::Result<Tail> {
    let mut tail = Tail {
        offset: u64::from(SEGMENT_HEADER_BYTES),
        ended: false,
        frames: 0,
        appended: vec![StreamCounts::ZERO; usize::from(shards)],
    };
    // Read in large steps: a frame may begin anywhere and must be whole in the buffer.
    let mut buffer = vec![0; 4 * FRAME_BYTES_MAX];
    let mut from = tail.offset;
    let mut filled = file.read_at(&mut buffer, from)?;
    while tail.offset < size {
        let known = from + filled as u64;
        if tail.offset + FRAME_BYTES_MAX as u64 > known && known < size {
            from = tail.offset;
            filled = file.read_at(&mut buffer, from)?;
        }
        let bytes = &buffer[(tail.offset - from) as usize..filled];
        let at = Position::new(segment, tail.offset as u32);
        let Ok(frame) = Frame::decode(bytes, salt, at, shards) else {
            break;
        };
        for shard in 0..shards {
            tail.appended[usize::from(shard)] = frame.section(shard).after();
        }
        if frame.kind == FrameKind::End {
            tail.ended = true;
            break;
        }
        tail.frames += 1;
        tail.offset += u64::from(frame.len_bytes());
    }
    Ok(tail)
}

/// Counts the intact frames that begin behind a broken place.
fn intact_frames_behind(
    file: &dyn SegmentFile,
    salt: Salt,
    segment: u32,
    from: u64,
    size: u64,
) -> io::Result<u64> {
    let mut found = 0;
    // Twice the largest frame is read at a time: the first half is searched for beginnings.
    let mut buffer = vec![0; 2 * FRAME_BYTES_MAX];
    let mut base = from;
    while base < size {
        let filled = file.read_at(&mut buffer, base)?;
        let mut at = 0;
        while at < FRAME_BYTES_MAX.min(filled) {
            let place = Position::new(segment, (base + at as u64) as u32);
            match Frame::decode_any(&buffer[at..filled], salt, place) {
                Ok(frame) => {
                    found += 1;
                    at += frame.len_bytes() as usize;
                }
                Err(FrameError::Invalid | FrameError::Short(_)) => at += FRAME_ALIGN,
            }
        }
        base += FRAME_BYTES_MAX as u64;
    }
    Ok(found)
}

/// Copies what is intact to a new file, ends it, syncs it, and puts it in place of the old one.
///
/// Shape:  the new file's length in bytes
fn write_sealed(
    storage: &dyn Storage,
    name: &str,
    from: &dyn SegmentFile,
    end: Position,
    header: &SegmentHeader,
    tail: &Tail,
    now: Timestamp,
) -> io::Result<u64> {
    let copy = storage.create(SEAL_NAME)?;
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let mut at = 0;
    while at < tail.offset {
        let len = (tail.offset - at).min(buffer.len() as u64) as usize;
        let read = from.read_at(&mut buffer[..len], at)?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        copy.write_all_at(&buffer[..read], at)?;
        at += read as u64;
    }
    copy.write_all_at(&end_frame(end, header, tail, now), tail.offset)?;
    copy.sync_data()?;
    storage.rename(SEAL_NAME, name)?;
    storage.sync()?;
    copy.size_bytes()
}

/// Writes what is intact once more where it stands, and ends it, where no room is left for a copy.
///
/// A page that is written again is written by the next sync, whatever became of it before. Every
/// byte is what a reader sees there already, so that a crash on the way takes nothing.
///
/// Shape:  the file's length in bytes
fn seal_in_place(
    file: &dyn SegmentFile,
    end: Position,
    header: &SegmentHeader,
    tail: &Tail,
    now: Timestamp,
) -> io::Result<u64> {
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let mut at = 0;
    while at < tail.offset {
        let len = (tail.offset - at).min(buffer.len() as u64) as usize;
        let read = file.read_at(&mut buffer[..len], at)?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        file.write_all_at(&buffer[..read], at)?;
        at += read as u64;
    }
    file.write_all_at(&end_frame(end, header, tail, now), tail.offset)?;
    file.sync_data()?;
    file.size_bytes()
}

/// The frame that ends a run behind its last intact one.
fn end_frame(end: Position, header: &SegmentHeader, tail: &Tail, now: Timestamp) -> Vec<u8> {
    let mut frame = Vec::new();
    let sections = vec![Section::default(); usize::from(header.shards)];
    encode_frame(
        FrameKind::End,
        Salt::of(header.run_id),
        end,
        now,
        &sections,
        &tail.appended,
        &mut frame,
    );
    frame
}

fn damaged(segment: &str, offset: u64, what: &str) -> RecoveryError {
    RecoveryError::Damaged {
        segment: segment.to_owned(),
        offset,
        what: what.to_owned(),
    }
}
