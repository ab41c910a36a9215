//! The writers: from the log into PostgreSQL, in micro-batches, exactly once.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `shard_writer` | one writer: connects, claims its shards, reconnects |
//! | `drain` | one shard of one run: waits, gathers, stores |
//! | [`batch`] | turns frames of the log into sorted rows |
//! | `order` | the order of a batch's rows |
//! | [`rows`] | rows of history in COPY's binary format |
//! | [`store`] | one batch in one transaction |
//! | `insert` | COPY, and the slower strategies |
//! | `pace` | how many readings a batch holds |
//! | `shares` | what one writer may hold in memory |
//! | `backoff` | how long a writer lingers and backs off |
//! | [`session`] | a session's statements and its claim |
//! | [`strategy`] | what an SQLSTATE means, and how a batch is retried |
//! | `dirty_hours` | marks hours to be rolled up again |
//! | [`newest_seen`] | which rows may be repeats |
//! | [`live`] | live status, coalesced |
//! | [`quarantine`] | readings that the database refuses |
//! | [`retry`] | stores readings from the quarantine |
//! | [`restored`] | what a restored database lacks of runs that the log has retired |
//! | [`accepted`] | gaps that an operator has accepted as lost |
//! | [`binding`] | which database a log stores into |
//! | `maintenance` | partitions ahead of time, and retention |
//!
//! # Rules
//!
//! - **A dead session may still commit.** A transaction whose connection was lost can commit after its successor
//!   has read the checkpoint. Therefore every claim raises an epoch in the checkpoint's row, and each batch first
//!   moves the position `where epoch = mine and position = mine`. If that updates no row, another session has
//!   taken over.
//! - **Ids belong to a session.** After a failover the same device may have another id, and a stale cache would
//!   credit one device's energy to another. The cache is dropped with the session. Unknown texts are looked up
//!   first. Only missing ones are inserted, sorted bytewise, in a transaction of their own. So repeats use up no
//!   ids, and two gateways do not deadlock.
//! - **Live status is coalesced.** If a crash came between history and the live upsert, a device that then stays
//!   silent would show an old reading forever. The checkpoint therefore has a second position for live status, and
//!   a restart replays from the lower of the two.
//! - **Quarantine is an allow-list of SQLSTATEs**: only errors that a reading itself can cause. A missing
//!   partition has the SQLSTATE of a broken constraint (23514), but is not one. Every unknown error is blamed on
//!   the environment, and the writer waits.
//! - **A log is bound to a database.** Each database has a random id, and the log keeps the id of the first one it
//!   is stored in. With a wrong `DATABASE_URL` the log must not drain elsewhere: any other id stops the writers,
//!   while readings are still accepted.
//! - **A checkpoint before the oldest segment is a gap.** It is counted and logged, and the gateway is not ready
//!   until an operator accepts it. For each retired run, the log remembers its end and its number of readings.
//! - **Rows are sorted by (table, partition, device, time).** Two gateways then take locks in one order, and
//!   neighbouring rows are neighbours in the index.
//! - **Repeats come in bursts.** COPY is the fastest strategy while there are none. After the first 23505 a writer
//!   looks up the rows that may be repeats and copies the rest, until twenty batches in a row were clean.
//! - **A writer that is behind takes larger batches** (`pace`), because more rows then share each index page.
//!   Batches grow only while each is full and stored within 2 s. They are moderate while a client waits for the
//!   commit. If COPY fails for a large batch, it is read again in moderate parts, because looking up rows holds
//!   them in memory several times.
//! - **Live status gets only readings that it may lack.** A session remembers the newest reading that it stored
//!   for each device, and sends no older one. It assumes nothing about readings that another gateway stored or
//!   that were refused.
//! - **A batch that misses its deadline is retried smaller** (`pace`): with half of the rows, down to one frame.
//!   The deadline is the server's or the gateway's. While a reading has waited for more than two minutes, the
//!   gateway is not ready.
//! - **No statement may leave the planner a choice of plans.** Statistics are stale exactly where new data is:
//!   PostgreSQL expects one row there, and a join of keys with history became quadratic. So keys are looked up one by
//!   one, in a lateral subquery. Grouping it by the primary key keeps the planner from pulling it up.
//!   `tests/writer/plans.rs` runs every file of `sql/queries` on few rows and on many, with absent, stale and fresh
//!   statistics.
//! - **The writers' memory does not grow with the shards** (`shares`): caches, batches and buffers are fixed
//!   totals, divided among the writers. A full cache evicts an eighth, never everything.
//! - **A checkpoint moves only if a shard has something to store.** A client that requests `ack=committed` waits
//!   for its own readings in each shard, not for the position where its request ends.
//! - **Committed means settled**: in history, as a new reading or a repeat of an equal one, or in quarantine. The
//!   response has the number of quarantined readings, or `null` if that is unknown because a session was lost.
//! - **An idle writer watches its session.** If the database is restored, its lost readings must be found even
//!   when no new ones arrive.
//! - **COPY's `finish` is not a commit.** `ack=committed` waits for the response to COMMIT itself, and checks it:
//!   for a failed transaction COMMIT reports ROLLBACK without an error.

pub mod accepted;
mod backoff;
pub mod batch;
pub mod binding;
mod dirty_hours;
mod drain;
mod insert;
pub mod live;
mod maintenance;
pub mod newest_seen;
mod order;
mod pace;
pub mod quarantine;
pub mod restored;
pub mod retry;
pub mod rows;
pub mod session;
mod shard_writer;
mod shares;
pub mod store;
pub mod strategy;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::failpoint;
use crate::postgres::Target;
use crate::postgres::migrations::DatabaseSettings;
use crate::wal::LogSource;
use binding::Binding;
use drain::Resources;
use shard_writer::ShardWriter;
use shares::{READS_AT_ONCE, Shares};

/// How the writers work.
#[derive(Debug, Clone, Copy)]
pub struct WriterOptions {
    /// The most rows in a batch; the last log frame may exceed it. With many writers it is lowered, so that all
    /// batches together stay within a bound.
    pub batch_rows_max: usize,
    /// The most rows of the first batches, and of batches in which rows are looked up. Batches grow beyond it only
    /// while they are full and the server stores them quickly. A slow server therefore never begins with a large
    /// batch that misses its deadline.
    pub moderate_rows: usize,
    /// How long a small batch waits for more.
    pub linger: Duration,
    /// How stale live status may become under load.
    pub live_interval: Duration,
    /// Up to this many devices, live status is written with every batch, however recent the last write.
    pub live_at_once_devices: usize,
    /// How long the database may take for one response before the session is dropped. A whole batch may take twice
    /// that.
    pub answer_within: Duration,
}

impl WriterOptions {
    /// The default of `answer_within`, equal to the server's own statement timeout.
    pub const ANSWER_WITHIN: Duration = Duration::from_secs(60);
    /// The default of `live_at_once_devices`: upserting 256 rows takes about 1 ms, and a batch that is not full
    /// has already lingered for 25 ms.
    pub const LIVE_AT_ONCE_DEVICES: usize = 256;
    /// The default of `moderate_rows`. It is limited because looking up rows holds each in memory several times.
    pub const MODERATE_ROWS: usize = 100_000;
    /// The valid range of `batch_rows_max`.
    pub const BATCH_ROWS: RangeInclusive<u64> = 100..=1_000_000;
    /// The longest `linger`.
    pub const LINGER_MAX: Duration = Duration::from_secs(10);
    /// The longest `live_interval`.
    pub const LIVE_INTERVAL_MAX: Duration = Duration::from_secs(60);
}

/// Whether a writer reaches the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardState {
    /// No attempt yet.
    Starting,
    /// Connected and storing.
    Up,
    /// Waiting before the next attempt, for this reason.
    Down(String),
}

impl ShardState {
    /// Whether it is connected and storing.
    pub fn is_up(&self) -> bool {
        *self == ShardState::Up
    }
}

/// All writers of a gateway.
pub struct Writers {
    tasks: JoinSet<()>,
    /// One task, in a set so that it is aborted when the writers are dropped.
    maintenance: JoinSet<()>,
    states: Vec<watch::Receiver<ShardState>>,
    retention: watch::Receiver<Option<Duration>>,
    /// Whether a writer ended before the log did.
    is_incomplete: bool,
}

impl Writers {
    /// Starts one writer per shard. The database must be migrated.
    pub fn start(
        source: &LogSource,
        target: &Target,
        binding: &Arc<Binding>,
        options: WriterOptions,
        settings: DatabaseSettings,
    ) -> Self {
        let progress = Arc::clone(source.progress());
        target.on_move(move || progress.moved_server());
        let writers = source.progress().shards();
        let reads = Arc::new(Semaphore::new(READS_AT_ONCE));
        let shares = Shares::new(writers, &options);
        let mut tasks = JoinSet::new();
        let mut states = Vec::new();
        let settled = Arc::default();
        for number in 0..writers {
            let (state, watched) = watch::channel(ShardState::Starting);
            states.push(watched);
            let writer = ShardWriter {
                number,
                writers,
                target: target.clone(),
                binding: Arc::clone(binding),
                resources: Resources {
                    source: source.clone(),
                    options,
                    shares,
                    reads: Arc::clone(&reads),
                },
                settled: Arc::clone(&settled),
                state,
            };
            tasks.spawn(failpoint::part("a writer", writer.run()));
        }
        let mut maintenance = JoinSet::new();
        let (kept, retention) = watch::channel(settings.retention);
        let work = maintenance::maintain(target.clone(), source.clone(), settings, kept);
        maintenance.spawn(failpoint::part("database maintenance", work));
        Writers {
            tasks,
            maintenance,
            states,
            retention,
            is_incomplete: false,
        }
    }

    /// Waits until a writer or the maintenance task ends unexpectedly. Returns which one, and how it ended. Call
    /// it only while the log is open, because writers end after that.
    ///
    /// Cancel: safe
    pub async fn ended(&mut self) -> (&'static str, String) {
        let (part, ended) = tokio::select! {
            ended = self.tasks.join_next() => {
                self.is_incomplete = true;
                ("a writer", ended)
            }
            ended = self.maintenance.join_next() => ("database maintenance", ended),
        };
        match ended {
            Some(Err(error)) => (part, error.to_string()),
            _ => (part, "it returned".to_owned()),
        }
    }

    /// The state of each writer's connection.
    pub fn states(&self) -> Vec<watch::Receiver<ShardState>> {
        self.states.clone()
    }

    /// How long the database keeps history. `None` means forever.
    pub fn retention(&self) -> watch::Receiver<Option<Duration>> {
        self.retention.clone()
    }

    /// Waits until everything in the log is stored, or until the deadline. The log must have been ended.
    ///
    /// Shape:  whether everything is stored
    pub async fn finish(mut self, within: Duration) -> bool {
        let mut is_whole = !self.is_incomplete;
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                is_whole &= ended.is_ok();
            }
        };
        let done = tokio::time::timeout(within, all).await.is_ok();
        self.tasks.shutdown().await;
        self.maintenance.shutdown().await;
        done && is_whole
    }
}
