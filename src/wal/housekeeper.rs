//! The thread that makes segments ready before they are needed, and lets go of those that are
//! not needed any more.
//!
//! A spare segment is written full of zeros and synced: then an append changes no length and no
//! map of blocks, and its fdatasync costs half as much. A segment goes only when every shard's
//! checkpoint, live status too, has passed it, and when it is behind what is retained for a
//! database that fails over or is restored (invariant 4). What is only retained is given up where the
//! disk has no room for another segment: readings would be refused for its sake.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::append::LogBudget;
use super::appender::segment_room_bytes;
use super::catalog::{Catalog, Run};
use super::frame::Position;
use super::progress::Progress;
use super::retired_runs::GoneRuns;
use super::storage::is_full;
use crate::failpoint;
use crate::failpoint::{Point, reach};
use crate::outage::Outage;

/// How often it looks without being woken: commits move checkpoints and wake nobody.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long it leaves a disk alone that refused a spare.
const RETRY_AFTER_ERROR: Duration = Duration::from_secs(1);
/// Zeros are written in pieces of this size.
const ZEROS: usize = 1 << 20;

/// What storing a byte of the log can take on the database's disk: its history, the index, and both
/// once more in PostgreSQL's own log.
const STORED_TIMES: u64 = 3;

/// How much a log may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogLimits {
    /// On disk, all in.
    pub(super) limit_bytes: u64,
    /// Kept behind the checkpoints.
    pub(super) retain_bytes: u64,
    /// Spare segments to have ready.
    pub(super) spares: usize,
}

pub(super) struct Housekeeper {
    pub(super) catalog: Arc<Catalog>,
    pub(super) progress: Arc<Progress>,
    pub(super) gone: Arc<GoneRuns>,
    pub(super) budget: Arc<LogBudget>,
    pub(super) limits: LogLimits,
    pub(super) shards: u16,
    /// What a database on the same file system needs beside what storing the log takes; 0 where
    /// there is none.
    pub(super) leave_free_bytes: Arc<AtomicU64>,
    pub(super) stop: Arc<AtomicBool>,
}

impl Housekeeper {
    /// Works until it is told to stop.
    pub(super) fn run(self) {
        let mut outage = Outage::default();
        while !self.stop.load(Ordering::Acquire) && !self.progress.has_failed() {
            failpoint::thread("wal-keep");
            let pause = match self.turn() {
                Ok(()) => {
                    if outage.ends() {
                        tracing::info!("the disk takes segments of the write-ahead log again");
                    }
                    LOOK_EVERY
                }
                Err(error) => {
                    if outage.begins() {
                        tracing::error!(%error, "cannot prepare segments of the write-ahead log; \
                            readings are refused when the room already prepared is used up");
                    }
                    RETRY_AFTER_ERROR
                }
            };
            if !self.stop.load(Ordering::Acquire) {
                self.catalog.wait_for_change(pause);
            }
        }
    }

    /// Lets go of what is not needed, and makes what will be.
    pub(super) fn turn(&self) -> io::Result<()> {
        match self.gone.prepare() {
            // It is tried again; segments, which need more room, are what matters.
            Err(error) if is_full(&error) => {}
            result => result?,
        }
        self.retire()?;
        while self.catalog.spares() < self.limits.spares && !self.stop.load(Ordering::Acquire) {
            if self.catalog.total_bytes() + self.catalog.segment_bytes > self.limits.limit_bytes {
                break;
            }
            match self.make_spare() {
                // Readings are refused: they are worth more than what is stored already.
                Err(error) if is_full(&error) && self.catalog.spares() == 0 => {
                    if !self.give_up_retained()? {
                        return Err(error);
                    }
                }
                result => result?,
            }
        }
        Ok(())
    }

    /// Lets the oldest segment go that is only retained, where there is one.
    fn give_up_retained(&self) -> io::Result<bool> {
        let runs = self.catalog.runs();
        let oldest = runs.iter().find(|run| !run.segments.is_empty());
        let Some(run) = oldest.filter(|run| self.passed_segments(run) > 0) else {
            return Ok(false);
        };
        self.let_go(run, run.segments.len() == 1)?;
        Ok(true)
    }

    /// Makes one spare segment, full of zeros, durable.
    pub(super) fn make_spare(&self) -> io::Result<()> {
        self.expect_room()?;
        let name = self.catalog.new_spare_name();
        let result = self.fill(&name);
        if result.is_err() {
            // Give back what a full disk took; there is nothing to add if this fails too.
            drop(self.catalog.storage.remove(&name));
            return result;
        }
        self.offer(name);
        Ok(())
    }

    /// Makes sure that what is taken can be stored: a PostgreSQL whose disk is full cannot even
    /// recover, and the log cannot shrink without it.
    fn expect_room(&self) -> io::Result<()> {
        let leave_free = self.leave_free_bytes.load(Ordering::Relaxed);
        if leave_free == 0 {
            return Ok(());
        }
        let stored: u64 = (self.catalog.runs().iter())
            .flat_map(|run| run.segments.iter().take(self.passed_segments(run)))
            .map(|segment| segment.file_bytes)
            .sum();
        let new = self.catalog.segment_bytes;
        let unstored = self.catalog.total_bytes().saturating_sub(stored) + new;
        let needed = leave_free + STORED_TIMES * unstored + new;
        let free = self.catalog.storage.free_bytes()?;
        if free < needed {
            let what = format!(
                "the disk has {} MiB left, and the database beside the log may need {} MiB",
                free >> 20,
                needed >> 20
            );
            return Err(io::Error::new(io::ErrorKind::StorageFull, what));
        }
        Ok(())
    }

    fn fill(&self, name: &str) -> io::Result<()> {
        let file = self.catalog.storage.create(name)?;
        let zeros = vec![0; ZEROS];
        let mut at = 0;
        while at < self.catalog.segment_bytes {
            let len = (self.catalog.segment_bytes - at).min(ZEROS as u64);
            file.write_all_at(&zeros[..len as usize], at)?;
            at += len;
        }
        file.sync_data()
    }

    fn offer(&self, name: String) {
        self.catalog.add_spare(name);
        self.budget
            .change(segment_room_bytes(self.catalog.segment_bytes, self.shards) as i64);
    }

    /// Lets the oldest segments go that every checkpoint has passed, beyond what is retained.
    fn retire(&self) -> io::Result<()> {
        let runs = self.catalog.runs();
        let passed: Vec<usize> = runs.iter().map(|run| self.passed_segments(run)).collect();
        let mut kept: u64 = runs
            .iter()
            .zip(&passed)
            .flat_map(|(run, n)| run.segments.iter().take(*n))
            .map(|s| s.file_bytes)
            .sum();
        for (run, passed) in runs.iter().zip(passed) {
            for (at, segment) in run.segments.iter().take(passed).enumerate() {
                if kept <= self.limits.retain_bytes {
                    return Ok(());
                }
                kept -= segment.file_bytes;
                self.let_go(run, at + 1 == run.segments.len())?;
            }
            // An older run must be gone before a later one is touched.
            if passed < run.segments.len() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// How many of a run's segments, oldest first, every checkpoint has passed.
    fn passed_segments(&self, run: &Run) -> usize {
        let Some(passed) = self.progress.passed(run.sequence) else {
            return 0;
        };
        run.segments
            .iter()
            .take_while(|segment| {
                let done = run.end.is_some_and(|end| passed >= end);
                done || passed >= Position::start_of(segment.number + 1)
            })
            .count()
    }

    /// Recycles or removes the oldest segment of a run; before the last one goes, what a restored
    /// database is compared with is kept, because the run leaves no other trace.
    fn let_go(&self, run: &Run, is_last: bool) -> io::Result<()> {
        if let Some(end) = run.end.filter(|_| is_last) {
            self.gone.remember(run, end).inspect_err(|error| {
                self.progress.fail(format!(
                    "remembering a run of the log that goes failed: {error}"
                ));
            })?;
        }
        let Some(segment) = self.catalog.oldest(run.sequence) else {
            return Ok(());
        };
        let wanted = segment.file_bytes == self.catalog.segment_bytes
            && self.catalog.spares() < self.limits.spares
            && self.expect_room().is_ok();
        if wanted {
            // Its old frames stay in it: their checksums are salted with their own run and
            // place, so that they are never taken for data.
            let spare = self.catalog.new_spare_name();
            let is_spare = left(self.catalog.storage.rename(&segment.name, &spare))?;
            reach(Point::SegmentGone);
            self.sync_directory()?;
            self.forget_oldest(run);
            if is_spare {
                self.offer(spare);
            }
        } else {
            left(self.catalog.storage.remove(&segment.name))?;
            reach(Point::SegmentGone);
            self.sync_directory()?;
            self.forget_oldest(run);
        }
        Ok(())
    }

    /// Follows the disk: the name of a run's oldest segment is gone from it, durably.
    fn forget_oldest(&self, run: &Run) {
        if let Some((_, true)) = self.catalog.take_oldest(run.sequence) {
            self.progress.forget(run.sequence, run.id);
        }
    }

    /// Makes a step durable before the next: a directory in which a later segment is gone and an
    /// earlier one is not would look as if it had lost data.
    fn sync_directory(&self) -> io::Result<()> {
        self.catalog.storage.sync().inspect_err(|error| {
            self.progress
                .fail(format!("syncing the log's directory failed: {error}"));
        })
    }
}

/// Whether a segment has left its name by this call. `false` means that it had left before: a call
/// that was reported as failed had done its work.
///
/// # Errors
/// As the system gives them: the segment still has its name, and the step is taken again.
fn left(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
