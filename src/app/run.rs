//! The gateway from its start to its end.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::credentials::Door;
use super::parts::{Parts, ended_by_itself};
use super::supervise::{Supervisor, WritersSlot};
use super::{AppError, Database, questions, signals};
use crate::alerts;
use crate::analytics::Analyst;
use crate::config::Config;
use crate::failpoint;
use crate::http::{self, Context, Health, Server};
use crate::ingest::admission::Gate;
use crate::ingest::pipeline::Pipeline;
use crate::metrics;
use crate::metrics::{State, StreamSums};
use crate::postgres::ReadPool;
use crate::rollups;
use crate::wal::medium::unsafe_kind;
use crate::wal::progress::Progress;
use crate::wal::storage::{Directory, is_full};
use crate::wal::{Log, LogSource};
use crate::writer::binding::Binding;

/// How long the embedded server is waited for before the gateway listens without it: it recovers
/// after a crash while readings are already taken.
const EMBEDDED_READY: Duration = Duration::from_secs(1);
/// Sessions of the read path.
const READ_POOL: usize = 8;
/// How long a stop waits for the writers where the log has failed: what they lack may be unreadable.
const FAILED_STOP: Duration = Duration::from_secs(5);

/// Runs the gateway until it is told to stop.
///
/// Blocks: until SIGTERM or SIGINT, then until everything is stored or the deadline has passed
///
/// # Errors
/// [`AppError`]: it could not start, or the log has failed.
pub async fn serve(config: Config) -> Result<(), AppError> {
    let mut signals = signals::Signals::new().map_err(|e| AppError::Start(e.to_string()))?;
    let hangup = signals::hangup().map_err(|e| AppError::Start(e.to_string()))?;
    signals::raise_open_files();
    let recorder = metrics::install().map_err(|e| AppError::Start(e.to_string()))?;
    let server = Server::bind(config.listen).map_err(|source| AppError::Listen {
        address: config.listen,
        source,
    })?;
    let address = server
        .local_addr()
        .map_err(|e| AppError::Start(e.to_string()))?;
    // The lock of the log keeps a second gateway away from the embedded server too.
    let wal_dir = config.data.wal_dir();
    let directory = open_directory(&config, &wal_dir)?;
    let binding = open_binding(&wal_dir)?;
    let door = Door::open(&config)?;
    let options = config.log;
    let opening = tokio::task::spawn_blocking(move || Log::open(Arc::new(directory), options));
    let (database, log) = tokio::join!(Database::open(&config.data, EMBEDDED_READY), opening);
    let log = log.map_err(|e| AppError::Start(e.to_string()))?;
    let (database, log) = match (database, log) {
        (Ok(database), Ok(log)) => (database, log),
        (Err(error), _) => return Err(error),
        (Ok(database), Err(error)) => {
            database.close().await;
            return Err(error.into());
        }
    };
    let mut gateway = Gateway::new(&config, &door, &database, &log, recorder)?;
    announce(address, door.tls.is_some(), &database);
    if config.log.sync == crate::wal::SyncMode::Never {
        tracing::warn!("--wal-sync never: a power cut loses acknowledged readings");
    }
    let supervisor = Supervisor::start(&config, &database.target, &log, &binding, &mut gateway);
    gateway
        .parts
        .start("keys and certificates", door.renew(hangup));
    let (stop, stopping) = watch::channel(false);
    let serving = http::serve(server, Arc::clone(&gateway.context), until(stopping));
    let mut serving = tokio::spawn(failpoint::part("server", serving));
    let failure = tokio::select! {
        () = signals.next() => None,
        failure = first_failure(&log, &database, &mut gateway.parts, &mut serving) => Some(failure),
    };
    tracing::info!("stopping: no more readings are accepted");
    gateway.health.set_stopping();
    stop.send_replace(true);
    // One that has ended was seen above.
    if !serving.is_finished()
        && let Err(error) = serving.await
    {
        tracing::error!(%error, "the server has panicked");
    }
    let writers = supervisor.stop().await;
    let within = match failure {
        Some(AppError::LogFailed(_)) => FAILED_STOP,
        _ => config.shutdown_timeout,
    };
    finish(within, gateway, log, writers, &mut signals).await;
    database.close().await;
    tracing::info!("stopped");
    failure.map_or(Ok(()), Err)
}

/// Waits until the log has failed or a part of the gateway has ended by itself.
async fn first_failure(
    log: &Log,
    database: &Database,
    parts: &mut Parts,
    serving: &mut JoinHandle<()>,
) -> AppError {
    let mut failed = log.progress().watch_failed();
    let log_failed = async {
        let failure = failed.wait_for(Option::is_some).await;
        let reason = failure.ok().and_then(|reason| reason.clone());
        AppError::LogFailed(reason.unwrap_or_default())
    };
    let server_ended = async {
        match serving.await {
            Ok(()) => ended_by_itself("server", "it has returned".to_owned()),
            Err(error) => ended_by_itself("server", error.to_string()),
        }
    };
    let database_ended = async {
        match &database.embedded {
            Some(server) => server.ended().await,
            None => std::future::pending().await,
        }
        ended_by_itself("embedded database", "its supervisor has ended".to_owned())
    };
    tokio::select! {
        failure = log_failed => failure,
        failure = parts.ended() => failure,
        failure = server_ended => failure,
        failure = database_ended => failure,
    }
}

/// Opens the log's directory; refuses one where what is synced may be lost all the same, unless
/// the operator has allowed it.
fn open_directory(config: &Config, wal_dir: &Path) -> Result<Directory, AppError> {
    let directory = Directory::open(wal_dir)?;
    match unsafe_kind(wal_dir).map_err(|e| AppError::Start(e.to_string()))? {
        None => {}
        Some(kind) if config.wal_allow_volatile => tracing::warn!(
            kind,
            "--wal-allow-volatile: acknowledged readings may be lost with the file system"
        ),
        Some(kind) => {
            return Err(AppError::Volatile {
                path: wal_dir.to_owned(),
                kind,
            });
        }
    }
    Ok(directory)
}

/// Reads which database the log is bound to, and takes the room to note it where it is not yet.
fn open_binding(wal_dir: &Path) -> Result<Arc<Binding>, AppError> {
    let failed = |e: std::io::Error| AppError::Start(format!("{}: {e}", wal_dir.display()));
    let binding = Binding::load(wal_dir).map_err(failed)?;
    match binding.reserve() {
        // Whatever else is in the log must get out for there to be room again.
        Err(error) if is_full(&error) => {}
        result => result.map_err(failed)?,
    }
    Ok(Arc::new(binding))
}

/// Tells the log what else needs its disk, and a build for tests where to end.
fn prepare(config: &Config, database: &Database, log: &Log) {
    #[cfg(debug_assertions)]
    if let Some((point, times)) = config.end_at {
        crate::failpoint::arm(point, times);
    }
    if let Some(server) = &database.embedded
        && on_one_file_system(&config.data.dir, server.cluster_dir())
    {
        log.leave_free(server.max_wal_bytes());
    }
}

/// Whether two directories share their room; not, where that cannot be told.
fn on_one_file_system(one: &Path, other: &Path) -> bool {
    let device = |of: &Path| std::fs::metadata(of).map(|found| found.dev());
    matches!((device(one), device(other)), (Ok(one), Ok(other)) if one == other)
}

/// Ends the log, lets the writers catch up, and stops what is left.
async fn finish(
    within: Duration,
    gateway: Gateway,
    log: Log,
    writers: WritersSlot,
    signals: &mut signals::Signals,
) {
    gateway.parts.stop().await;
    drop(gateway.context);
    let progress = Arc::clone(log.progress());
    let closed = tokio::task::spawn_blocking(move || log.close()).await;
    if let Some(writers) = writers {
        tokio::select! {
            _ = writers.finish(within) => {}
            // A second signal: what is not stored yet stays in the log.
            () = signals.next() => {}
        }
    }
    warn_of_what_is_left(&progress);
    if let Ok(closed) = closed {
        tokio::task::spawn_blocking(move || closed.stop())
            .await
            .ok();
    }
}

/// Logs how many readings are left in the log, if any are.
fn warn_of_what_is_left(progress: &Progress) {
    if progress.oldest_waits().is_zero() {
        return;
    }
    let snapshot = progress.snapshot();
    let settled = [
        snapshot.tally.stored,
        snapshot.tally.duplicates,
        snapshot.tally.quarantined,
    ];
    let settled: u64 = settled.iter().flatten().sum();
    let readings = snapshot
        .accepted
        .iter()
        .sum::<u64>()
        .saturating_sub(settled);
    tracing::warn!(
        readings,
        "not all readings are stored; the rest is in the log, and is stored after the next start"
    );
}

/// What serves requests, and what is done beside it.
pub(super) struct Gateway {
    context: Arc<Context>,
    pub(super) health: Arc<Health>,
    /// What works beside the server.
    pub(super) parts: Parts,
}

impl Gateway {
    fn new(
        config: &Config,
        door: &Door,
        database: &Database,
        log: &Log,
        recorder: PrometheusHandle,
    ) -> Result<Self, AppError> {
        prepare(config, database, log);
        let health = Arc::new(Health::default());
        let reads = database
            .target
            .pool(READ_POOL)
            .map_err(|e| AppError::Start(e.to_string()))?;
        let progress = Arc::clone(log.progress());
        let gate = Gate::new(
            config.memory_limit_bytes,
            Arc::clone(log.budget()),
            log.sender(),
            Arc::clone(&progress),
        );
        let mut parts = Parts::default();
        parts.start("upkeep of metrics", keep_up(recorder.clone()));
        parts.start("summaries", sum_up(database, log));
        let questions = questions::watch(reads.clone(), Arc::clone(&health));
        parts.start("questions", questions);
        let analyst =
            Analyst::new(config.pipeline.cores, config.energy).with_tariff(config.tariff.clone());
        if let Some(settings) = config.alerts.clone() {
            let (target, reads) = (database.target.clone(), reads.clone());
            parts.start(
                "alerts",
                alerts::run(settings, target, reads, analyst.clone()),
            );
        }
        let metrics = scrape(
            log.source(),
            log.limit_bytes(),
            reads.clone(),
            Arc::clone(&health),
            recorder,
        );
        if let Some(collector) = config.collector.clone() {
            let instance = config.listen.to_string();
            parts.start("collector", collector.run(instance, Arc::clone(&metrics)));
        }
        let context = Context {
            settings: config.http.clone(),
            tls: door.tls.clone(),
            keys: door.keys.clone(),
            pipeline: Pipeline::new(gate, config.pipeline),
            progress,
            reads,
            analyst,
            live: Arc::default(),
            health: Arc::clone(&health),
            metrics,
        };
        Ok(Gateway {
            context: Arc::new(context),
            health,
            parts,
        })
    }
}

/// Sorts the histograms' samples away: without it they pile up between two scrapes.
async fn keep_up(recorder: PrometheusHandle) {
    let mut every = tokio::time::interval(Duration::from_secs(5));
    loop {
        every.tick().await;
        recorder.run_upkeep();
    }
}

/// Sums up the hours of devices beside the server, as long as readings do not wait for long.
fn sum_up(database: &Database, log: &Log) -> impl Future<Output = ()> + Send + use<> {
    let source = log.source();
    let waits: rollups::Waits = Arc::new(move || source.progress().oldest_waits());
    rollups::run(database.target.clone(), waits)
}

/// Makes the function that answers a scrape: the state is published and rendered under one lock,
/// so that two scrapers do not mix theirs.
fn scrape(
    source: LogSource,
    wal_limit_bytes: u64,
    reads: ReadPool,
    health: Arc<Health>,
    recorder: PrometheusHandle,
) -> Arc<dyn Fn() -> String + Send + Sync> {
    let one_at_a_time = std::sync::Mutex::new(());
    Arc::new(move || {
        let _one = one_at_a_time.lock();
        let snapshot = source.progress().snapshot();
        let pool = reads.counts();
        let sums = |s: usize| StreamSums {
            accepted: snapshot.accepted[s],
            stored: snapshot.tally.stored[s],
            duplicates: snapshot.tally.duplicates[s],
            quarantined: snapshot.tally.quarantined[s],
        };
        metrics::publish(&State {
            sums: [sums(0), sums(1)],
            wal_bytes: source.total_bytes(),
            wal_limit_bytes,
            wal_oldest: source.progress().oldest_waits(),
            wal_gap_readings: health.gap_readings(),
            waiting: snapshot.waiting,
            database_up: health.is_database_up(),
            pool: [pool.in_use, pool.idle],
        });
        recorder.render()
    })
}

/// Tells where the gateway and its database are.
#[expect(
    clippy::print_stdout,
    reason = "scripts read the address from the first line of stdout"
)]
fn announce(address: std::net::SocketAddr, encrypted: bool, database: &Database) {
    let scheme = if encrypted { "https" } else { "http" };
    println!("listening on {scheme}://{address}");
    if let Some(server) = &database.embedded {
        println!("database: {}", server.psql_command());
    }
    // Whoever has closed stdout does not want to know.
    std::io::stdout().flush().ok();
    tracing::info!(%address, "listening");
}

async fn until(mut stopping: watch::Receiver<bool>) {
    // A sender that is gone stops too.
    stopping.wait_for(|stop| *stop).await.ok();
}
