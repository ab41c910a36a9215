//! The writers: from the log into PostgreSQL, in micro-batches, exactly once.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `lane` | one writer: waits, gathers, stores, connects again |
//! | [`batch`] | frames of the log become sorted rows |
//! | `order` | the order of a batch's rows |
//! | [`rows`] | rows of history, and COPY's binary format |
//! | [`store`] | one batch, one transaction |
//! | `ways` | COPY, and the slower ways of putting rows into history |
//! | `pace` | how many readings a batch takes |
//! | `shares` | what a writer may hold in memory |
//! | `waits` | how long a writer waits, for more and before the next try |
//! | [`session`] | a session's settings, statements and claim |
//! | [`classify`] | what an SQLSTATE means |
//! | `marks` | which hours are to be summed up again |
//! | [`newest_seen`] | which rows may be repeats |
//! | [`live`] | live status, coalesced |
//! | [`quarantine`] | what is set aside |
//! | [`retry`] | and taken out again |
//! | [`gone`] | runs that have gone from the log, and what the database lacks of them |
//! | [`accepted`] | what an operator has given up as lost |
//! | [`binding`] | which database a log stores into |
//! | `maintenance` | partitions ahead, retention |

pub mod accepted;
mod backoff;
pub mod batch;
pub mod binding;
mod dirty_hours;
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

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::failpoint;
use crate::postgres::Target;
use crate::postgres::migrations::DatabaseSettings;
use crate::wal::LogSource;
use binding::Binding;
use shard_writer::Writer;
use shares::{READS_AT_ONCE, Shares};

/// How the writers work.
#[derive(Debug, Clone, Copy)]
pub struct WriterOptions {
    /// Rows of a batch at most, one frame of the log more; fewer where there are many writers, so
    /// that their batches together stay within a bound.
    pub batch_rows_max: usize,
    /// How long a small batch waits for more.
    pub linger: Duration,
    /// How stale live status may be under load.
    pub live_interval: Duration,
    /// Up to so many devices, live status is written with each batch, whenever the last was.
    pub live_at_once_devices: usize,
    /// How long the database may take for one answer before the session is given up; twice that
    /// for a whole batch.
    pub answer_within: Duration,
}

impl WriterOptions {
    /// How long an answer may take unless told: the server's own limit of one statement.
    pub const ANSWER_WITHIN: Duration = Duration::from_secs(60);
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
    /// A writer has ended before the log did.
    is_incomplete: bool,
}

impl Writers {
    /// Starts one writer a shard. The database must be migrated.
    pub fn start(
        source: &LogSource,
        target: &Target,
        binding: &Arc<Binding>,
        options: WriterOptions,
        settings: DatabaseSettings,
    ) -> Self {
        let writers = source.progress().shards();
        // Where they have time, half of them go at once; of three, one.
        let turns = Arc::new(Semaphore::new(usize::from(writers / 2).max(1)));
        let reads = Arc::new(Semaphore::new(READS_AT_ONCE));
        let shares = Shares::new(writers, options.batch_rows_max);
        let mut tasks = JoinSet::new();
        let mut states = Vec::new();
        for number in 0..writers {
            let (state, watched) = watch::channel(ShardState::Starting);
            states.push(watched);
            let writer = Writer {
                number,
                writers,
                source: source.clone(),
                target: target.clone(),
                binding: Arc::clone(binding),
                options,
                shares,
                reads: Arc::clone(&reads),
                turns: Arc::clone(&turns),
                state,
            };
            tasks.spawn(failpoint::part("a writer", writer.run()));
        }
        let mut maintenance = JoinSet::new();
        let work = maintenance::maintain(target.clone(), source.clone(), settings);
        maintenance.spawn(failpoint::part("maintenance of the database", work));
        Writers {
            tasks,
            maintenance,
            states,
            is_incomplete: false,
        }
    }

    /// Waits until a writer, or the maintenance beside them, has ended by itself. Returns which and how.
    /// To be asked only while the log is open: after that writers end.
    ///
    /// Cancel: safe
    pub async fn ended(&mut self) -> (&'static str, String) {
        let (part, ended) = tokio::select! {
            ended = self.tasks.join_next() => {
                self.is_incomplete = true;
                ("a writer", ended)
            }
            ended = self.maintenance.join_next() => ("maintenance of the database", ended),
        };
        match ended {
            Some(Err(error)) => (part, error.to_string()),
            _ => (part, "it has returned".to_owned()),
        }
    }

    /// Follows whether each writer reaches the database.
    pub fn states(&self) -> Vec<watch::Receiver<ShardState>> {
        self.states.clone()
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
