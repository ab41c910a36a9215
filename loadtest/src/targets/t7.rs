//! T7 and T8: queries over a long history while readings arrive.
//!
//! The window is a day that ends an hour and some minutes before now, so that neither end is on the hour. Arriving
//! readings are from other devices, and after the window. Each query has its own schedule, and its latency counts
//! from the time it was due.

#![expect(
    clippy::disallowed_methods,
    reason = "this tool polls another process, on threads of its own that delay no stop"
)]

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::TargetsError;
use super::cases::{RATE, Run};
use super::database::{INDEX_HITS, query_one};
use super::gateway::Gateway;
use super::history::{self, MINUTE_US, Shape};
use super::loaded::Loaded;
use super::table::{Row, Target};
use crate::generator;
use crate::output::say;

/// How long before now the history ends.
const BEFORE_NOW_US: i64 = 83 * MINUTE_US;
const DAY_US: i64 = 24 * 60 * MINUTE_US;
/// How long before now arriving readings begin, which is after the window.
const ARRIVING_BEFORE_NOW_US: i64 = MINUTE_US;
const SUMMED: &str = include_str!("../../sql/history_summed.sql");
/// The number of hours that are not rolled up yet, including those before the history.
const BACKLOG: &str = "wattgate_summaries_backlog";
/// How long the rollup may take, and how long the first ranking.
const PATIENCE: Duration = Duration::from_secs(1800);
/// How often the progress of the rollup is read.
const ROLLED_UP_EVERY: Duration = Duration::from_secs(1);
/// The highest measured latency. Higher ones count as this.
const LATENCY_US_MAX: u64 = 600_000_000;
/// The file in a filled directory that describes its history.
const SHAPE_FILE: &str = "history.json";

/// A query, and how often it is sent.
struct Question {
    what: &'static str,
    every: Duration,
    most_ms: f64,
}

const QUESTIONS: [Question; 3] = [
    Question {
        what: "one vehicle over 24 hours",
        every: Duration::from_millis(50),
        most_ms: 10.0,
    },
    Question {
        what: "the ranking's first 100 vehicles",
        every: Duration::from_millis(500),
        most_ms: 50.0,
    },
    Question {
        what: "the ranking's first 1,000 vehicles",
        every: Duration::from_secs(1),
        most_ms: 500.0,
    },
];

/// The responses to a query.
struct Answers {
    latency_us: Histogram<u64>,
    failed: u64,
}

/// The measurements of T7 and T8.
struct T7 {
    shape: Shape,
    loaded: Loaded,
    answers: Vec<Answers>,
    rolled_up_seconds: f64,
    first_ranking_seconds: f64,
    /// The share of index blocks that were found in memory, 0 to 1.
    hits: f64,
}

impl Run<'_> {
    pub(super) fn t7(&mut self) -> Result<(), TargetsError> {
        let (gateway, shape) = self.with_history()?;
        let window = window_of(shape);
        let began = Instant::now();
        wait_rolled_up(&gateway, shape.start_us())?;
        wait(
            || gateway.metric(BACKLOG, "") == 0.0,
            "hours before its history are not rolled up",
        )?;
        let rolled_up_seconds = began.elapsed().as_secs_f64();
        say(&format!("rolled up within {rolled_up_seconds:.0} s"));
        let page = |limit: u32| format!("/v1/analytics/performance?{window}&limit={limit}");
        let began = Instant::now();
        wait(
            || gateway.ask("GET", &page(1), "").0 == 200,
            "it gives no ranking",
        )?;
        let first_ranking_seconds = began.elapsed().as_secs_f64();
        say(&format!(
            "the first ranking took {first_ranking_seconds:.1} s"
        ));
        let one = |n: u64| {
            let vehicle = n.wrapping_mul(7919) % u64::from(shape.vehicles()) + 1;
            format!("/v1/analytics/performance/CAR-{vehicle:06}?{window}")
        };
        let (hundred, thousand) = (|_: u64| page(100), |_: u64| page(1000));
        let paths: [&(dyn Fn(u64) -> String + Sync); 3] = [&one, &hundred, &thousand];
        let until = Instant::now() + Duration::from_secs(self.seconds());
        let (loaded, answers) = std::thread::scope(|scope| {
            let load = scope.spawn(|| self.arriving(&gateway));
            let asking = QUESTIONS.iter().zip(paths);
            let asking: Vec<_> = asking
                .map(|(question, path)| {
                    let gateway = &gateway;
                    scope.spawn(move || ask(gateway, question, until, path))
                })
                .collect();
            let answers: Result<Vec<Answers>, TargetsError> = asking
                .into_iter()
                .map(|asked| {
                    let answers = asked.join().map_err(|_| generator::RunError::Thread)?;
                    Ok(answers.map_err(generator::RunError::from)?)
                })
                .collect();
            let loaded = load.join().map_err(|_| generator::RunError::Thread)?;
            Ok::<_, TargetsError>((loaded?, answers?))
        })?;
        let hits: f64 = query_one(&gateway.database_url, INDEX_HITS, &[])?.get(0);
        gateway.stop()?;
        self.push_t7(T7 {
            shape,
            loaded,
            answers,
            rolled_up_seconds,
            first_ranking_seconds,
            hits,
        });
        Ok(())
    }

    fn arriving(&self, gateway: &Gateway) -> Result<Loaded, TargetsError> {
        let now_us = jiff::Timestamp::now().as_microsecond();
        let start = instant(now_us - ARRIVING_BEFORE_NOW_US);
        let rate = RATE.to_string();
        let more = ["--rate", &rate, "--start", &start, "--interval-ms", "100"];
        self.load(gateway, self.seconds(), &more)
    }

    /// Starts a gateway on a directory with the history, either kept from an earlier run or new.
    fn with_history(&mut self) -> Result<(Gateway, Shape), TargetsError> {
        // Only the embedded server's history can be kept.
        let kept = self.history_dir().map(|dir| dir.to_owned());
        let Some(kept) = kept.filter(|_| self.is_embedded()) else {
            let gateway = self.fresh()?;
            let shape = self.fill(&gateway)?;
            return Ok((gateway, shape));
        };
        let file = kept.join(SHAPE_FILE);
        let written = std::fs::read_to_string(&file).ok();
        let end_us = written.and_then(|text| {
            let json: Value = serde_json::from_str(&text).ok()?;
            (json["rows"] == json!(self.history().1)).then(|| json["end_us"].as_i64())?
        });
        let gateway = self.start_on(&kept, None)?;
        gateway.wait_ready()?;
        self.note_version(&gateway)?;
        let shape = match end_us {
            Some(end_us) => self.shape(end_us),
            None => {
                let shape = self.fill(&gateway)?;
                let json = json!({ "rows": shape.rows, "end_us": shape.end_us });
                std::fs::write(file, json.to_string())?;
                shape
            }
        };
        Ok((gateway, shape))
    }

    fn shape(&self, end_us: i64) -> Shape {
        let (devices, rows) = self.history();
        Shape {
            devices,
            rows,
            end_us,
        }
    }

    pub(super) fn fill(&self, gateway: &Gateway) -> Result<Shape, TargetsError> {
        let now_us = jiff::Timestamp::now().as_microsecond();
        let end_us = now_us - BEFORE_NOW_US;
        let shape = self.shape(end_us - end_us % MINUTE_US);
        // One reading at each end creates the partitions of both streams.
        for at_us in [shape.start_us(), shape.end_us] {
            gateway.take_both_at(&instant(at_us));
        }
        gateway.wait_stored()?;
        say(&format!("copying {} readings", shape.rows));
        let began = Instant::now();
        history::fill(&gateway.database_url, shape)?;
        let seconds = began.elapsed().as_secs_f64();
        say(&format!(
            "{:.0} readings/s copied",
            shape.rows as f64 / seconds
        ));
        Ok(shape)
    }

    fn push_t7(&mut self, measured: T7) {
        let (shape, loaded) = (measured.shape, &measured.loaded);
        let under = format!(
            "{} readings of {} devices, {RATE:.0} readings/s arriving",
            shape.rows, shape.devices
        );
        for (question, answers) in QUESTIONS.iter().zip(measured.answers) {
            let latency = &answers.latency_us;
            let at = |quantile| latency.value_at_quantile(quantile) as f64 / 1000.0;
            self.push(Row {
                unit: "ms",
                target: Target::AtMost(question.most_ms),
                is_right: loaded.is_right() && answers.failed == 0,
                detail: json!({
                    "asked": latency.len(), "failed": answers.failed, "p50Ms": at(0.5),
                    "p90Ms": at(0.9), "maxMs": at(1.0), "summedUpSeconds": measured.rolled_up_seconds,
                    "firstRankingSeconds": measured.first_ranking_seconds, "load": loaded.to_json(),
                }),
                ..self.row("T7", format!("{}: p99; {under}", question.what), at(0.99))
            });
        }
        self.push(Row {
            unit: "%",
            target: Target::AtLeast(99.0),
            ..self.row(
                "T8",
                "index hits of history under T7".to_owned(),
                100.0 * measured.hits,
            )
        });
    }
}

pub(super) fn instant(at_us: i64) -> String {
    jiff::Timestamp::from_microsecond(at_us)
        .unwrap_or_default()
        .to_string()
}

fn window_of(shape: Shape) -> String {
    let from = instant(shape.end_us - DAY_US);
    format!("from={from}&to={}", instant(shape.end_us))
}

/// Sends a query on a fixed schedule. A late response delays the next query, but its latency still counts from the
/// time it was due.
fn ask(
    gateway: &Gateway,
    question: &Question,
    until: Instant,
    path: &(dyn Fn(u64) -> String + Sync),
) -> Result<Answers, hdrhistogram::CreationError> {
    let mut answers = Answers {
        latency_us: Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?,
        failed: 0,
    };
    let mut due = Instant::now();
    let mut asked = 0;
    while due < until {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let (status, _) = gateway.ask("GET", &path(asked), "");
        if status != 200 {
            answers.failed += 1;
        }
        answers
            .latency_us
            .saturating_record(due.elapsed().as_micros() as u64);
        due += question.every;
        asked += 1;
    }
    Ok(answers)
}

/// Whether all hours since `start_us` are rolled up and none is dirty.
pub(super) fn is_rolled_up(gateway: &Gateway, start_us: i64) -> bool {
    let row = query_one(&gateway.database_url, SUMMED, &[&start_us]);
    row.is_ok_and(|row| row.get(0))
}

/// Waits until then. It checks rarely, because each check costs the measured server some milliseconds.
pub(super) fn wait_rolled_up(gateway: &Gateway, start_us: i64) -> Result<(), TargetsError> {
    let until = Instant::now() + PATIENCE;
    while !is_rolled_up(gateway, start_us) {
        if Instant::now() > until {
            let why = "its history is not rolled up".to_owned();
            return Err(TargetsError::Gateway(why));
        }
        std::thread::sleep(ROLLED_UP_EVERY);
    }
    Ok(())
}

fn wait(is_so: impl Fn() -> bool, why: &str) -> Result<(), TargetsError> {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        if Instant::now() > until {
            return Err(TargetsError::Gateway(why.to_owned()));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
