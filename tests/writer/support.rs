//! Shared by the tests: readings, waits, and a gateway without its HTTP edge.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::PrometheusHandle;
use tempfile::TempDir;
use wattgate::ingest::admission::{AckMode, Gate};
use wattgate::postgres::Target;
use wattgate::reading::{Details, Energy, EnergyKind, ExternalId, Reading, Timestamp};
use wattgate::wal::append::RequestRecords;
use wattgate::wal::progress::Progress;
use wattgate::wal::storage::Directory;
use wattgate::wal::{LIMIT_BYTES_MIN, Log, LogOptions, LogSource, SyncMode};
use wattgate::writer::binding::Binding;
use wattgate::writer::{ShardState, WriterOptions, Writers};

pub(crate) use crate::database::Database;
use crate::proxy::Proxy;

/// The limit of every wait.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// 2024-02-09T15:30:00Z
pub(crate) const NOON: i64 = 1_707_492_600;
pub(crate) const DAY: i64 = 86_400;

/// Waits for a condition, up to the limit.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    assert!(comes(condition).await, "not within {LIMIT:?}: {what}");
}

/// Whether a condition becomes true within the limit.
async fn comes<F: Future<Output = bool>>(condition: impl Fn() -> F) -> bool {
    let begun = Instant::now();
    while !condition().await {
        if begun.elapsed() > LIMIT {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    true
}

/// A meter reading, some seconds after the first one.
pub(crate) fn meter(id: &str, second: i64, kwh: f64) -> Reading<'_> {
    Reading {
        device: ExternalId::new(id).unwrap(),
        at: Timestamp::from_micros((NOON + second) * 1_000_000),
        energy: Energy {
            kwh,
            kind: EnergyKind::Interval,
        },
        details: Details::Meter { voltage: 230.0 },
    }
}

/// A vehicle reading, some seconds after the first one.
pub(crate) fn vehicle(id: &str, second: i64, soc: f64) -> Reading<'_> {
    Reading {
        details: Details::Vehicle {
            soc,
            battery_temp: 25.0,
            place: None,
        },
        ..meter(id, second, 1.0)
    }
}

/// Device ids: the prefix followed by a number from 0 on.
pub(crate) fn ids(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}{n}")).collect()
}

/// A reading of each meter, some seconds after the first one.
pub(crate) fn each<Id: AsRef<str>>(ids: &[Id], second: i64, kwh: f64) -> Vec<Reading<'_>> {
    let ids = ids.iter().map(AsRef::as_ref);
    ids.map(|id| meter(id, second, kwh)).collect()
}

/// The options of the writers, unless a test sets its own.
pub(crate) const OPTIONS: WriterOptions = WriterOptions {
    batch_rows_max: 50_000,
    moderate_rows: 50_000,
    linger: Duration::from_millis(1),
    live_interval: Duration::from_millis(10),
    live_at_once_devices: 0,
    answer_within: Duration::from_secs(20),
};

/// The log and the writers of a gateway, driven as the HTTP edge drives them.
pub(crate) struct Gateway {
    log: Option<Log>,
    pub(crate) gate: Gate,
    pub(crate) source: LogSource,
    pub(crate) writers: Option<Writers>,
    binding: Arc<Binding>,
    dir: PathBuf,
    /// The directory of its log, if no other gateway of the test opens it.
    own_dir: Option<TempDir>,
}

impl Gateway {
    /// Opens a new log without writers, as if the database were unavailable.
    pub(crate) fn fresh(shards: u16) -> Self {
        let own_dir = dir();
        let mut gateway = Gateway::open(own_dir.path(), shards);
        gateway.own_dir = Some(own_dir);
        gateway
    }

    /// Opens the log in a directory without writers, as if the database were unavailable.
    pub(crate) fn open(dir: &Path, shards: u16) -> Self {
        let options = LogOptions {
            shards,
            limit_bytes: LIMIT_BYTES_MIN,
            retain_bytes: LIMIT_BYTES_MIN,
            sync: SyncMode::Always,
        };
        Gateway::open_with(dir, options)
    }

    pub(crate) fn open_with(dir: &Path, options: LogOptions) -> Self {
        let log = Log::open(Arc::new(Directory::open(dir).unwrap()), options).unwrap();
        let gate = Gate::new(
            256 << 20,
            Arc::clone(log.budget()),
            log.sender(),
            Arc::clone(log.progress()),
        );
        Gateway {
            gate,
            source: log.source(),
            log: Some(log),
            writers: None,
            binding: Arc::new(Binding::load(dir).unwrap()),
            dir: dir.to_owned(),
            own_dir: None,
        }
    }

    /// Opens the log and starts the writers.
    pub(crate) fn start(dir: &Path, shards: u16, database: &Database) -> Self {
        let mut gateway = Gateway::open(dir, shards);
        gateway.write(database, OPTIONS);
        gateway
    }

    /// Starts the writers.
    pub(crate) fn write(&mut self, database: &Database, options: WriterOptions) {
        self.write_to(&database.target, database, options);
    }

    /// Starts writers that reach the database through a proxy.
    pub(crate) fn write_through(
        &mut self,
        proxy: &Proxy,
        database: &Database,
        options: WriterOptions,
    ) {
        let target = database.through(proxy.socket_dir());
        self.write_to(&target, database, options);
    }

    fn write_to(&mut self, target: &Target, database: &Database, options: WriterOptions) {
        let binding = &self.binding;
        self.writers = Some(Writers::start(
            &self.source,
            target,
            binding,
            options,
            database.settings,
        ));
    }

    pub(crate) fn progress(&self) -> &Arc<Progress> {
        self.source.progress()
    }

    /// Sends one request and waits until it is durable.
    pub(crate) async fn send(&self, readings: &[Reading<'_>]) {
        self.send_as(readings, AckMode::Durable).await;
    }

    /// Sends one request and waits until everything in the log is in the database.
    pub(crate) async fn store(&self, readings: &[Reading<'_>]) {
        self.send(readings).await;
        self.drained().await;
    }

    /// Sends one request and waits for its acknowledgement. Returns how many readings are in quarantine, if that
    /// is known.
    pub(crate) async fn send_as(&self, readings: &[Reading<'_>], ack: AckMode) -> Option<u64> {
        let mut records = RequestRecords::new(self.gate.shards());
        for reading in readings {
            records.push(reading);
        }
        let admitted = self
            .gate
            .submit(records, self.gate.memory(None), ack)
            .unwrap();
        tokio::time::timeout(LIMIT, self.gate.acknowledge(admitted))
            .await
            .unwrap()
            .unwrap()
    }

    /// Waits until everything in the log is in the database.
    pub(crate) async fn drained(&self) {
        let all_stored = comes(|| async {
            let progress = self.progress();
            let mut older = self.source.runs();
            older.pop();
            older.iter().all(|run| progress.is_run_done(run.sequence))
                && progress.snapshot().waiting() == 0
        });
        assert!(all_stored.await, "not stored: {:?}", self.down());
        let sums = self.progress().snapshot();
        let tally = sums.tally.readings();
        assert_eq!(sums.accepted, tally, "invariant 10: {sums:?}");
    }

    /// Stops as on SIGTERM: what is in the log is stored first.
    pub(crate) async fn stop(mut self) {
        let log = self.log.take().unwrap();
        let closed = tokio::task::spawn_blocking(move || log.close())
            .await
            .unwrap();
        let writers = self.writers.take().unwrap();
        assert!(writers.finish(LIMIT).await, "the writers did not end");
        tokio::task::spawn_blocking(move || closed.stop())
            .await
            .unwrap();
    }

    /// Stops like a kill, from the database's point of view: its sessions end where they are.
    pub(crate) async fn kill(mut self) {
        // Dropping the tasks is not enough. An aborted task holds the log until the runtime gets to it, and its
        // read on another thread holds it even longer. A killed process holds nothing.
        if let Some(writers) = self.writers.take() {
            writers.finish(Duration::ZERO).await;
        }
        let log = self.log.take().unwrap();
        tokio::task::spawn_blocking(move || log.close().stop())
            .await
            .unwrap();
        let dir = self.dir.clone();
        let _own_dir = self.own_dir.take();
        drop(self);
        until("the log is free", || async {
            Directory::open(&dir).is_ok()
        })
        .await;
    }

    /// Why a writer cannot reach the database; `None` means that all can.
    pub(crate) fn down(&self) -> Option<String> {
        let states = self.writers.as_ref()?.states();
        states.iter().find_map(|state| match &*state.borrow() {
            ShardState::Down(why) => Some(why.clone()),
            _ => None,
        })
    }

    /// Waits until a writer reports that it cannot reach the database, for a reason that contains these words.
    pub(crate) async fn reports(&self, words: &str) {
        let reported = comes(|| async { self.down().is_some_and(|why| why.contains(words)) });
        assert!(
            reported.await,
            "not reported: {words}, but {:?}",
            self.down()
        );
    }

    /// Waits until all writers can reach the database.
    pub(crate) async fn up(&self) {
        until("all writers are up", || async {
            let states = self.writers.as_ref().unwrap().states();
            states.iter().all(|state| state.borrow().is_up())
        })
        .await;
    }
}

/// How often batches were retried for a reason, in this process.
pub(crate) fn retries(sqlstate: &str) -> f64 {
    let text = recorder().render();
    let start = format!("wattgate_batch_retries_total{{sqlstate=\"{sqlstate}\"}}");
    let line = text.lines().find(|line| line.starts_with(&start));
    line.map_or(0.0, |line| {
        line.rsplit(' ').next().unwrap().parse().unwrap()
    })
}

/// Installs the metrics recorder once.
pub(crate) fn recorder() -> &'static PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| wattgate::metrics::install().unwrap())
}

pub(crate) fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}
