//! Load: unique readings, on a schedule or as fast as the gateway accepts them. It costs so little that the
//! gateway is measured, not the generator.
//!
//! [`options`] are the flags. [`body`] makes the readings in the [`order`] of devices, [`gzip`] compresses them on
//! request, [`conn`] sends them over HTTP/1.1 and [`streams`] over HTTP/2, [`pacer`] keeps the schedule,
//! [`response`] parses responses, and [`stats`] counts. A connection owns its devices, so that each device's times
//! increase without one connection waiting for another. A new kind of load is a new source of bodies.

pub(crate) mod body;
mod conn;
mod gzip;
mod options;
pub(crate) mod order;
mod pacer;
mod response;
pub(crate) mod stats;
mod streams;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::oracle::{self, Oracle, Stored};
use crate::output::{report, say};
use crate::stop::Stop;
use crate::verdict::Verdict;
use body::{Bodies, Clock, Format, Stream};
use conn::{Conn, Progress, Schedule, Source};
use gzip::Gzip;
pub(crate) use options::Options;
use options::START_BEFORE_US;
use order::Devices;
use pacer::Pacer;
use stats::{Sent, Shared, Stats};
use streams::{Link, Sequence};

/// Why a run has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("{devices} devices are too few for {connections} connections, which share none")]
    Devices { devices: u32, connections: u32 },
    #[error("--rate must be above 0")]
    Rate,
    #[error("no request was answered: {0}")]
    Silent(String),
    #[error(transparent)]
    Oracle(#[from] oracle::OracleError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("the histogram: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
    #[error("the histogram: {0}")]
    Merge(#[from] hdrhistogram::AdditionError),
    #[error("a sending thread failed")]
    Thread,
}

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    seed: u64,
    pub(crate) stats: Stats,
    /// The comparison with the database, if one was given.
    pub(crate) stored: Option<Stored>,
}

impl Outcome {
    /// The result as JSON.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let mut json = json!({ "seed": self.seed, "load": self.stats.to_json() });
        if let Some(stored) = &self.stored {
            json["stored"] = stored.to_json();
        }
        json
    }
}

/// Runs a load and prints the result.
///
/// # Errors
/// [`RunError`], as for [`measure`], or if the report cannot be written.
pub(crate) fn run(options: Options) -> Result<Verdict, RunError> {
    let json = options.json.clone();
    let outcome = measure(options)?;
    report(&outcome.stats.to_text())?;
    if let Some(stored) = &outcome.stored {
        report(&stored.to_text())?;
    }
    if let Some(path) = json {
        std::fs::write(path, format!("{:#}\n", outcome.to_json()))?;
    }
    Ok(outcome
        .stored
        .as_ref()
        .map_or(Verdict::Right, Stored::verdict))
}

/// Sends for the given time, then compares with the database if one was given.
///
/// Blocks: for that time; the load has its own threads
///
/// # Errors
/// [`RunError`]: contradictory options, a gateway that does not respond, or an unreachable database.
pub(crate) fn measure(options: Options) -> Result<Outcome, RunError> {
    measure_until(options, || {})
}

/// Like [`measure`]. Calls `stored` once every acknowledged reading is stored, before it counts them.
///
/// # Errors
/// As for [`measure`].
pub(crate) fn measure_until(
    mut options: Options,
    stored: impl FnOnce(),
) -> Result<Outcome, RunError> {
    if options.format == Format::Single {
        options.readings_per_request = 1;
    }
    if options.devices < options.sequences() {
        return Err(RunError::Devices {
            devices: options.devices,
            connections: options.sequences(),
        });
    }
    if options
        .rate
        .is_some_and(|rate| rate <= 0.0 || !rate.is_finite())
    {
        return Err(RunError::Rate);
    }
    let now_us = jiff::Timestamp::now().as_microsecond();
    let seed = options.seed.unwrap_or(now_us.unsigned_abs());
    let start_us = options
        .start
        .map_or(now_us - START_BEFORE_US, |start| start.at_us(now_us));
    let clock = Clock::new(start_us, options.interval_ms * 1_000, seed);
    say(&format!(
        "seed {seed}, first reading {}",
        jiff::Timestamp::from_microsecond(clock.start_us).unwrap_or_default()
    ));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let stats = send(&options, clock, seed, &runtime)?;
    if stats.requests == 0 {
        return Err(RunError::Silent(stats.error.unwrap_or_default()));
    }
    let mut compared = None;
    if let Some(url) = &options.database_url {
        let oracle = Oracle {
            url,
            clock,
            within: options.stored_within,
        };
        compared = Some(runtime.block_on(oracle.compare(&stats, stored))?);
    }
    Ok(Outcome {
        seed,
        stats,
        stored: compared,
    })
}

/// Sends on separate threads until the time is over and every response has arrived.
fn send(
    options: &Options,
    clock: Clock,
    seed: u64,
    runtime: &tokio::runtime::Runtime,
) -> Result<Stats, RunError> {
    let shared = Arc::new(Shared::default());
    let mut workers: Vec<Vec<Conn>> = (0..options.threads).map(|_| Vec::new()).collect();
    let begin = Instant::now();
    let run = Run {
        options,
        clock,
        seed,
        begin,
        shared: Arc::clone(&shared),
    };
    let sequences = options.sequences();
    let mut paced = Vec::new();
    for index in 0..sequences {
        let conn = run.connection(index)?;
        paced.push(Arc::clone(&conn.is_due));
        // The streams of one HTTP/2 connection are neighbours on one thread.
        let connection = index / (sequences / options.connections);
        workers[(connection % options.threads) as usize].push(conn);
    }
    let pacer = options.between();
    let pacer = pacer.map(|between| Pacer::start(paced, begin, between));
    let streams = options.http2.then_some(options.pipeline as usize);
    let threads: Vec<_> = workers
        .into_iter()
        .map(|conns| std::thread::spawn(move || work(conns, streams)))
        .collect();
    runtime.block_on(watch(&shared, &options.stop, &threads));
    if let Some(pacer) = pacer {
        pacer.stop();
    }
    let mut stats = Stats::new()?;
    for thread in threads {
        for conn in thread.join().map_err(|_| RunError::Thread)?? {
            stats.add(conn)?;
        }
    }
    Ok(stats)
}

/// What the connections of a run share.
struct Run<'a> {
    options: &'a Options,
    clock: Clock,
    seed: u64,
    begin: Instant,
    shared: Arc<Shared>,
}

impl Run<'_> {
    /// Makes one connection with its devices, bodies and schedule.
    fn connection(&self, index: u32) -> Result<Conn, RunError> {
        let options = self.options;
        let edge = |index: u32| {
            let devices = u64::from(options.devices) * u64::from(index);
            (devices / u64::from(options.sequences())) as u32
        };
        let (first, next) = (edge(index), edge(index + 1));
        let devices = Devices::new(first, next - first, options.order, self.seed);
        let schedule = match options.between() {
            None => Schedule::Asap,
            Some(between) => Schedule::At {
                first: self.begin + between * index,
                every: between * options.sequences(),
            },
        };
        let source = |stream: Stream| {
            let bodies = Bodies::new(stream, devices, self.clock, options.format, self.seed);
            Source {
                head: if options.http2 {
                    Vec::new()
                } else {
                    head(options, stream, bodies.length(options.readings_per_request))
                },
                template: streams::template(options, stream),
                gzip: options.gzip.then(Gzip::default),
                bodies,
                sent: Sent {
                    stream,
                    devices,
                    positions: 0,
                    last_acked: None,
                    acked: 0,
                    unknown: 0,
                },
            }
        };
        Ok(Conn {
            authority: options.url.authority.clone(),
            sources: options.stream.list().iter().map(|s| source(*s)).collect(),
            readings: options.readings_per_request,
            positions: options.rounds.map(|rounds| devices.positions(rounds)),
            pipeline: if options.http2 {
                1
            } else {
                options.pipeline as usize
            },
            schedule,
            is_due: Arc::default(),
            until: self.begin + options.duration,
            stats: Stats::new()?,
            shared: Arc::clone(&self.shared),
            progress: Progress::default(),
        })
    }
}

/// The head of every request of a stream. With compressed bodies, the length is left out.
fn head(options: &Options, stream: Stream, length: usize) -> Vec<u8> {
    let query = options.ack.as_ref().map(|ack| format!("?ack={ack}"));
    let key = options.key.as_ref();
    let authorization = key.map(|key| format!("Authorization: Bearer {}\r\n", key.trim()));
    format!(
        "POST {}/v1/ingestion/{}{} HTTP/1.1\r\nHost: {}\r\nContent-Type: {}\r\n{}{}",
        options.url.base,
        stream.name(),
        query.unwrap_or_default(),
        options.url.authority,
        options.format.content_type(),
        authorization.unwrap_or_default(),
        if options.gzip {
            "Content-Encoding: gzip\r\n".to_owned()
        } else {
            format!("Content-Length: {length}\r\n\r\n")
        },
    )
    .into_bytes()
}

/// Drives some connections on this thread until all are done. If `streams` is given, each group of that many is
/// one HTTP/2 connection.
fn work(conns: Vec<Conn>, streams: Option<usize>) -> std::io::Result<Vec<Stats>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        let mut link = Arc::new(Link::default());
        for (index, conn) in conns.into_iter().enumerate() {
            match streams {
                None => drop(tasks.spawn(conn.run())),
                Some(streams) => {
                    if index % streams == 0 {
                        link = Arc::new(Link::default());
                    }
                    let link = Arc::clone(&link);
                    tasks.spawn(Sequence { conn, link }.run());
                }
            }
        }
        let mut all = Vec::new();
        while let Some(stats) = tasks.join_next().await {
            all.push(stats.map_err(std::io::Error::other)?);
        }
        Ok(all)
    })
}

type Thread = std::thread::JoinHandle<std::io::Result<Vec<Stats>>>;

/// Reports progress every second until the threads are done. Ctrl-C and `ended` stop them.
async fn watch(shared: &Shared, ended: &AtomicBool, threads: &[Thread]) {
    let stop = Stop::on_ctrl_c();
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    let began = Instant::now();
    let (mut last, mut before) = (began, [0; 3]);
    while !threads.iter().all(Thread::is_finished) {
        tick.tick().await;
        if stop.is_set() || ended.load(Ordering::Relaxed) {
            shared.stop.store(true, Ordering::Relaxed);
        }
        if last.elapsed() < Duration::from_secs(1) {
            continue;
        }
        let seconds = last.elapsed().as_secs_f64();
        last = Instant::now();
        let now = [&shared.requests, &shared.acked, &shared.not_acked]
            .map(|counter| counter.load(Ordering::Relaxed));
        let rate = |index: usize| (now[index] - before[index]) as f64 / seconds;
        say(&format!(
            "{:>4} s  {:>9.0} requests/s  {:>9.0} readings/s acknowledged  {:>7.0} not  {} in all",
            began.elapsed().as_secs(),
            rate(0),
            rate(1),
            rate(2),
            now[1],
        ));
        before = now;
    }
}
