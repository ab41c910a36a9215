//! The write-ahead log: a reading is acknowledged once it is durable in the log, and the writers read it
//! from there. The log *is* the buffer before the database.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`frame`] | the format on disk |
//! | [`header`] | the header of a segment |
//! | [`record`] | one reading in a frame |
//! | [`storage`] | the file layer, and the seam for a simulated disk |
//! | [`medium`] | file systems that are unsafe for a log |
//! | `bytes` | little-endian numbers at fixed places |
//! | [`catalog`] | which segments exist |
//! | `scan` | reads a segment frame by frame |
//! | [`recovery`] | opens a log: the true end of each run, and damage |
//! | `sealing` | ends a run that did not end by itself |
//! | `opening` | builds the parts of a log from what recovery found |
//! | [`inspect`] | reads a log without opening it |
//! | [`repair`] | copies the sound part of a damaged log |
//! | [`append`] | the records of a request, and the room that it reserves |
//! | `appender` | the one thread that writes |
//! | `housekeeper` | prepares spare segments, and retires old ones |
//! | [`retired_runs`] | what the log remembers of retired runs |
//! | [`reader`] | a cursor over one shard |
//! | [`progress`] | how far each shard is appended and stored |
//!
//! # Rules
//!
//! - **A position is never used twice.** Unsynced bytes may reach the database and then vanish in a power cut. New
//!   readings at the same position would be before the checkpoint, and skipped forever. So each opening starts a new
//!   *run*: a random id, a new segment, and the number of shards in its header. Older runs are never appended to, and
//!   are drained in order. A checkpoint belongs to (run, shard).
//! - **A reader never passes the synced position.** Only bytes that this process has synced prove
//!   anything: at opening, the intact tail of the last run is copied to a new file and synced.
//! - **Sectors persist in any order.** Within one unsynced write, a later part may survive an earlier one.
//!   So one frame is one write, one checksum and one fdatasync, and no frame is written before the frame
//!   before it is synced. Only an intact later *frame* proves damage in the middle; such a log is refused,
//!   never repaired by guess. The run's id and the position salt each checksum, so that leftovers in a
//!   recycled file never look like data.
//! - **Room is reserved before any acknowledgement**, in segments that are already filled with zeros. A
//!   full disk therefore refuses readings at the edge, and cannot break an acknowledgement. Zero-filled
//!   segments also halve the cost of an fdatasync.
//! - **The log never fills a disk that it shares with its database.** PostgreSQL cannot recover without
//!   room, and the log cannot shrink without PostgreSQL. A segment is made only while three times the
//!   unstored bytes, and PostgreSQL's own log, would still fit.
//! - **Memory follows the disk.** A segment leaves the catalog only when its name has left the directory durably;
//!   a failed rename or unlink is repeated until it succeeds.
//! - **One process holds the directory**, by a lock that lives as long as the process. A copied directory is not a
//!   second log: both copies claim the same checkpoints and end each other's claims.
//! - **There is no timer for group commit.** While the disk syncs, the next group gathers. A lone reading
//!   does not wait.
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
/// A segment is an eighth of the limit, at most this. Larger ones rotate less often but take
/// longer to prepare at the first start.
const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// Requests that wait for the appender. Their bytes are bounded by the gate; this bounds the
/// channel's own memory.
const CHANNEL_REQUESTS: usize = 8192;

/// How a log is to be opened.
#[derive(Debug, Clone, Copy)]
pub struct LogOptions {
    /// Shards of the new run, 1 to [`SHARDS_MAX`]; older runs keep theirs.
    pub shards: u16,
    /// Segments and spares on disk; at least [`LIMIT_BYTES_MIN`]. The other files take 128 KiB.
    pub limit_bytes: u64,
    /// Retained after every checkpoint has passed; at most a quarter of the limit.
    pub retain_bytes: u64,
    /// Whether writes are synced.
    pub sync: SyncMode,
}

impl LogOptions {
    /// The limits that a log may have.
    pub const LIMIT_BYTES: RangeInclusive<u64> = LIMIT_BYTES_MIN..=1 << 50;
    /// How much a log may be configured to retain.
    pub const RETAIN_BYTES: RangeInclusive<u64> = 0..=1 << 50;
}

/// Why a log does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// What is there cannot be used.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// No room for the first segment, or another error of the system.
    #[error("cannot prepare the write-ahead log: {0}")]
    Io(#[from] io::Error),
    /// Not 1 to [`SHARDS_MAX`] shards.
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
    /// Opens a log: recovers what is there, begins a new run, starts its two threads.
    ///
    /// Blocks: until one segment is ready to be written
    ///
    /// # Errors
    /// [`OpenError`]: nothing runs, and nothing on disk was harmed.
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

    /// Where requests reserve their room.
    pub fn budget(&self) -> &Arc<ByteBudget> {
        &self.budget
    }

    /// Where requests go.
    pub fn sender(&self) -> Sender<Message> {
        self.sender.clone()
    }

    /// What the writers read.
    pub fn source(&self) -> LogSource {
        LogSource {
            catalog: Arc::clone(&self.catalog),
            progress: Arc::clone(&self.progress),
            retired: Arc::clone(&self.retired),
        }
    }

    /// The most that the log may take on disk.
    pub fn limit_bytes(&self) -> u64 {
        self.limits.limit_bytes
    }

    /// Leaves room for a database on the same file system. From now on no segment is made unless this much
    /// stays free, in addition to what storing the log takes: PostgreSQL cannot recover on a full disk.
    ///
    /// Units:  bytes
    pub fn leave_free(&self, bytes: u64) {
        self.leave_free_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Ends the run: waits until the requests sent so far are written. Later ones are refused, and readers
    /// stay usable.
    ///
    /// Blocks: until the appender has ended
    pub fn close(self) -> ClosedLog {
        // The appender has already ended only if it has failed. Then there is nothing to end.
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

/// A log that accepts nothing more and is still read by the writers.
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

    /// All runs, oldest first; the last is the current one.
    pub fn runs(&self) -> Vec<Run> {
        self.catalog.runs()
    }

    /// A cursor over one shard of a run, from a position on.
    pub fn reader(&self, run: &Run, shard: u16, from: Position) -> Reader {
        let progress = Arc::clone(&self.progress);
        Reader::new(Arc::clone(&self.catalog), progress, run, shard, from)
    }

    /// Whether the current run has ended: nothing more is appended.
    pub fn current_has_ended(&self) -> bool {
        self.catalog.run_end(self.progress.current_run()).is_some()
    }

    /// The size of the log on disk.
    pub fn total_bytes(&self) -> u64 {
        self.catalog.total_bytes()
    }

    /// The runs that were retired after they were stored into a database, oldest first.
    pub fn retired_into(&self, database: Uuid) -> Vec<RetiredRun> {
        let mut retired = self.retired.stored_into(database);
        // A run is remembered before its last segment is retired, and that can fail.
        let runs = self.catalog.runs();
        retired.retain(|retired| runs.iter().all(|run| run.id != retired.id));
        retired
    }

    /// What the database lacks and the log no longer holds, including retired runs.
    pub fn gaps(&self) -> Vec<Gap> {
        let runs = self.catalog.runs();
        self.progress
            .gaps(runs.iter().map(|run| (run.sequence, run.id)))
    }

    /// Ids of runs that were forgotten since the last call: their checkpoints may be deleted too.
    pub fn take_forgotten(&self) -> Vec<Uuid> {
        self.retired.take_forgotten()
    }
}

#[cfg(test)]
mod tests;
