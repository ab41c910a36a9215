//! Opens a log: finds its runs, the true end of each, and damage.
//!
//! Older runs are never appended to. If a run was not closed, its last segment is read frame by frame and the
//! intact frames are sealed (`sealing`). A torn frame is what a crash leaves: it was never acknowledged. An intact
//! frame *after* a torn one proves damage, because a frame is written only after the previous one was synced. Such
//! a log is refused.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use super::catalog::{Run, Segment, parse_segment_name, parse_spare_name};
use super::frame::{FrameKind, Position, Salt};
use super::header::{HeaderError, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::scan::{Met, scan};
use super::sealing::{SEAL_NAME, Unended};
use super::storage::{SegmentFile, Storage};
use crate::reading::{StreamCounts, Timestamp};

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// An error of the system.
    #[error("cannot read the write-ahead log: {0}")]
    Io(#[from] io::Error),
    /// Damage with intact data after it, or a missing segment.
    #[error(
        "the write-ahead log is damaged in {segment} at byte {offset}: {what}. Nothing was \
         changed. `wattgate wal verify` lists the damage, and `wattgate wal repair` copies the intact \
         frames to another directory"
    )]
    Damaged {
        /// The file.
        segment: String,
        /// The offset in the file.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// A segment of another version of the format.
    #[error("the segment {segment} of the write-ahead log cannot be read: {what}")]
    Version {
        /// The file.
        segment: String,
        /// The version.
        what: String,
    },
}

/// What a log's directory holds.
#[derive(Debug)]
pub struct Recovered {
    /// All runs that hold data, oldest first, each with its end.
    pub runs: VecDeque<Run>,
    /// Spare segments of the configured size.
    pub spares: VecDeque<String>,
    /// The number of the next run.
    pub next_sequence: u64,
}

/// Finds the runs of a log, and seals runs that were not closed.
///
/// Blocks: until every change is durable
///
/// # Errors
/// [`RecoveryError`]: the log on disk is unchanged.
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
                // A spare of another size, or a file left unfinished by a crash: it holds nothing.
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

/// The segments of one run, with their headers.
struct RunFiles {
    segments: VecDeque<Segment>,
    headers: Vec<SegmentHeader>,
    /// The last segment, if its header is torn. Nothing in it was ever acknowledged.
    torn: Option<String>,
}

/// Recovers one run; `None` if nothing in it was ever durable. The flag means that files have changed.
fn recover_run(
    storage: &dyn Storage,
    sequence: u64,
    files: &[(u32, String)],
    spares: &mut VecDeque<String>,
    now: Timestamp,
) -> Result<(Option<Run>, bool), RecoveryError> {
    let mut found = read_headers(storage, sequence, files)?;
    let mut torn: Vec<String> = found.torn.take().into_iter().collect();
    // The run ends in its last segment with an intact frame. A segment is begun only after the previous one was
    // ended durably, so at most one segment has none.
    let run = loop {
        let (Some(last), Some(header)) = (found.segments.back(), found.headers.last()) else {
            break None;
        };
        let file = storage.open(&last.name)?;
        let tail = read_tail(&*file, header, last.number)?;
        if let Some(offset) = tail.damaged_at {
            let what = "a frame is damaged, but intact data follows";
            return Err(damaged(&last.name, offset, what));
        }
        if !tail.ended && tail.frames == 0 {
            torn.push(last.name.clone());
            found.segments.pop_back();
            found.headers.pop();
            continue;
        }
        break Some((tail, *header, file));
    };
    let changed = !torn.is_empty() || run.as_ref().is_some_and(|(tail, ..)| !tail.ended);
    let run = match run {
        Some((tail, header, file)) => {
            let mut segments = found.segments;
            let mut end = Position::START;
            if let Some(last) = segments.back_mut() {
                end = Position::new(last.number, tail.offset as u32);
                if !tail.ended {
                    let unended = Unended {
                        storage,
                        name: &last.name,
                        file: &*file,
                        salt: Salt::of(header.run_id),
                        end,
                        appended: &tail.appended,
                        now,
                    };
                    last.file_bytes = unended.seal(spares)?;
                }
            }
            Some(Run {
                sequence,
                id: header.run_id,
                shards: header.shards,
                segments,
                end: Some(end),
                appended: tail.appended,
            })
        }
        None => None,
    };
    for name in torn {
        storage.remove(&name)?;
    }
    Ok((run, changed))
}

/// Reads the headers of a run's segments in order.
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
            // The last segment's header may be torn, because it is written with the first frame.
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

/// Checks that a segment with a torn header holds nothing beyond its first write.
fn expect_nothing_acknowledged(file: &dyn SegmentFile, name: &str) -> Result<(), RecoveryError> {
    let Some((_, run_id, number)) = parse_segment_name(name) else {
        return Ok(());
    };
    let mut frames = 0;
    scan(file, Salt::of(run_id), number, |met| {
        frames += u64::from(matches!(met, Met::Frame(_)));
        Ok(())
    })?;
    // The first frame is written together with the header. So only a second frame proves that the header was once
    // durable.
    if frames > 1 {
        let what = "its header is damaged, but intact data follows";
        return Err(damaged(name, 0, what));
    }
    Ok(())
}

/// The intact frames of a run's last segment.
#[derive(Debug)]
struct Tail {
    /// The position after the last data frame, which is also that of the end frame, if there is one.
    offset: u64,
    /// Whether there is an end frame.
    ended: bool,
    /// How many data frames there are.
    frames: u64,
    /// The readings of each shard in the whole run, up to here.
    appended: Vec<StreamCounts>,
    /// The first damaged offset, if an intact frame follows it.
    damaged_at: Option<u64>,
}

fn read_tail(file: &dyn SegmentFile, header: &SegmentHeader, number: u32) -> io::Result<Tail> {
    let mut frames = 0;
    let mut appended = vec![StreamCounts::ZERO; usize::from(header.shards)];
    let mut damaged_at = None;
    let end = scan(file, Salt::of(header.run_id), number, |met| {
        match met {
            Met::Hole(hole) => {
                damaged_at.get_or_insert(hole.start);
            }
            Met::Frame(frame) if frame.shards() != header.shards => {
                damaged_at.get_or_insert(u64::from(frame.position.offset()));
            }
            Met::Frame(frame) => {
                for (shard, appended) in (0..).zip(&mut appended) {
                    *appended = frame.section(shard).after();
                }
                frames += u64::from(frame.kind == FrameKind::Data);
            }
        }
        Ok(())
    })?;
    Ok(Tail {
        offset: end.offset,
        ended: end.has_end_frame,
        frames,
        appended,
        damaged_at,
    })
}

fn damaged(segment: &str, offset: u64, what: &str) -> RecoveryError {
    RecoveryError::Damaged {
        segment: segment.to_owned(),
        offset,
        what: what.to_owned(),
    }
}
