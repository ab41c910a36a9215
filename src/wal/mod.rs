//! The write-ahead log: a reading is acknowledged once it is durable in the log, and the writers read it
//! from there. The log *is* the buffer before the database.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`frame`] | the format on disk |
//! | [`header`] | the header of a segment |
//! | [`record`] | one reading in a frame |
//! | [`storage`] | the file layer, and the seam for a simulated disk |
//! | [`medium`] | file systems that are not safe for a log |
//! | `bytes` | little-endian numbers at fixed offsets |
//! | [`catalog`] | which segments exist |
//! | `scan` | reads a segment frame by frame |
//! | [`recovery`] | opens a log: the true end of each run, and damage |
//! | `sealing` | ends a run that was not closed |
//! | `opening` | builds a log from what recovery found |
//! | [`inspect`] | reads a log without opening it |
//! | [`repair`] | copies the intact part of a damaged log |
//! | [`append`] | a request's records, and the space it reserves |
//! | `appender` | the one thread that writes |
//! | `housekeeper` | prepares spare segments, and retires old ones |
//! | [`retired_runs`] | what the log records of retired runs |
//! | [`reader`] | a cursor in one shard |
//! | [`progress`] | how far each shard is appended and stored |
//!
//! # Rules
//!
//! - **A position is never used twice.** Unsynced bytes may be read, reach the database, and then vanish in a
//!   power cut. New readings at the same position would be before the checkpoint and be skipped forever. So each
//!   opening starts a new *run*, with a random id, a new segment, and its own number of shards. Older runs are
//!   never appended to, and are drained in order. A checkpoint belongs to (run, shard).
//! - **A reader never passes the synced position.** Only bytes that this process has synced are proof. So when a
//!   log is opened, the intact tail of the last run is copied to a new file and synced.
//! - **Sectors persist in any order.** Within one unsynced write, a later part may survive an earlier one. So one
//!   frame is one write, one checksum and one fdatasync, and no frame is written before the previous one is
//!   synced. Only an intact later *frame* proves damage in the middle. Such a log is refused, never repaired by
//!   guesswork. The run's id and the position salt each checksum, so that old frames in a recycled file never look
//!   like data.
//! - **Space is reserved before any acknowledgement**, in segments that are already filled with zeros. A full disk
//!   therefore refuses readings at the edge and cannot break an acknowledgement. Zero-filled segments also halve
//!   the cost of an fdatasync.
//! - **The log never fills a disk that it shares with its database.** PostgreSQL cannot recover without space, and
//!   the log cannot shrink without PostgreSQL. A segment is prepared only if three times the unstored bytes, and
//!   PostgreSQL's own WAL, would still fit.
//! - **The catalog follows the disk.** A segment leaves the catalog only when its removal from the directory is
//!   durable. A failed rename or unlink is repeated until it succeeds.
//! - **One process owns the directory**, by a lock that lasts as long as the process. A copied directory is not a
//!   second log: both copies would claim the same checkpoints and fence each other.
//! - **Group commit has no timer.** While the disk syncs, the next group forms. A lone reading does not wait.
//!
//! It knows nothing of HTTP or PostgreSQL.

pub mod append;
mod appender;
mod bytes;
pub mod catalog;
pub mod frame;
pub mod header;
mod housekeeper;
pub mod inspect;
pub mod medium;
mod opening;
pub mod progress;
pub mod reader;
pub mod record;
pub mod recovery;
pub mod repair;
pub mod retired_runs;
mod scan;
mod sealing;
pub mod storage;

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::Sender;
use uuid::Uuid;

use append::{ByteBudget, Message};
use catalog::{Catalog, Run};
use frame::Position;
use header::SHARDS_MAX;
use housekeeper::LogLimits;
use opening::Parts;
use progress::{Gap, Progress};
use reader::Reader;
use recovery::RecoveryError;
use retired_runs::{RetiredRun, RetiredRuns};
use storage::Storage;

pub use appender::SyncMode;

/// The smallest limit of a log: eight segments of the smallest size.
pub const LIMIT_BYTES_MIN: u64 = 64 << 20;
/// A segment is an eighth of the limit, but at most this. Larger segments rotate less often, but take longer to
/// prepare at the first start.
const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// Requests waiting for the appender. Admission bounds their bytes; this bounds the memory of the channel itself.
const CHANNEL_REQUESTS: usize = 8192;

/// How to open a log.
#[derive(Debug, Clone, Copy)]
pub struct LogOptions {
    /// The shards of the new run, 1 to [`SHARDS_MAX`]. Older runs keep theirs.
    pub shards: u16,
    /// The most bytes of segments and spares on disk, at least [`LIMIT_BYTES_MIN`]. Other files add 128 KiB.
    pub limit_bytes: u64,
    /// How many bytes to retain after every checkpoint has passed them; at most a quarter of the limit.
    pub retain_bytes: u64,
    /// Whether frames are synced.
    pub sync: SyncMode,
}

impl LogOptions {
    /// The valid range of `limit_bytes`.
    pub const LIMIT_BYTES: RangeInclusive<u64> = LIMIT_BYTES_MIN..=1 << 50;
    /// The valid range of `retain_bytes`.
    pub const RETAIN_BYTES: RangeInclusive<u64> = 0..=1 << 50;
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The files on disk cannot be used.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// No space for the first segment, or another I/O error.
    #[error("cannot prepare the write-ahead log: {0}")]
    Io(#[from] io::Error),
    /// The number of shards is not 1 to [`SHARDS_MAX`].
    #[error("the write-ahead log takes 1 to {SHARDS_MAX} shards, not {0}")]
    Shards(u16),
}

/// An open log.
pub struct Log {
    catalog: Arc<Catalog>,
    progress: Arc<Progress>,
    retired: Arc<RetiredRuns>,
    budget: Arc<ByteBudget>,
    sender: Sender<Message>,
    limits: LogLimits,
    leave_free_bytes: Arc<AtomicU64>,
    stop_housekeeper: Arc<AtomicBool>,
    appender: JoinHandle<()>,
    housekeeper: JoinHandle<()>,
}

impl Log {
    /// Opens a log: recovers the runs on disk, begins a new one, and starts the two threads.
    ///
    /// Blocks: until one segment is ready
    ///
    /// # Errors
    /// [`OpenError`]: nothing is running, and nothing on disk was harmed.
    pub fn open(storage: Arc<dyn Storage>, options: LogOptions) -> Result<Self, OpenError> {
        let limit_bytes = options.limit_bytes.max(LIMIT_BYTES_MIN);
        let segment_bytes = (limit_bytes / 8).min(SEGMENT_BYTES_MAX) & !4095;
        let options = LogOptions {
            limit_bytes,
            ..options
        };
        Ok(Parts::assemble(storage, options, segment_bytes)?.start()?)
    }

    /// How far each shard is appended and stored.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// The space that requests reserve from.
    pub fn budget(&self) -> &Arc<ByteBudget> {
        &self.budget
    }

    /// The channel to the appender.
    pub fn sender(&self) -> Sender<Message> {
        self.sender.clone()
    }

    /// The log as the writers see it.
    pub fn source(&self) -> LogSource {
        LogSource {
            catalog: Arc::clone(&self.catalog),
            progress: Arc::clone(&self.progress),
            retired: Arc::clone(&self.retired),
        }
    }

    /// The most bytes that the log may take on disk.
    pub fn limit_bytes(&self) -> u64 {
        self.limits.limit_bytes
    }

    /// Leaves space for a database on the same file system, because PostgreSQL cannot recover on a full disk. From
    /// now on a segment is prepared only if this many bytes stay free, besides the space to store the log's
    /// readings.
    ///
    /// Units:  bytes
    pub fn leave_free(&self, bytes: u64) {
        self.leave_free_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Ends the run once the requests sent so far are written. Later requests are refused. Readers keep working.
    ///
    /// Blocks: until the appender has ended
    pub fn close(self) -> ClosedLog {
        // Sending fails only if the appender has failed. Then there is nothing to end.
        drop(self.sender.send(Message::Close));
        drop(self.sender);
        if self.appender.join().is_err() {
            self.progress.fail("the log's thread panicked".to_owned());
        }
        ClosedLog {
            catalog: self.catalog,
            stop_housekeeper: self.stop_housekeeper,
            housekeeper: self.housekeeper,
        }
    }
}

/// A log that accepts no more requests. The writers can still read it.
pub struct ClosedLog {
    catalog: Arc<Catalog>,
    stop_housekeeper: Arc<AtomicBool>,
    housekeeper: JoinHandle<()>,
}

impl ClosedLog {
    /// Stops the last thread.
    ///
    /// Blocks: for a moment
    pub fn stop(self) {
        self.stop_housekeeper.store(true, Ordering::Release);
        self.catalog.notify();
        if self.housekeeper.join().is_err() {
            tracing::error!("the log's housekeeper panicked");
        }
    }
}

/// The log as the writers see it.
#[derive(Clone)]
pub struct LogSource {
    catalog: Arc<Catalog>,
    progress: Arc<Progress>,
    retired: Arc<RetiredRuns>,
}

impl LogSource {
    /// How far each shard is appended and stored.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// All runs, oldest first, ending with the current one.
    pub fn runs(&self) -> Vec<Run> {
        self.catalog.runs()
    }

    /// A cursor over one shard of a run, starting at a position.
    pub fn reader(&self, run: &Run, shard: u16, from: Position) -> Reader {
        let progress = Arc::clone(&self.progress);
        Reader::new(Arc::clone(&self.catalog), progress, run, shard, from)
    }

    /// Whether the current run has ended, so that nothing more is appended.
    pub fn current_has_ended(&self) -> bool {
        self.catalog.run_end(self.progress.current_run()).is_some()
    }

    /// The size of the log on disk.
    pub fn total_bytes(&self) -> u64 {
        self.catalog.total_bytes()
    }

    /// The retired runs that were stored in a database, oldest first.
    pub fn retired_into(&self, database: Uuid) -> Vec<RetiredRun> {
        let mut retired = self.retired.stored_into(database);
        // A run is recorded as retired before its last segment is removed, and the removal may have failed.
        let runs = self.catalog.runs();
        retired.retain(|retired| runs.iter().all(|run| run.id != retired.id));
        retired
    }

    /// The readings that are neither in the database nor in the log any more, including those of retired runs.
    pub fn gaps(&self) -> Vec<Gap> {
        let runs = self.catalog.runs();
        self.progress
            .gaps(runs.iter().map(|run| (run.sequence, run.id)))
    }

    /// Ids of runs forgotten since the last call. Their checkpoints may be deleted.
    pub fn take_forgotten(&self) -> Vec<Uuid> {
        self.retired.take_forgotten()
    }
}

#[cfg(test)]
mod tests;
