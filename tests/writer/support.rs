//! What the tests share: one server, a database each, and a gateway without its HTTP edge.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{Mutex, OnceCell};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};
use wattgate::ingest::admission::{AckMode, Gate};
use wattgate::postgres::Target;
use wattgate::postgres::embedded::{self, Connection, EmbeddedConfig};
use wattgate::postgres::migrations::{DatabaseSettings, HistoryOptions, migrate};
use wattgate::reading::{Details, Energy, EnergyKind, ExternalId, Reading, Timestamp};
use wattgate::wal::append::RequestRecords;
use wattgate::wal::progress::Progress;
use wattgate::wal::storage::Directory;
use wattgate::wal::{LIMIT_BYTES_MIN, Log, LogOptions, LogSource, SyncMode};
use wattgate::writer::binding::Binding;
use wattgate::writer::{ShardState, WriterOptions, Writers};

/// How long anything may take that is waited for.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// 2024-02-09T15:30:00Z
pub(crate) const NOON: i64 = 1_707_492_600;
pub(crate) const DAY: i64 = 86_400;

/// Waits for a condition, at most until the limit.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    assert!(comes(condition).await, "not within {LIMIT:?}: {what}");
}

/// Whether a condition comes to hold within the limit.
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

/// The one server of this program. It lives on a thread of its own, because each test has a
/// runtime that ends with it; its cluster stays in the build's directory for the next time.
async fn server() -> &'static Connection {
    static SERVER: OnceCell<Connection> = OnceCell::const_new();
    let start = || async {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("writer");
                let server = embedded::start(EmbeddedConfig::new(dir)).await.unwrap();
                sender.send(server.connection().clone()).unwrap();
                // Its watcher stops it when this process ends.
                std::future::pending::<()>().await;
            });
        });
        receiver.await.unwrap()
    };
    SERVER.get_or_init(start).await
}

/// Connects; a cluster that was left in the middle of its work recovers first.
async fn connect(connection: &Connection) -> Client {
    let begun = Instant::now();
    loop {
        match connection.config().connect(NoTls).await {
            Ok((client, driver)) => {
                tokio::spawn(driver);
                return client;
            }
            Err(e)
                if e.code() == Some(&SqlState::CANNOT_CONNECT_NOW) && begun.elapsed() < LIMIT =>
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(e) => panic!("{e:?}"),
        }
    }
}

/// A migrated database of a test's own.
pub(crate) struct Database {
    connection: Connection,
    pub(crate) target: Target,
    pub(crate) settings: DatabaseSettings,
    /// A session of the test.
    pub(crate) sql: Client,
}

impl Database {
    pub(crate) async fn new() -> Self {
        Database::with(HistoryOptions::default()).await
    }

    pub(crate) async fn with(history: HistoryOptions) -> Self {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let server = server().await;
        let name = format!("t{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        {
            let _one = ONE_AT_A_TIME.lock().await;
            let sql = connect(server).await;
            let drop = format!("drop database if exists {name} with (force)");
            sql.batch_execute(&drop).await.unwrap();
            sql.batch_execute(&format!("create database {name}"))
                .await
                .unwrap();
        }
        let connection = server.with_database(&name);
        let sql = connect(&connection).await;
        let settings = migrate(&sql, history).await.unwrap();
        Database {
            target: target(&connection, &connection.socket_dir),
            connection,
            settings,
            sql,
        }
    }

    /// The way to it through another socket.
    pub(crate) fn through(&self, socket_dir: &Path) -> Target {
        target(&self.connection, socket_dir)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.connection.socket_dir.join(".s.PGSQL.5432")
    }

    /// The settings that libpq takes, for a command line.
    pub(crate) fn url(&self) -> String {
        let Connection {
            socket_dir,
            user,
            database,
            ..
        } = &self.connection;
        format!(
            "host={} user={user} dbname={database}",
            socket_dir.display()
        )
    }

    pub(crate) async fn run(&self, sql: &str) {
        self.sql.batch_execute(sql).await.unwrap();
    }

    /// The one number that a query gives.
    pub(crate) async fn count(&self, sql: &str) -> i64 {
        let sql = format!("select ({sql})::bigint");
        self.sql
            .query_one(&sql, &[])
            .await
            .unwrap()
            .get::<_, Option<i64>>(0)
            .unwrap_or(0)
    }

    pub(crate) async fn text(&self, sql: &str) -> String {
        let sql = format!("select ({sql})::text");
        self.sql
            .query_one(&sql, &[])
            .await
            .unwrap()
            .get::<_, Option<String>>(0)
            .unwrap_or_default()
    }

    /// Rows of history, both kinds.
    pub(crate) async fn rows(&self) -> i64 {
        self.count(
            "(select count(*) from meter_readings) + (select count(*) from vehicle_readings)",
        )
        .await
    }

    /// Stored, duplicates, quarantined: what the checkpoints say, both kinds.
    pub(crate) async fn sums(&self) -> [i64; 3] {
        let sum =
            |what: &str| format!("select sum(meter_{what} + vehicle_{what}) from wal_checkpoints");
        [
            self.count(&sum("stored")).await,
            self.count(&sum("duplicates")).await,
            self.count(&sum("quarantined")).await,
        ]
    }

    /// Another session to it.
    pub(crate) async fn session(&self) -> Client {
        connect(&self.connection).await
    }

    /// A session to another database of the same server.
    pub(crate) async fn session_to(&self, name: &str) -> Client {
        connect(&self.connection.with_database(name)).await
    }

    /// Ends the sessions of the writers, as a failing server does.
    pub(crate) async fn end_sessions(&self) -> i64 {
        self.count(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity
             where datname = current_database() and application_name like 'wattgate writer%'",
        )
        .await
    }
}

fn target(connection: &Connection, socket_dir: &Path) -> Target {
    let Connection {
        port,
        user,
        database,
        ..
    } = connection;
    Target::from_socket(socket_dir, *port, user, database).unwrap()
}

/// A meter's reading some seconds after the first.
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

/// A vehicle's reading some seconds after the first.
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

/// How the writers of a test work unless it says otherwise.
pub(crate) const OPTIONS: WriterOptions = WriterOptions {
    batch_rows_max: 50_000,
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
}

impl Gateway {
    /// Opens the log alone: the database is away.
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
        }
    }

    /// Opens the log and starts the writers.
    pub(crate) fn start(dir: &Path, shards: u16, database: &Database) -> Self {
        let mut gateway = Gateway::open(dir, shards);
        gateway.write(&database.target, database.settings, OPTIONS);
        gateway
    }

    /// Starts the writers.
    pub(crate) fn write(
        &mut self,
        target: &Target,
        settings: DatabaseSettings,
        options: WriterOptions,
    ) {
        let binding = &self.binding;
        self.writers = Some(Writers::start(
            &self.source,
            target,
            binding,
            options,
            settings,
        ));
    }

    pub(crate) fn progress(&self) -> &Arc<Progress> {
        self.source.progress()
    }

    /// Sends one request, and waits until it is durable.
    pub(crate) async fn send(&self, readings: &[Reading<'_>]) {
        self.send_as(readings, AckMode::Durable).await;
    }

    /// Sends one request, and waits until it is answered; how many readings are in quarantine, where
    /// that is known.
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

    /// Waits until everything that the log holds is in the database.
    pub(crate) async fn drained(&self) {
        let all_stored = comes(|| async {
            let progress = self.progress();
            let mut older = self.source.runs();
            older.pop();
            older.iter().all(|run| progress.is_run_done(run.sequence))
                && progress.snapshot().waiting.iter().flatten().sum::<u64>() == 0
        });
        assert!(all_stored.await, "not stored: {:?}", self.down());
        let sums = self.progress().snapshot();
        let tally = sums.tally.readings();
        assert_eq!(sums.accepted, tally, "invariant 10: {sums:?}");
    }

    /// Stops as SIGTERM does: what is in the log is stored.
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

    /// Stops as a kill does, as far as the database can tell: its sessions end where they are.
    pub(crate) async fn kill(mut self) {
        // Not only dropped: a task that is aborted keeps the log until the runtime comes to it, and
        // what it reads on another thread for longer. A process that was killed keeps nothing.
        if let Some(writers) = self.writers.take() {
            writers.finish(Duration::ZERO).await;
        }
        let log = self.log.take().unwrap();
        tokio::task::spawn_blocking(move || log.close().stop())
            .await
            .unwrap();
        let dir = self.dir.clone();
        drop(self);
        until("the log is free", || async {
            Directory::open(&dir).is_ok()
        })
        .await;
    }

    /// Whether a writer says that it does not reach the database, and why.
    pub(crate) fn down(&self) -> Option<String> {
        let states = self.writers.as_ref()?.states();
        states.iter().find_map(|state| match &*state.borrow() {
            ShardState::Down(why) => Some(why.clone()),
            _ => None,
        })
    }

    /// Waits until a writer says so, with some words in it.
    pub(crate) async fn says(&self, words: &str) {
        let said = comes(|| async { self.down().is_some_and(|why| why.contains(words)) });
        assert!(said.await, "not said: {words}, but {:?}", self.down());
    }

    /// Waits until all writers reach the database.
    pub(crate) async fn up(&self) {
        until("all writers are up", || async {
            let states = self.writers.as_ref().unwrap().states();
            states.iter().all(|state| state.borrow().is_up())
        })
        .await;
    }
}

/// How often batches were tried again for a reason, in this process.
pub(crate) fn retries(sqlstate: &str) -> f64 {
    let text = recorder().render();
    let start = format!("wattgate_batch_retries_total{{sqlstate=\"{sqlstate}\"}}");
    let line = text.lines().find(|line| line.starts_with(&start));
    line.map_or(0.0, |line| {
        line.rsplit(' ').next().unwrap().parse().unwrap()
    })
}

/// Installs the metrics' recorder, once.
pub(crate) fn recorder() -> &'static PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| wattgate::metrics::install().unwrap())
}

pub(crate) fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}
