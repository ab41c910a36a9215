//! The writers: from the log into PostgreSQL, in micro-batches, exactly once.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `shard_writer` | one writer: connects, claims its shards, reconnects |
//! | `drain` | one shard of one run: waits, gathers, stores |
//! | [`batch`] | turns frames of the log into sorted rows |
//! | `order` | the order of a batch's rows |
//! | [`rows`] | rows of history, and COPY's binary format |
//! | [`store`] | one batch in one transaction |
//! | `insert` | COPY, and the slower strategies |
//! | `pace` | how many readings a batch holds |
//! | `shares` | what one writer may hold in memory |
//! | `backoff` | how long a writer waits, for more readings and before the next try |
//! | [`session`] | a session's statements and its claim |
//! | [`strategy`] | what an SQLSTATE means, and how a batch is tried again |
//! | `dirty_hours` | marks hours that must be rolled up again as dirty |
//! | [`newest_seen`] | which rows may be repeats |
//! | [`live`] | live status, coalesced |
//! | [`quarantine`] | readings that the database refuses |
//! | [`retry`] | stores readings from the quarantine |
//! | [`restored`] | what a restored database lacks of runs that the log has retired |
//! | [`accepted`] | gaps that an operator has accepted as lost |
//! | [`binding`] | which database a log stores into |
//! | `maintenance` | partitions ahead, and retention |
//!
//! # Rules
//!
//! - **A dead session may still commit.** A transaction whose connection was lost can commit after its
//!   successor has read the checkpoint. Therefore connecting raises an epoch in the checkpoint's row, and each
//!   batch first moves the position `where epoch = mine and position = mine`. Moving no row means that
//!   another session has taken over.
//! - **Ids belong to a session.** After a failover the same device may have another id, and a stale cache
//!   would give one device's energy to another. The cache is dropped with the session. Unknown texts are looked
//!   up first; only the missing ones are inserted, sorted bytewise, in a transaction of their own. So
//!   repeats use up no ids, and two gateways do not deadlock.
//! - **Live status is coalesced.** A kill between history and its upsert would leave a silent device wrong
//!   forever. The checkpoint therefore holds a second position for live status, and a restart replays
//!   from the lower one.
//! - **Quarantine is an allow-list of SQLSTATEs**: only errors that can be a reading's own fault. A missing partition
//!   has the SQLSTATE of a broken rule (23514), but is not one. Every unknown error is the environment's, and the
//!   writer waits.
//! - **A log is bound to a database.** The database creates a random id, and the log keeps the first id it
//!   stores into. A wrong `DATABASE_URL` must not drain the log elsewhere: any other id stops the writers,
//!   while readings are still accepted.
//! - **A checkpoint before the oldest segment is a gap.** It is counted and logged, and readiness fails
//!   until an operator accepts it. Of a retired run the log remembers its end and its number of readings.
//! - **Rows are sorted by (table, partition, device, time).** Two gateways then take locks in one order, and
//!   neighbouring rows are neighbours in the index.
//! - **Repeats come in bursts.** COPY is right while there are none. After the first 23505 a writer looks up
//!   the rows that may be repeats and copies the rest, until twenty batches were clean.
//! - **A writer that is behind takes larger batches** (`pace`), because rows then share index pages. They grow only
//!   while each is full and stored within 2 s, and are moderate while a client waits for the commit. A large batch that
//!   COPY does not store is read again in moderate parts: rows that are looked up are in memory several times.
//! - **Live status gets only readings that it may lack.** A session remembers the newest reading that it stored of each
//!   device, and sends no older one. It assumes nothing about readings that another gateway stored, or that were
//!   refused.
//! - **A batch that misses its deadline comes back smaller** (`pace`): with half of the rows that were tried, down to
//!   one frame. The deadline is the server's or the gateway's. While a reading waits for more than two minutes
//!   the gateway is not ready.
//! - **No statement has two plans.** Statistics are stale exactly where new data is: PostgreSQL expects one row there,
//!   and a join of keys with history became quadratic. So keys are looked up one by one, in a lateral subquery that is
//!   grouped by the primary key and cannot be pulled up. Every file of `sql/queries` runs in `tests/writer/plans.rs` on
//!   few rows and on many, with statistics that are absent, stale and fresh.
//! - **What a writer holds does not grow with the shards** (`shares`): caches, batches and buffers are fixed
//!   totals, divided. A full cache forgets an eighth, never all.
//! - **A checkpoint moves only if a shard has something to store.** A client that waits for a commit waits for
//!   its own readings in each shard, not for the end of its request.
//! - **Committed means settled**: in history, as new or as the repeat of an equal reading, or in quarantine. The answer
//!   has the number of readings in quarantine, or `null` if a lost session leaves that unknown.
//! - **An idle writer watches its session.** A restored database has lost readings whether or not new ones
//!   arrive.
//! - **COPY's `finish` is not a commit.** An acknowledgement of `committed` waits for COMMIT's own answer, and
//!   checks it: COMMIT of a failed transaction answers ROLLBACK without an error.

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
    /// The most rows in a batch. One further log frame may exceed it. Lower when there are many
    /// writers, so that their batches together stay within a bound.
    pub batch_rows_max: usize,
    /// Rows of a batch at first, and of one in which rows are looked up. Larger ones follow only while batches are
    /// full and the server stores them quickly, so that a slow one does not miss its deadline with many rows first.
    pub moderate_rows: usize,
    /// How long a small batch waits for more.
    pub linger: Duration,
    /// How stale live status may be under load.
    pub live_interval: Duration,
    /// With at most this many devices, live status is written with every batch, however recent the last write.
    pub live_at_once_devices: usize,
    /// How long the database may take for one answer before the session is given up; twice that
    /// for a whole batch.
    pub answer_within: Duration,
}

impl WriterOptions {
    /// The default of `answer_within`: the server's own limit of one statement.
    pub const ANSWER_WITHIN: Duration = Duration::from_secs(60);
    /// The default of `live_at_once_devices`: 256 rows take about 1 ms, and a batch that is not full
    /// has lingered for 25.
    pub const LIVE_AT_ONCE_DEVICES: usize = 256;
    /// The default of `moderate_rows`: where rows are looked up, memory holds each of them several times.
    pub const MODERATE_ROWS: usize = 100_000;
    /// How many rows a batch may be configured to hold.
    pub const BATCH_ROWS: RangeInclusive<u64> = 100..=1_000_000;
    /// The longest `linger`.
    pub const LINGER_MAX: Duration = Duration::from_secs(10);
    /// The longest `live_interval`.
    pub const LIVE_INTERVAL_MAX: Duration = Duration::from_secs(60);
}

/// Whether a writer reaches the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardState {
    /// It has not tried yet.
    Starting,
    /// It stores.
    Up,
    /// It waits before it tries again, for this reason.
    Down(String),
}

impl ShardState {
    /// Whether it stores.
    pub fn is_up(&self) -> bool {
        *self == ShardState::Up
    }
}

/// All writers of a gateway.
pub struct Writers {
    tasks: JoinSet<()>,
    /// One task; in a set, so that it ends when the writers are dropped.
    maintenance: JoinSet<()>,
    states: Vec<watch::Receiver<ShardState>>,
    retention: watch::Receiver<Option<Duration>>,
    /// A writer has ended before the log did.
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

    /// Waits until a writer, or the maintenance, has ended by itself. Returns which and how.
    /// Call it only while the log is open: after that writers end.
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

    /// Follows whether each writer reaches the database.
    pub fn states(&self) -> Vec<watch::Receiver<ShardState>> {
        self.states.clone()
    }

    /// Follows how long the database keeps history. `None` means forever.
    pub fn retention(&self) -> watch::Receiver<Option<Duration>> {
        self.retention.clone()
    }

    /// Waits until everything in the log is stored. The log must have been ended.
    ///
    /// Shape:  whether all of it is stored
    /// Blocks: until then, or until the deadline
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
