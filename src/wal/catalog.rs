//! The segments of a log: those of the current run, those of older runs, and spares.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use super::frame::{Position, Salt};
use super::storage::{SegmentFile, Storage};
use crate::reading::StreamCounts;

/// The file name of a segment: the run's number and id, and the segment's number. It identifies a segment even if
/// its header is torn.
pub fn segment_name(sequence: u64, run_id: Uuid, number: u32) -> String {
    format!("{sequence:010}-{}-{number:010}.wal", run_id.simple())
}

/// Parses a segment's name. `None` means that the file is of another kind.
pub fn parse_segment_name(name: &str) -> Option<(u64, Uuid, u32)> {
    let mut parts = name.strip_suffix(".wal")?.split('-');
    let sequence = parts.next()?.parse().ok()?;
    let run_id = Uuid::parse_str(parts.next()?).ok()?;
    let number = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some((sequence, run_id, number))
}

/// The name of a spare segment's file.
pub fn spare_name(number: u64) -> String {
    format!("spare-{number:010}")
}

/// Parses a spare's name. `None` means that the file is of another kind.
pub fn parse_spare_name(name: &str) -> Option<u64> {
    name.strip_prefix("spare-")?.parse().ok()
}

/// One segment of a run.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Its number in its run.
    pub number: u32,
    /// Its file.
    pub name: String,
    /// The size of the file on disk.
    pub file_bytes: u64,
}

/// One run: everything written during one opening of the log.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its position among this log's runs.
    pub sequence: u64,
    /// Its id, random; the key of its checkpoints.
    pub id: Uuid,
    /// Its number of shards.
    pub shards: u16,
    /// Its segments, oldest first; empty before the first append.
    pub segments: VecDeque<Segment>,
    /// Where it ends (the position of its last end frame); `None` until the run has ended.
    pub end: Option<Position>,
    /// How many readings each shard holds, those of retired segments included.
    pub appended: Vec<StreamCounts>,
}

impl Run {
    /// The salt of its checksums.
    pub fn salt(&self) -> Salt {
        Salt::of(self.id)
    }

    /// The oldest position that can still be read.
    pub fn first_position(&self) -> Position {
        self.segments
            .front()
            .map_or(Position::START, |s| Position::start_of(s.number))
    }
}

#[derive(Debug, Default)]
struct Files {
    runs: VecDeque<Run>,
    spares: VecDeque<String>,
    next_spare: u64,
}

/// The files of one log, shared by the appender, the readers and the housekeeper.
pub struct Catalog {
    /// The file layer.
    pub storage: Arc<dyn Storage>,
    /// The size of a new segment.
    pub segment_bytes: u64,
    files: Mutex<Files>,
    changed: Condvar,
}

impl Catalog {
    /// Makes a catalog from what recovery found.
    pub fn new(
        storage: Arc<dyn Storage>,
        segment_bytes: u64,
        runs: VecDeque<Run>,
        spares: VecDeque<String>,
    ) -> Self {
        let next_spare = spares
            .iter()
            .filter_map(|s| parse_spare_name(s))
            .max()
            .map_or(0, |n| n + 1);
        let files = Files {
            runs,
            spares,
            next_spare,
        };
        Catalog {
            storage,
            segment_bytes,
            files: Mutex::new(files),
            changed: Condvar::new(),
        }
    }

    /// A snapshot of all runs, oldest first.
    pub fn runs(&self) -> Vec<Run> {
        self.lock().runs.iter().cloned().collect()
    }

    /// Looks up a segment of a run by number.
    ///
    /// Shape:  its file's name, and whether the run has a later segment; `None` if it was retired
    pub fn segment(&self, sequence: u64, number: u32) -> Option<(String, bool)> {
        let files = self.lock();
        let run = files.runs.iter().find(|r| r.sequence == sequence)?;
        let segment = run.segments.iter().find(|s| s.number == number)?;
        let later = run.segments.back().is_some_and(|last| last.number > number);
        Some((segment.name.clone(), later))
    }

    /// Where a run ends. `None` means that it has not ended, or that its end is unknown.
    pub fn run_end(&self, sequence: u64) -> Option<Position> {
        self.lock()
            .runs
            .iter()
            .find(|r| r.sequence == sequence)?
            .end
    }

    /// The disk space of all segments and spares.
    pub fn total_bytes(&self) -> u64 {
        let files = self.lock();
        let used: u64 = files
            .runs
            .iter()
            .flat_map(|r| &r.segments)
            .map(|s| s.file_bytes)
            .sum();
        used + files.spares.len() as u64 * self.segment_bytes
    }

    /// How many spare segments there are.
    pub fn spares(&self) -> usize {
        self.lock().spares.len()
    }

    /// Adds a spare whose file already has the name from [`Catalog::new_spare_name`].
    pub fn add_spare(&self, name: String) {
        let mut files = self.lock();
        files.next_spare += 1;
        files.spares.push_back(name);
        drop(files);
        self.changed.notify_all();
    }

    /// A name for the next spare that no spare has had since the log was opened. It stays the same until the spare
    /// is added, so that a retry overwrites the file of a failed attempt.
    pub fn new_spare_name(&self) -> String {
        spare_name(self.lock().next_spare)
    }

    /// Renames a spare to the next segment of a run.
    ///
    /// The caller must sync the directory before it acknowledges anything in the segment, because only then is the
    /// new name durable. Admission reserves space in existing spares, so one is normally there. If not, the call
    /// waits for one until `deadline` has passed.
    ///
    /// # Errors
    /// I/O errors; `TimedOut` if no spare was added.
    pub fn take_segment(
        &self,
        sequence: u64,
        number: u32,
        deadline: Duration,
    ) -> io::Result<Arc<dyn SegmentFile>> {
        let (mut files, timeout) = self
            .changed
            .wait_timeout_while(self.lock(), deadline, |files| files.spares.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        let Files { runs, spares, .. } = &mut *files;
        let spare = spares.front().filter(|_| !timeout.timed_out());
        let spare = spare.ok_or_else(|| io::Error::from(io::ErrorKind::TimedOut))?;
        let run = runs
            .iter_mut()
            .find(|r| r.sequence == sequence)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let name = segment_name(sequence, run.id, number);
        self.storage.rename(spare, &name)?;
        spares.pop_front();
        let file = self.storage.open(&name)?;
        run.segments.push_back(Segment {
            number,
            name,
            file_bytes: self.segment_bytes,
        });
        drop(files);
        self.changed.notify_all();
        Ok(file)
    }

    /// Records where a run ended and how much it holds.
    pub fn end_run(&self, sequence: u64, end: Position, appended: Vec<StreamCounts>) {
        if let Some(run) = self.lock().runs.iter_mut().find(|r| r.sequence == sequence) {
            run.end = Some(end);
            run.appended = appended;
        }
    }

    /// Records that a segment's file was truncated to its used length.
    pub fn resize(&self, sequence: u64, number: u32, file_bytes: u64) {
        let mut files = self.lock();
        let run = files.runs.iter_mut().find(|r| r.sequence == sequence);
        let segments = run.into_iter().flat_map(|r| &mut r.segments);
        for segment in segments.filter(|s| s.number == number) {
            segment.file_bytes = file_bytes;
        }
    }

    /// A run's oldest segment.
    pub fn oldest(&self, sequence: u64) -> Option<Segment> {
        let files = self.lock();
        let run = files.runs.iter().find(|r| r.sequence == sequence)?;
        run.segments.front().cloned()
    }

    /// Removes a run's oldest segment. Its removal from the directory must be durable already. Otherwise the next
    /// start would find a hole in the segment numbers.
    ///
    /// If the run has ended and this was its last segment, the run is removed too and the flag is true.
    pub fn take_oldest(&self, sequence: u64) -> Option<(Segment, bool)> {
        let mut files = self.lock();
        let at = files.runs.iter().position(|r| r.sequence == sequence)?;
        let run = &mut files.runs[at];
        let segment = run.segments.pop_front()?;
        let is_retired = run.segments.is_empty() && run.end.is_some();
        if is_retired {
            files.runs.remove(at);
        }
        Some((segment, is_retired))
    }

    /// Waits until the catalog changes, for at most this time.
    pub fn wait_for_change(&self, at_most: Duration) {
        drop(self.changed.wait_timeout(self.lock(), at_most));
    }

    /// Wakes the threads that wait for a change.
    pub fn notify(&self) {
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_were_made() {
        let id = Uuid::from_u128(77);
        assert_eq!(
            parse_segment_name(&segment_name(12, id, 3)),
            Some((12, id, 3))
        );
        assert_eq!(parse_spare_name(&spare_name(4)), Some(4));
        for other in ["lock", "database", "1-2.wal", "spare-x", "0000000001.wal"] {
            assert_eq!(parse_segment_name(other), None);
            assert_eq!(parse_spare_name(other), None);
        }
        // Names sort in the order of the log.
        let mut names = [
            segment_name(10, id, 0),
            segment_name(9, id, 11),
            segment_name(9, id, 2),
        ];
        names.sort();
        assert_eq!(names[0], segment_name(9, id, 2));
        assert_eq!(names[2], segment_name(10, id, 0));
    }
}
