//! The targets: the load of each, and its limit.

#![expect(
    clippy::disallowed_methods,
    reason = "this tool polls another process, on threads of its own that delay no stop"
)]

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::database::{INDEX_HITS, query_one};
use super::gateway::{Gateway, Resident};
use super::machine::Machine;
use super::plot;
use super::table::{Row, Target};
use super::{Options, TargetsError};
use crate::generator::{self, Options as Load, Outcome};
use crate::limits::{Bare, copy};
use crate::oracle::Stored;
use crate::verdict::Verdict;

/// The cases that can be measured alone. T5 (memory) comes with T1 and T6, and T8 (the index in memory) with T4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Case {
    T1,
    T2,
    T3,
    T4,
    T6,
    T7,
    T9,
    T10,
}

/// The most rows of L1, for which the disk must have room; T1 may store more.
const L1_ROWS_MAX: u64 = 200_000_000;

/// How long before now the readings of a load begin, so that their times stay behind the clock.
const BEGINS_BEFORE_NOW: Duration = Duration::from_secs(60);

/// The arrival rate of T4 and T6, in readings a second.
pub(super) const RATE: f64 = 100_000.0;

/// With fewer waiting readings the gateway has caught up: a second of arrivals.
const CAUGHT_UP_READINGS: f64 = RATE;

impl Case {
    pub(super) const ALL: [Case; 8] = [
        Case::T1,
        Case::T2,
        Case::T3,
        Case::T4,
        Case::T6,
        Case::T7,
        Case::T9,
        Case::T10,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Case::T1 => "T1, T5",
            Case::T2 => "T2",
            Case::T3 => "T3",
            Case::T4 => "T4, T8",
            Case::T6 => "T6, T5",
            Case::T7 => "T7, T8",
            Case::T9 => "T9",
            Case::T10 => "T10",
        }
    }
}

/// The measurements so far.
pub(super) struct Run<'a> {
    options: &'a Options,
    limits: HashMap<&'static str, f64>,
    rows: Vec<Row>,
    postgresql: String,
    /// The memory over the time of T6, as a picture.
    plot: Option<String>,
}

impl<'a> Run<'a> {
    pub(super) fn new(options: &'a Options) -> Self {
        Run {
            options,
            limits: HashMap::new(),
            rows: Vec::new(),
            postgresql: String::new(),
            plot: None,
        }
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(super) fn postgresql(&self) -> &str {
        &self.postgresql
    }

    pub(super) fn plot(&self) -> Option<&str> {
        self.plot.as_deref()
    }

    /// The options.
    pub(super) fn options(&self) -> &Options {
        self.options
    }

    /// The text above the table.
    pub(super) fn heading(&self, machine: &Machine, began: jiff::Timestamp) -> String {
        let options = self.options.gateway_options.join(" ");
        let options = if options.is_empty() {
            "its defaults".to_owned()
        } else {
            format!("`{options}`")
        };
        format!(
            "# Targets, {}\n\n{}.\n\nThe gateway with {options}, its PostgreSQL, and the generator on the same cores; each load \
             for {} s. Every limit was measured in the same run.\n",
            began.strftime("%Y-%m-%d"),
            machine.to_text(&self.postgresql),
            self.options.seconds,
        )
    }

    /// Measures one case, and adds its rows.
    pub(super) fn measure(&mut self, case: Case) -> Result<(), TargetsError> {
        match case {
            Case::T1 => self.t1(),
            Case::T2 => self.single("T2", Bare::L2, 0.8, None),
            Case::T3 => {
                self.single("T3", Bare::L3, 0.4, Some(100_000.0))?;
                self.single("T3", Bare::L3Http2, 0.4, Some(100_000.0))
            }
            Case::T4 => self.t4(),
            Case::T6 => self.t6(),
            Case::T7 => self.t7(),
            Case::T9 => self.t9(),
            Case::T10 => self.t10(),
        }
    }

    /// A gateway on an empty directory.
    pub(super) fn fresh(&mut self) -> Result<Gateway, TargetsError> {
        self.clear()?;
        let gateway = self.start()?;
        gateway.wait_ready()?;
        self.note_version(&gateway)?;
        Ok(gateway)
    }

    pub(super) fn note_version(&mut self, gateway: &Gateway) -> Result<(), TargetsError> {
        if self.postgresql.is_empty() {
            let version = query_one(&gateway.database_url, "show server_version", &[])?;
            let version: String = version.get(0);
            self.postgresql = version.split(' ').next().unwrap_or_default().to_owned();
        }
        Ok(())
    }

    fn start(&self) -> Result<Gateway, TargetsError> {
        self.start_on(&self.options.scratch)
    }

    pub(super) fn start_on(&self, data: &Path) -> Result<Gateway, TargetsError> {
        let options = self.options;
        Gateway::start(&options.gateway, data, &options.gateway_options)
    }

    /// How long a load is sent.
    pub(super) fn seconds(&self) -> u64 {
        self.options.seconds
    }

    /// The devices and readings of T7's history.
    pub(super) fn history(&self) -> (u32, u64) {
        (self.options.history_devices, self.options.history_rows)
    }

    /// Where T7's history is kept.
    pub(super) fn history_dir(&self) -> Option<&Path> {
        self.options.history.as_deref()
    }

    fn clear(&self) -> std::io::Result<()> {
        match std::fs::remove_dir_all(&self.options.scratch) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Sends a load, and compares with the database at its end.
    pub(super) fn load(
        &self,
        gateway: &Gateway,
        seconds: u64,
        more: &[&str],
    ) -> Result<Outcome, TargetsError> {
        let (url, duration) = (gateway.url(), format!("{seconds}s"));
        // Current readings: older ones would make rolled-up hours dirty.
        let start = jiff::Timestamp::now() - BEGINS_BEFORE_NOW;
        let start = start.to_string();
        let mut arguments = vec![
            "--url",
            &url,
            "--duration",
            &duration,
            "--stored-within",
            "30m",
            "--database-url",
            &gateway.database_url,
        ];
        if !more.contains(&"--start") {
            arguments.extend(["--start", &start, "--interval-ms", "5"]);
        }
        arguments.extend(more);
        Ok(generator::measure(Load::of(&arguments)?)?)
    }

    fn limit(&mut self, bare: Bare) -> Result<(&'static str, f64), TargetsError> {
        let rate = match self.limits.get(bare.name()) {
            Some(rate) => *rate,
            None => bare.measure("5s")?,
        };
        self.limits.insert(bare.name(), rate);
        Ok((bare.name(), rate))
    }

    fn t1(&mut self) -> Result<(), TargetsError> {
        let gateway = self.fresh()?;
        gateway.take_memory();
        let outcome = self.load(&gateway, self.options.seconds, &[])?;
        let memory = gateway.take_memory();
        gateway.stop()?;
        let acked = outcome.stats.acked();
        let gateway = self.fresh()?;
        let copied = copy::measure(&gateway.database_url, acked.min(L1_ROWS_MAX))?;
        gateway.stop()?;
        self.push(Row {
            name: "T1",
            what: format!(
                "500 readings a request, {acked} in all; L1 over {}",
                copied.rows
            ),
            figure: committed(&outcome),
            unit: "committed/s",
            limit: Some(("L1", copied.per_second())),
            target: Target::RatioAtLeast(0.8),
            is_right: is_right(&outcome),
            detail: outcome.to_json(),
        });
        self.push_memory("under T1", &memory);
        Ok(())
    }

    /// Single readings, compared with a bare responder.
    fn single(
        &mut self,
        name: &'static str,
        bare: Bare,
        ratio: f64,
        least: Option<f64>,
    ) -> Result<(), TargetsError> {
        let limit = self.limit(bare)?;
        let gateway = self.fresh()?;
        let outcome = self.load(&gateway, self.options.seconds, bare.load())?;
        gateway.stop()?;
        let row = Row {
            name,
            what: format!("1 reading a request, {}", bare.load()[2..].join(" ")),
            figure: committed(&outcome),
            unit: "committed/s",
            limit: Some(limit),
            target: Target::RatioAtLeast(ratio),
            is_right: is_right(&outcome),
            detail: outcome.to_json(),
        };
        if let Some(least) = least {
            self.push(Row {
                limit: None,
                target: Target::AtLeast(least),
                detail: Value::Null,
                ..row.clone()
            });
        }
        self.push(row);
        Ok(())
    }

    fn t4(&mut self) -> Result<(), TargetsError> {
        let gateway = self.fresh()?;
        let outcome = self.load(
            &gateway,
            self.options.seconds,
            &["--rate", &RATE.to_string()],
        )?;
        let lag = "wattgate_store_lag_seconds";
        let within = gateway.metric(&format!("{lag}_bucket"), r#"le="1""#);
        let batches = gateway.metric(&format!("{lag}_count"), "");
        let hits: f64 = query_one(&gateway.database_url, INDEX_HITS, &[])?.get(0);
        gateway.stop()?;
        let what = format!("open loop, {RATE:.0} readings/s at 500 a request");
        self.push(Row {
            name: "T4",
            what: format!("{what}: p99 of the durable acknowledgement"),
            figure: outcome.stats.latency_us.value_at_quantile(0.99) as f64 / 1000.0,
            unit: "ms",
            limit: None,
            target: Target::AtMost(10.0),
            is_right: is_right(&outcome),
            detail: outcome.to_json(),
        });
        self.push(Row {
            name: "T4",
            what: format!("{what}: batches whose oldest reading is committed within 1 s"),
            figure: 100.0 * within / batches,
            unit: "%",
            limit: None,
            target: Target::AtLeast(99.0),
            is_right: is_right(&outcome),
            detail: json!({ "batches": batches }),
        });
        self.push(Row {
            name: "T8",
            what: "index hits of history under T4".to_owned(),
            figure: 100.0 * hits,
            unit: "%",
            limit: None,
            target: Target::AtLeast(99.0),
            is_right: true,
            detail: Value::Null,
        });
        Ok(())
    }

    /// Stops the database for a while under load, and measures how the gateway catches up.
    fn t6(&mut self) -> Result<(), TargetsError> {
        let gateway = self.fresh()?;
        gateway.take_memory();
        let outage = Duration::from_secs(self.options.outage_seconds);
        // Until it has caught up, at twice the arrival rate or more, with room to see it.
        let seconds = 2 + self.options.outage_seconds * 2 + 5;
        let (outcome, caught) = std::thread::scope(|scope| {
            let load = scope.spawn(|| self.load(&gateway, seconds, &["--rate", &RATE.to_string()]));
            let caught = catch_up(&gateway, outage, Duration::from_secs(seconds) - outage);
            let outcome = load.join();
            let outcome = outcome.map_err(|_| TargetsError::Load(generator::RunError::Thread))?;
            Ok::<_, TargetsError>((outcome?, caught?))
        })?;
        gateway.wait_stored()?;
        let memory = gateway.take_memory();
        gateway.stop()?;
        let Caught {
            stopped,
            went_on,
            stored,
            took,
        } = caught;
        let not_taken = outcome.stats.unknown() + outcome.stats.rejected;
        self.push(Row {
            name: "T6",
            what: format!(
                "{} s without the database under {RATE:.0} readings/s, {not_taken} not taken: stored while catching up for {:.1} s",
                outage.as_secs(),
                took.as_secs_f64()
            ),
            figure: stored / took.as_secs_f64(),
            unit: "stored/s",
            limit: Some(("arrivals", RATE)),
            target: Target::RatioAtLeast(2.5),
            is_right: is_right(&outcome) && not_taken == 0,
            detail: outcome.to_json(),
        });
        self.push_memory("with the database stopped, and catching up", &memory);
        let title = format!("Resident memory under {RATE:.0} readings/s");
        self.plot = Some(plot::memory(&title, &memory, stopped..went_on));
        Ok(())
    }

    fn t10(&mut self) -> Result<(), TargetsError> {
        self.clear()?;
        let first = self.time_to_ack()?;
        let again = self.time_to_ack()?;
        for (what, seconds, most) in [
            ("first start ever to the first acknowledgement", first, 6.0),
            ("start with an existing cluster to the same", again, 1.5),
        ] {
            self.push(Row {
                name: "T10",
                what: what.to_owned(),
                figure: seconds,
                unit: "s",
                limit: None,
                target: Target::AtMost(most),
                is_right: true,
                detail: Value::Null,
            });
        }
        self.clear()?;
        Ok(())
    }

    fn time_to_ack(&self) -> Result<f64, TargetsError> {
        let began = Instant::now();
        let gateway = self.start()?;
        while !gateway.take_one() {
            if began.elapsed() > Duration::from_secs(60) {
                return Err(TargetsError::Gateway("it acknowledges nothing".to_owned()));
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        gateway.wait_ready()?;
        gateway.stop()?;
        Ok(seconds)
    }

    fn push_memory(&mut self, when: &str, memory: &[Resident]) {
        let mib = memory.iter().map(|look| look.mib).fold(0.0, f64::max);
        self.push(Row {
            name: "T5",
            what: format!("resident at most, {when}"),
            figure: mib,
            unit: "MiB",
            limit: None,
            target: Target::AtMost(300.0),
            is_right: true,
            detail: Value::Null,
        });
    }

    pub(super) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }
}

/// The measurements of an outage.
struct Caught {
    stopped: Instant,
    went_on: Instant,
    /// Readings, while catching up.
    stored: f64,
    took: Duration,
}

/// Stops the database for a while, continues it, and waits until the gateway has caught up.
fn catch_up(gateway: &Gateway, outage: Duration, within: Duration) -> Result<Caught, TargetsError> {
    let sleep = |time| std::thread::sleep(time);
    // What is measured are these times themselves: a second of calm, then the outage.
    sleep(Duration::from_secs(1));
    gateway.signal_database(Signal::STOP)?;
    let stopped = Instant::now();
    sleep(outage);
    let before = gateway.metric("wattgate_readings_stored_total", "");
    gateway.signal_database(Signal::CONT)?;
    let began = Instant::now();
    while gateway.metric("wattgate_wal_readings", "") > CAUGHT_UP_READINGS
        && began.elapsed() < within
    {
        sleep(Duration::from_millis(50));
    }
    let took = began.elapsed();
    let after = gateway.metric("wattgate_readings_stored_total", "");
    Ok(Caught {
        stopped,
        went_on: began,
        stored: after - before,
        took,
    })
}

pub(super) fn committed(outcome: &Outcome) -> f64 {
    let stored = outcome.stored.as_ref();
    stored.and_then(Stored::committed_per_second).unwrap_or(0.0)
}

pub(super) fn is_right(outcome: &Outcome) -> bool {
    let stored = outcome.stored.as_ref();
    stored.is_some_and(|stored| stored.verdict() == Verdict::Right)
}
