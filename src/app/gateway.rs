//! Wires the context of requests, and the parts that run alongside the server.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;

use super::credentials::Credentials;
use super::parts::Parts;
use super::{AppError, Database, questions};
use crate::alerts;
use crate::analytics::Analyst;
use crate::config::Config;
use crate::http::{Context, Health};
use crate::ingest::admission::Gate;
use crate::ingest::pipeline::Pipeline;
use crate::metrics;
use crate::metrics::{State, StreamSums};
use crate::postgres::{Leaves, ReadServers, ReplicasReport, Target};
use crate::reading::{PerStream, Stream};
use crate::rollups;
use crate::wal::{Log, LogSource};

/// Sessions of the read path.
const READ_POOL: usize = 8;

/// The context of requests, and the parts that run alongside the server.
pub(super) struct Gateway {
    pub(super) context: Arc<Context>,
    pub(super) health: Arc<Health>,
    /// The tasks that run alongside the server.
    pub(super) parts: Parts,
}

impl Gateway {
    /// Makes the context of requests, and starts the parts that do not need the writers.
    pub(super) fn new(
        config: &Config,
        credentials: &Credentials,
        database: &Database,
        log: &Log,
        recorder: PrometheusHandle,
    ) -> Result<Self, AppError> {
        prepare(config, database, log);
        let health = Arc::new(Health::default());
        let reads = database
            .target
            .reads(READ_POOL, config.replicas.as_ref())
            .map_err(|e| AppError::Start(e.to_string()))?;
        let progress = Arc::clone(log.progress());
        let gate = Gate::new(
            config.memory_limit_bytes,
            Arc::clone(log.budget()),
            log.sender(),
            Arc::clone(&progress),
        );
        let mut parts = Parts::default();
        parts.start("metrics upkeep", keep_up(recorder.clone()));
        parts.start("summaries", roll_up(database, log));
        let questions = questions::watch(reads.primary().clone(), Arc::clone(&health));
        parts.start("questions", questions);
        let target = database.target.clone();
        parts.start("servers", async move { target.watch_servers().await });
        if config.replicas.is_some() {
            let reads = reads.clone();
            parts.start("replicas", async move { reads.watch_replicas().await });
        }
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
            (reads.clone(), database.target.clone()),
            Arc::clone(&health),
            recorder,
        );
        if let Some(collector) = config.collector.clone() {
            let instance = config.listen.to_string();
            parts.start("collector", collector.run(instance, Arc::clone(&metrics)));
        }
        let context = Context {
            settings: config.http.clone(),
            tls: credentials.tls.clone(),
            keys: credentials.keys.clone(),
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

/// Moves samples into their histograms, because otherwise they pile up between two scrapes.
async fn keep_up(recorder: PrometheusHandle) {
    let mut every = tokio::time::interval(Duration::from_secs(5));
    loop {
        every.tick().await;
        recorder.run_upkeep();
    }
}

/// Rolls up hours while readings do not wait for long.
fn roll_up(database: &Database, log: &Log) -> impl Future<Output = ()> + Send + use<> {
    let source = log.source();
    let waits: rollups::Waits = Arc::new(move || source.progress().oldest_waits());
    rollups::run(database.target.clone(), waits)
}

/// Makes the function that answers a scrape. One lock covers publishing and rendering, so that two scrapes
/// do not mix their states.
fn scrape(
    source: LogSource,
    wal_limit_bytes: u64,
    (reads, target): (ReadServers, Target),
    health: Arc<Health>,
    recorder: PrometheusHandle,
) -> Arc<dyn Fn() -> String + Send + Sync> {
    let one_at_a_time = std::sync::Mutex::new(());
    Arc::new(move || {
        let _one = one_at_a_time.lock();
        let snapshot = source.progress().snapshot();
        let pool = reads.primary().counts();
        let servers = target.servers();
        let sums = |s: Stream| StreamSums {
            accepted: snapshot.accepted[s],
            stored: snapshot.tally.stored[s],
            duplicates: snapshot.tally.duplicates[s],
            quarantined: snapshot.tally.quarantined[s],
        };
        metrics::publish(&State {
            sums: PerStream::from_fn(sums),
            wal_bytes: source.total_bytes(),
            wal_limit_bytes,
            wal_oldest: source.progress().oldest_waits(),
            wal_gap_readings: health.gap_readings(),
            waiting: snapshot.waiting,
            database_up: health.is_database_up(),
            pool: [pool.in_use, pool.idle],
            timeline: servers.timeline,
            refused_servers: servers.refused.len(),
            pool_limit: pool.limit,
            replicas: reads.replicas().map(replicas),
        });
        recorder.render()
    })
}

fn replicas(report: ReplicasReport) -> metrics::Replicas {
    let each = report.replicas.into_iter();
    let reasons = Leaves::ALL.map(Leaves::name);
    metrics::Replicas {
        each: each.map(|it| (it.name, it.follows, it.lag)).collect(),
        answered: report.answered,
        left: reasons.into_iter().zip(report.left).collect(),
    }
}

/// Reserves room for a database on the disk of the log, and arms the failpoint of a build for tests.
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

/// Whether two directories are known to share a file system.
fn on_one_file_system(one: &Path, other: &Path) -> bool {
    let device = |of: &Path| std::fs::metadata(of).map(|found| found.dev());
    matches!((device(one), device(other)), (Ok(one), Ok(other)) if one == other)
}
