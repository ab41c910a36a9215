//! The thread that prepares spare segments and retires old ones.
//!
//! A spare segment is zero-filled and synced in advance. An append then changes neither the file's length nor its
//! block map, and its fdatasync costs half as much. A segment is retired only when every shard's checkpoint has
//! passed it, for live status too (invariant 4). Passed segments may be retained for a while, for a database that
//! fails over or is restored. On a full disk they are retired too, because keeping them would mean refusing
//! readings.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::append::ByteBudget;
use super::appender::segment_room_bytes;
use super::catalog::{Catalog, Run};
use super::frame::Position;
use super::progress::Progress;
use super::retired_runs::RetiredRuns;
use super::storage::is_full;
use crate::failpoint;
use crate::failpoint::{Point, reach};
use crate::outage::Outage;

/// How often the housekeeper checks the checkpoints, because no notification is sent when they move.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The pause after the disk had no space for a spare.
const RETRY_AFTER_ERROR: Duration = Duration::from_secs(1);
/// Zeros are written in chunks of this size.
const ZEROS: usize = 1 << 20;

/// How many bytes on the database's disk may be needed for one byte of the log: the row and its index entry, and
/// both again in PostgreSQL's WAL.
const STORED_TIMES: u64 = 3;

/// How much a log may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogLimits {
    /// The most bytes on disk in total.
    pub(super) limit_bytes: u64,
    /// How many bytes to retain after every checkpoint has passed them.
    pub(super) retain_bytes: u64,
    /// Spare segments to have ready.
    pub(super) spares: usize,
}

pub(super) struct Housekeeper {
    pub(super) catalog: Arc<Catalog>,
    pub(super) progress: Arc<Progress>,
    pub(super) retired: Arc<RetiredRuns>,
    pub(super) budget: Arc<ByteBudget>,
    pub(super) limits: LogLimits,
    pub(super) shards: u16,
    /// The free bytes that a database on the same file system needs, besides the space to store the log's
    /// readings. It is 0 without such a database.
    pub(super) leave_free_bytes: Arc<AtomicU64>,
    pub(super) stop: Arc<AtomicBool>,
}

impl Housekeeper {
    /// Runs until it is stopped.
    pub(super) fn run(self) {
        let mut outage = Outage::default();
        while !self.stop.load(Ordering::Acquire) && !self.progress.has_failed() {
            failpoint::thread("wal-keep");
            let pause = match self.work() {
                Ok(()) => {
                    if outage.ends() {
                        tracing::info!("segments of the write-ahead log can be prepared again");
                    }
                    LOOK_EVERY
                }
                Err(error) => {
                    if outage.begins() {
                        tracing::error!(%error,
                            "cannot prepare segments of the write-ahead log; readings are refused \
                             once the prepared segments are used up");
                    }
                    RETRY_AFTER_ERROR
                }
            };
            if !self.stop.load(Ordering::Acquire) {
                self.catalog.wait_for_change(pause);
            }
        }
    }

    /// Retires segments that are no longer needed, and prepares missing spares.
    pub(super) fn work(&self) -> io::Result<()> {
        match self.retired.prepare() {
            // Retried at the next look. Segments need the space more urgently.
            Err(error) if is_full(&error) => {}
            result => result?,
        }
        self.retire()?;
        while self.catalog.spares() < self.limits.spares && !self.stop.load(Ordering::Acquire) {
            if self.catalog.total_bytes() + self.catalog.segment_bytes > self.limits.limit_bytes {
                break;
            }
            match self.make_spare() {
                // Without a spare, readings are refused. Accepting them is worth more than retaining stored ones.
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

    /// Retires the oldest segment that is kept only for retention. Returns whether there was one.
    fn give_up_retained(&self) -> io::Result<bool> {
        let runs = self.catalog.runs();
        let oldest = runs.iter().find(|run| !run.segments.is_empty());
        let Some(run) = oldest.filter(|run| self.passed_segments(run) > 0) else {
            return Ok(false);
        };
        self.retire_oldest(run)?;
        Ok(true)
    }

    /// Prepares one spare segment, zero-filled and durable.
    pub(super) fn make_spare(&self) -> io::Result<()> {
        self.expect_room()?;
        let name = self.catalog.new_spare_name();
        let result = self.fill(&name);
        if result.is_err() {
            // Frees the space of the partial file. If the removal fails too, it is ignored.
            drop(self.catalog.storage.remove(&name));
            return result;
        }
        self.offer(name);
        Ok(())
    }

    /// Makes sure that the readings in the log can still be stored. PostgreSQL cannot recover on a full disk, and
    /// the log cannot shrink without PostgreSQL.
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

    /// Retires the oldest segments that every checkpoint has passed, except those to retain.
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
            for segment in run.segments.iter().take(passed) {
                if kept <= self.limits.retain_bytes {
                    return Ok(());
                }
                kept -= segment.file_bytes;
                self.retire_oldest(run)?;
            }
            // A run is retired completely before a later one is touched.
            if passed < run.segments.len() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// How many of a run's segments every checkpoint has passed, counted from the oldest.
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

    /// Recycles or removes the oldest segment of a run. Before the last one is removed, the run is recorded as
    /// retired: otherwise no trace would be left to compare a restored database with.
    fn retire_oldest(&self, run: &Run) -> io::Result<()> {
        let Some(segment) = self.catalog.oldest(run.sequence) else {
            return Ok(());
        };
        let last = run.segments.back();
        let is_last = last.is_some_and(|last| last.number == segment.number);
        if let Some(end) = run.end.filter(|_| is_last) {
            self.retired.remember(run, end).inspect_err(|error| {
                self.progress.fail(format!(
                    "recording a retired run of the log failed: {error}"
                ));
            })?;
        }
        let wanted = segment.file_bytes == self.catalog.segment_bytes
            && self.catalog.spares() < self.limits.spares
            && self.expect_room().is_ok();
        if wanted {
            // Its old frames stay in the file. They are never taken for data, because their checksums are salted
            // with their own run and position.
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

    /// Updates the catalog after the removal of a run's oldest segment is durable.
    fn forget_oldest(&self, run: &Run) {
        if let Some((_, true)) = self.catalog.take_oldest(run.sequence) {
            self.progress.forget(run.sequence, run.id);
        }
    }

    /// Makes this step durable before the next one. If an earlier segment were still there and a later one gone,
    /// it would look like lost data.
    fn sync_directory(&self) -> io::Result<()> {
        self.catalog.storage.sync().inspect_err(|error| {
            self.progress
                .fail(format!("syncing the log's directory failed: {error}"));
        })
    }
}

/// Whether this call removed a segment's name. `false` means that an earlier call did, although it reported an
/// error.
///
/// # Errors
/// I/O errors: the segment still has its name, and the step is repeated.
fn left(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
