//! Builds a log from what recovery found.
//!
//! Building and starting are separate steps, so that a test can drive the parts step by step on one thread.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use crossbeam_channel::Sender;
use uuid::Uuid;

use super::append::{ByteBudget, Message};
use super::appender::{Appender, Shared, segment_room_bytes};
use super::catalog::{Catalog, Run};
use super::frame::Position;
use super::header::SHARDS_MAX;
use super::housekeeper::{Housekeeper, LogLimits};
use super::progress::{Progress, RunShard};
use super::recovery::recover;
use super::retired_runs::RetiredRuns;
use super::storage::{Storage, is_full};
use super::{CHANNEL_REQUESTS, Log, LogOptions, OpenError};
use crate::reading::{StreamCounts, Timestamp};

/// The parts of an open log, before its threads are started.
pub(super) struct Parts {
    pub(super) catalog: Arc<Catalog>,
    pub(super) progress: Arc<Progress>,
    pub(super) retired: Arc<RetiredRuns>,
    pub(super) budget: Arc<ByteBudget>,
    pub(super) sender: Sender<Message>,
    pub(super) limits: LogLimits,
    pub(super) appender: Appender,
    pub(super) housekeeper: Housekeeper,
}

impl Parts {
    /// Recovers the runs on disk and begins a new one.
    ///
    /// A log can be opened on a full disk, because only storing its readings frees space. Requests are refused
    /// until the housekeeper has prepared a segment.
    ///
    /// Blocks: until one segment is ready
    ///
    /// # Errors
    /// [`OpenError`]: what is on disk was not harmed.
    pub(super) fn assemble(
        storage: Arc<dyn Storage>,
        options: LogOptions,
        segment_bytes: u64,
    ) -> Result<Self, OpenError> {
        let LogOptions {
            shards,
            limit_bytes,
            ..
        } = options;
        if shards == 0 || shards > SHARDS_MAX {
            return Err(OpenError::Shards(shards));
        }
        let recovered = recover(&*storage, segment_bytes, Timestamp::now())?;
        let retired = Arc::new(RetiredRuns::load(Arc::clone(&storage), &recovered.runs)?);
        let sequence = recovered.next_sequence;
        let progress = Arc::new(Progress::new(sequence, shards));
        for run in &recovered.runs {
            add_ended(&progress, run);
        }
        let run = new_run(sequence, shards)?;
        let budget = Arc::new(ByteBudget::default());
        let room = segment_room_bytes(segment_bytes, shards);
        budget.change(room as i64 * recovered.spares.len() as i64);
        let mut runs = recovered.runs;
        runs.push_back(run.clone());
        let catalog = Arc::new(Catalog::new(storage, segment_bytes, runs, recovered.spares));
        let limits = LogLimits {
            limit_bytes,
            retain_bytes: options.retain_bytes.min(limit_bytes / 4),
            spares: usize::try_from(limit_bytes / segment_bytes / 4)
                .unwrap_or(1)
                .clamp(1, 4),
        };
        let housekeeper = Housekeeper {
            catalog: Arc::clone(&catalog),
            progress: Arc::clone(&progress),
            retired: Arc::clone(&retired),
            budget: Arc::clone(&budget),
            limits,
            shards,
            leave_free_bytes: Arc::default(),
            stop: Arc::new(AtomicBool::new(false)),
        };
        let at_limit = catalog.total_bytes() + segment_bytes > limit_bytes;
        if catalog.spares() == 0 && !at_limit {
            match housekeeper.make_spare() {
                Err(error) if !is_full(&error) => return Err(error.into()),
                // If this fails, the housekeeper logs it and tries again.
                Ok(()) | Err(_) => {}
            }
        }
        let (sender, receiver) = crossbeam_channel::bounded(CHANNEL_REQUESTS);
        let shared = Shared {
            catalog: Arc::clone(&catalog),
            progress: Arc::clone(&progress),
            budget: Arc::clone(&budget),
        };
        let appender = Appender::new(run, shared, receiver, options.sync);
        Ok(Parts {
            catalog,
            progress,
            retired,
            budget,
            sender,
            limits,
            appender,
            housekeeper,
        })
    }

    /// Starts the two threads.
    ///
    /// # Errors
    /// The system cannot create a thread.
    pub(super) fn start(self) -> io::Result<Log> {
        let Parts {
            appender,
            housekeeper,
            ..
        } = self;
        let stop_housekeeper = Arc::clone(&housekeeper.stop);
        let leave_free_bytes = Arc::clone(&housekeeper.leave_free_bytes);
        let panics = |what| FailOnPanic(Arc::clone(&self.progress), what);
        let appends = panics("the thread that writes the log panicked");
        let keeps = panics("the thread that keeps the log's segments panicked");
        Ok(Log {
            catalog: self.catalog,
            progress: self.progress,
            retired: self.retired,
            budget: self.budget,
            sender: self.sender,
            limits: self.limits,
            stop_housekeeper,
            leave_free_bytes,
            appender: spawn("wal-append", move || {
                let _panics = appends;
                appender.run();
            })?,
            housekeeper: spawn("wal-keep", move || {
                let _panics = keeps;
                housekeeper.run();
            })?,
        })
    }
}

/// Marks the log as failed if the thread that owns this value panics. Without its appender or its housekeeper a
/// gateway must stop, instead of refusing requests forever.
struct FailOnPanic(Arc<Progress>, &'static str);

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(reason = self.1, "the write-ahead log has failed");
            self.0.fail(self.1.to_owned());
        }
    }
}

fn add_ended(progress: &Progress, run: &Run) {
    let end = run.end.unwrap_or(Position::START);
    for (shard, appended) in (0u16..).zip(&run.appended) {
        let of_run = RunShard {
            run: run.sequence,
            shard,
        };
        progress.add_ended(of_run, *appended, end);
    }
}

fn new_run(sequence: u64, shards: u16) -> io::Result<Run> {
    Ok(Run {
        sequence,
        id: random_id()?,
        shards,
        segments: [].into(),
        end: None,
        appended: vec![StreamCounts::ZERO; usize::from(shards)],
    })
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
}

fn random_id() -> io::Result<Uuid> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}
