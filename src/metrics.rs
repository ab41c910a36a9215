//! Every metric, as a typed function. No other file names a metric.
//!
//! Names and labels are documented in `docs/src/monitoring.md`. Histograms are counted per batch, per
//! sync and per request, never per reading.

use std::time::Duration;

use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::reading::{PerStream, Stream, StreamCounts};

/// Upper bounds of durations, in seconds: from a fast fdatasync to a batch's deadline.
const SECONDS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    10.0, 60.0,
];
/// Upper bounds of counts of readings.
const READINGS: [f64; 11] = [
    1.0, 10.0, 50.0, 100.0, 500.0, 1e3, 5e3, 1e4, 2.5e4, 5e4, 1e5,
];

/// Installs the recorder for this process and describes every metric.
///
/// # Errors
/// A recorder is installed already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(
            Matcher::Full("wattgate_wal_sync_readings".to_owned()),
            &READINGS,
        )?
        .set_buckets_for_metric(Matcher::Full("wattgate_batch_rows".to_owned()), &READINGS)?
        .install_recorder()?;
    describe();
    metrics_process::Collector::default().describe();
    let version = env!("CARGO_PKG_VERSION");
    let revision = option_env!("WATTGATE_REVISION").unwrap_or("unknown");
    gauge!("wattgate_build_info", "version" => version, "revision" => revision).set(1.0);
    Ok(handle)
}

/// Counters of one stream at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct StreamSums {
    /// Became durable since the start, or waited in the log at the start.
    pub accepted: u64,
    /// Stored in history.
    pub stored: u64,
    /// Found stored already.
    pub duplicates: u64,
    /// In quarantine.
    pub quarantined: u64,
}

/// The state of the log and the database at one moment.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// The counters of invariant 10, by stream.
    pub sums: PerStream<StreamSums>,
    /// Readings that wait, by shard and stream.
    pub waiting: Vec<StreamCounts>,
    /// The log on disk.
    pub wal_bytes: u64,
    /// The most disk space that it may use.
    pub wal_limit_bytes: u64,
    /// How long the oldest waiting reading has waited.
    pub wal_oldest: Duration,
    /// Readings that had left the log before they could be stored.
    pub wal_gap_readings: u64,
    /// Whether the writers reach the database.
    pub database_up: bool,
    /// Sessions of the read pool that are in use, and that are idle.
    pub pool: [usize; 2],
    /// The timeline of the server in use; `None` means that no server has shown it.
    pub timeline: Option<u32>,
    /// Servers that are refused because a newer one was seen.
    pub refused_servers: usize,
    /// The most sessions that the read pool opens.
    pub pool_limit: usize,
    /// Read replicas; `None` without any.
    pub replicas: Option<Replicas>,
}

/// The read replicas at one moment.
#[derive(Debug, Clone, Default)]
pub struct Replicas {
    /// Each by its host and port: whether it follows the primary, and how far it is behind.
    pub each: Vec<(String, bool, Duration)>,
    /// Queries that replicas have answered.
    pub answered: u64,
    /// Queries that the primary was asked instead, by reason.
    pub left: Vec<(&'static str, u64)>,
}

/// Publishes a state. All its values come from one moment.
pub fn publish(state: &State) {
    for stream in Stream::ALL {
        let sums = state.sums[stream];
        let name = stream.name();
        counter!("wattgate_readings_accepted_total", "stream" => name).absolute(sums.accepted);
        counter!("wattgate_readings_stored_total", "stream" => name).absolute(sums.stored);
        counter!("wattgate_readings_duplicate_total", "stream" => name).absolute(sums.duplicates);
        counter!("wattgate_readings_quarantined_total", "stream" => name)
            .absolute(sums.quarantined);
        for (shard, waiting) in state.waiting.iter().enumerate() {
            let waits = waiting[stream] as f64;
            gauge!("wattgate_wal_readings", "shard" => shard.to_string(), "stream" => name)
                .set(waits);
        }
    }
    gauge!("wattgate_wal_bytes").set(state.wal_bytes as f64);
    gauge!("wattgate_wal_limit_bytes").set(state.wal_limit_bytes as f64);
    gauge!("wattgate_wal_oldest_seconds").set(state.wal_oldest.as_secs_f64());
    gauge!("wattgate_wal_gap_readings").set(state.wal_gap_readings as f64);
    gauge!("wattgate_database_up").set(f64::from(u8::from(state.database_up)));
    for (name, sessions) in ["busy", "idle"].into_iter().zip(state.pool) {
        gauge!("wattgate_pool_connections", "state" => name).set(sessions as f64);
    }
    if let Some(timeline) = state.timeline {
        gauge!("wattgate_database_timeline").set(f64::from(timeline));
    }
    gauge!("wattgate_database_servers_refused").set(state.refused_servers as f64);
    gauge!("wattgate_pool_connections_limit").set(state.pool_limit as f64);
    if let Some(replicas) = &state.replicas {
        publish_replicas(replicas);
    }
    metrics_process::Collector::default().collect();
}

fn publish_replicas(replicas: &Replicas) {
    for (name, follows, lag) in &replicas.each {
        let up = f64::from(u8::from(*follows));
        gauge!("wattgate_replica_up", "replica" => name.clone()).set(up);
        let lag = lag.as_secs_f64();
        gauge!("wattgate_replica_lag_seconds", "replica" => name.clone()).set(lag);
    }
    counter!("wattgate_replica_queries_total").absolute(replicas.answered);
    for (reason, queries) in &replicas.left {
        counter!("wattgate_replica_fallbacks_total", "reason" => *reason).absolute(*queries);
    }
}

/// Records one fdatasync of the log and how many readings it made durable.
pub fn wal_synced(took: Duration, readings: u64) {
    histogram!("wattgate_wal_sync_duration_seconds").record(took.as_secs_f64());
    histogram!("wattgate_wal_sync_readings").record(readings as f64);
}

/// Records how many readings a committed batch held.
pub fn batch_rows(rows: usize) {
    histogram!("wattgate_batch_rows").record(rows as f64);
}

/// A step of storing a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchStep {
    /// History, by COPY or a slower strategy.
    Copy,
    /// Live status.
    Live,
    /// COMMIT.
    Commit,
}

/// Records how long a step of a batch took.
pub fn batch_step(step: BatchStep, took: Duration) {
    let step = match step {
        BatchStep::Copy => "copy",
        BatchStep::Live => "live",
        BatchStep::Commit => "commit",
    };
    histogram!("wattgate_batch_duration_seconds", "step" => step).record(took.as_secs_f64());
}

/// Counts a batch that is tried again, or a writer that connects again, by SQLSTATE. A failure without
/// one has a word of its own.
pub fn batch_retried(sqlstate: &str) {
    counter!("wattgate_batch_retries_total", "sqlstate" => sqlstate.to_owned()).increment(1);
}

/// Records how long the oldest reading of a batch waited from its acceptance to the commit.
pub fn store_lag(lag: Duration) {
    histogram!("wattgate_store_lag_seconds").record(lag.as_secs_f64());
}

/// Counts an answered request and how long it took.
///
/// Each thread keeps its handles, so that a request needs no look-up in the registry. They belong to the
/// recorder that was installed when the thread first used them.
pub fn http_request(
    route: &'static str,
    method: &'static str,
    status: u16,
    ack: Option<&'static str>,
    took: Duration,
) {
    REQUESTS.with_borrow_mut(|known| {
        let (count, duration) = known
            .entry((route, method, status, ack))
            .or_insert_with(|| {
                let count = counter!(
                    "wattgate_http_requests_total",
                    "route" => route,
                    "method" => method,
                    "status" => status.to_string()
                );
                let name = "wattgate_http_request_duration_seconds";
                let duration = match ack {
                    Some(ack) => histogram!(name, "route" => route, "ack" => ack),
                    None => histogram!(name, "route" => route),
                };
                (count, duration)
            });
        count.increment(1);
        duration.record(took.as_secs_f64());
    });
}

/// What the handles of a request depend on: its route, method, status, and requested acknowledgement.
type Answered = (&'static str, &'static str, u16, Option<&'static str>);

/// The handles, by what they depend on: a few for each route.
type Requests = hashbrown::HashMap<Answered, (metrics::Counter, metrics::Histogram)>;

thread_local! {
    static REQUESTS: std::cell::RefCell<Requests> = std::cell::RefCell::default();
}

/// Counts a request that was refused because of overload.
pub fn http_shed(reason: &'static str) {
    http_sheds(reason, 1);
}

fn http_sheds(reason: &'static str, requests: u64) {
    counter!("wattgate_http_shed_total", "reason" => reason).increment(requests);
}

/// Sets the counters of refusals to 0: a rate needs a value before the first increase.
pub fn refusals_from_zero(reasons: &[&'static str], codes: &[&'static str]) {
    for &reason in reasons {
        http_sheds(reason, 0);
    }
    for &code in codes {
        for stream in Stream::ALL {
            readings_rejected(stream, code, 0);
        }
    }
}

/// Counts rejected readings, by the rule that they broke.
pub fn readings_rejected(stream: Stream, code: &'static str, readings: u64) {
    counter!(
        "wattgate_readings_rejected_total",
        "stream" => stream.name(),
        "code" => code
    )
    .increment(readings);
}

/// Counts fields that were ignored because their sender asked for it.
pub fn fields_ignored(stream: Stream, fields: u64) {
    counter!("wattgate_fields_ignored_total", "stream" => stream.name()).increment(fields);
}

/// Changes the number of open connections.
pub fn http_connections(change: i64) {
    gauge!("wattgate_http_connections").increment(change as f64);
}

/// Counts idle connections that were closed to make room for others.
pub fn http_evicted(connections: u64) {
    counter!("wattgate_http_connections_evicted_total").increment(connections);
}

/// Changes the number of listeners to the live stream.
pub fn stream_listeners(change: i64) {
    gauge!("wattgate_stream_listeners").increment(change as f64);
}

/// Counts changes published to the listeners.
pub fn stream_events(events: usize) {
    counter!("wattgate_stream_events_total").increment(events as u64);
}

/// Counts listeners that had to reload.
pub fn stream_reset(reason: &'static str) {
    counter!("wattgate_stream_resets_total", "reason" => reason).increment(1);
}

/// Publishes how far hours are rolled up. Only the gateway that rolls up calls it.
pub fn rollups(lag: Duration, waiting_hours: u64, marks: u64) {
    gauge!("wattgate_summaries_lag_seconds").set(lag.as_secs_f64());
    gauge!("wattgate_summaries_backlog").set(waiting_hours as f64);
    gauge!("wattgate_summaries_waiting_marks").set(marks as f64);
}

/// Counts device-hours that a transaction rolled up, and records how long that took.
pub fn rolled_up(device_hours: usize, took: Duration) {
    counter!("wattgate_summaries_made_total").increment(device_hours as u64);
    histogram!("wattgate_summaries_duration_seconds").record(took.as_secs_f64());
}

/// Counts hours of a device that were passed over, because rolling them up failed again and again.
pub fn rollup_passed_over(hours: u64) {
    counter!("wattgate_summaries_passed_over_total").increment(hours);
}

/// Describes metrics, one a line.
macro_rules! describe {
    (@ counter $name:literal $text:literal) => { ::metrics::describe_counter!($name, $text) };
    (@ gauge $name:literal $text:literal) => { ::metrics::describe_gauge!($name, $text) };
    (@ histogram $name:literal $text:literal) => { ::metrics::describe_histogram!($name, $text) };
    ($($kind:ident $name:literal $text:literal)*) => { $(describe!(@ $kind $name $text);)* };
}

fn describe() {
    describe! {
        gauge "wattgate_summaries_lag_seconds" "Rollup lag, reported by the gateway that runs the rollup."
        gauge "wattgate_summaries_backlog" "Hours of history that are not rolled up yet."
        gauge "wattgate_summaries_waiting_marks" "Marks of hours that late readings have made dirty, one for each batch, device and hour."
        counter "wattgate_summaries_made_total" "Device-hours rolled up, counting repeats."
        counter "wattgate_summaries_passed_over_total" "Device-hours that cannot be rolled up, and are read one by one."
        histogram "wattgate_summaries_duration_seconds" "Duration of a rollup transaction."
        counter "wattgate_readings_accepted_total" "Readings that became durable in the log, and those that waited in it at the start."
        counter "wattgate_readings_rejected_total" "Rejected readings, by the rule that they broke."
        counter "wattgate_fields_ignored_total" "Unknown fields that were dropped under unknown=ignore."
        counter "wattgate_readings_stored_total" "Readings stored in history."
        counter "wattgate_readings_duplicate_total" "Readings that were already stored with equal values."
        counter "wattgate_readings_quarantined_total" "Readings in quarantine: refused by the database, or contradicting a stored one."
        gauge "wattgate_wal_readings" "Readings that wait in the write-ahead log."
        gauge "wattgate_wal_bytes" "Size of the write-ahead log on disk."
        gauge "wattgate_wal_limit_bytes" "Size limit of the write-ahead log."
        gauge "wattgate_wal_oldest_seconds" "How long the oldest reading in the write-ahead log has waited."
        gauge "wattgate_wal_gap_readings" "Readings that a restored database lacks and the log no longer holds."
        histogram "wattgate_wal_sync_duration_seconds" "Duration of an fdatasync of the write-ahead log."
        histogram "wattgate_wal_sync_readings" "Readings made durable by one fdatasync."
        histogram "wattgate_batch_rows" "Readings per transaction."
        histogram "wattgate_batch_duration_seconds" "Duration of each step of storing a batch."
        counter "wattgate_batch_retries_total" "Retried batches and lost sessions, by SQLSTATE."
        histogram "wattgate_store_lag_seconds" "From acceptance to commit, for the oldest reading of a batch."
        gauge "wattgate_database_up" "1 if every writer reaches the database, otherwise 0."
        gauge "wattgate_database_timeline" "Timeline of the PostgreSQL server in use; a promotion raises it."
        gauge "wattgate_database_servers_refused" "Servers that accept writes and are refused, because a newer primary was seen."
        gauge "wattgate_pool_connections" "Database sessions for queries, by state."
        gauge "wattgate_pool_connections_limit" "The most database sessions for queries."
        gauge "wattgate_replica_up" "1 if the read replica follows the primary in use, otherwise 0."
        gauge "wattgate_replica_lag_seconds" "How long ago the moment is up to which the read replica was seen to hold everything."
        counter "wattgate_replica_queries_total" "Queries that read replicas have answered."
        counter "wattgate_replica_fallbacks_total" "Queries that the primary was asked instead of a read replica, by reason."
        counter "wattgate_http_requests_total" "Requests answered."
        histogram "wattgate_http_request_duration_seconds" "Duration from the headers of a request to its response."
        gauge "wattgate_http_connections" "Open connections."
        counter "wattgate_http_connections_evicted_total" "Idle connections closed because --max-connections were open and another client waited."
        counter "wattgate_http_shed_total" "Requests refused because of overload."
        gauge "wattgate_stream_listeners" "Open live streams."
        counter "wattgate_stream_events_total" "Changes published to the live stream while it had listeners."
        counter "wattgate_stream_resets_total" "Live streams that missed changes, by reason."
        gauge "wattgate_build_info" "The running version."
    }
}
