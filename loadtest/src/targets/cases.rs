//! The targets: each one's load and limit.

use std::cell::Cell;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde_json::{Value, json};

use super::database::{INDEX_HITS, query_one};
use super::gateway::{Gateway, Lag, Resident};
use super::loaded::Loaded;
use super::machine::Machine;
use super::server::{Reset, Server};
use super::table::{Row, Target};
use super::{Options, TargetsError};
use crate::generator::{self, Options as Load};
use crate::limits::bare::{Answered, Bare};
use crate::limits::copy::{self, Copied, Shape};
use crate::output::say;

/// The cases that can be measured separately. T5 (memory) comes with T1 and T6, and T8 (the index in memory) with
/// T4 and T7.
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
    T11,
    T12,
    T13,
}

/// The most rows of L1, because they must fit on the disk. T1 may store more.
const L1_ROWS_MAX: u64 = 200_000_000;

/// How long before now the readings of a load begin, so that their times stay in the past.
const BEGINS_BEFORE_NOW: Duration = Duration::from_secs(60);

/// The targets of T4: a latency in milliseconds, and the percentage of batches within a second.
pub(super) const OPEN_LOOP: [Target; 2] = [Target::AtMost(10.0), Target::AtLeast(99.0)];

/// The arrival rate of T4 and T6, in readings a second.
pub(super) const RATE: f64 = 100_000.0;

impl Case {
    pub(super) const ALL: [Case; 11] = [
        Case::T1,
        Case::T2,
        Case::T3,
        Case::T4,
        Case::T6,
        Case::T7,
        Case::T9,
        Case::T10,
        Case::T11,
        Case::T12,
        Case::T13,
    ];

    /// Whether it is measured only if it is named, because it fills a database of several GB.
    pub(super) const fn is_long(self) -> bool {
        matches!(self, Case::T7 | Case::T9 | Case::T13)
    }

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
            Case::T11 => "T11",
            Case::T12 => "T12",
            Case::T13 => "T13",
        }
    }
}

/// The measurements so far.
pub(super) struct Run<'a> {
    options: &'a Options,
    /// The server that the gateways use.
    server: &'a Server,
    bare: HashMap<&'static str, Answered>,
    rows: Vec<Row>,
    /// The distinct versions of the servers.
    postgresql: Vec<String>,
    /// A chart of memory during T6.
    plot: Option<String>,
}

impl<'a> Run<'a> {
    pub(super) fn new(options: &'a Options) -> Self {
        Run {
            options,
            server: &Server::Embedded,
            bare: HashMap::new(),
            rows: Vec::new(),
            postgresql: Vec::new(),
            plot: None,
        }
    }

    /// Uses another server from now on.
    pub(super) fn set_server(&mut self, server: &'a Server) {
        self.server = server;
    }

    pub(super) fn is_embedded(&self) -> bool {
        matches!(self.server, Server::Embedded)
    }

    pub(super) fn set_plot(&mut self, plot: String) {
        self.plot = Some(plot);
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(super) fn postgresql(&self) -> String {
        self.postgresql.join(" and ")
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
            machine.to_text(&self.postgresql()),
            self.options.seconds,
        )
    }

    /// Measures one case and adds its rows.
    pub(super) fn measure(&mut self, case: Case) -> Result<(), TargetsError> {
        match case {
            Case::T1 => self.t1(),
            Case::T2 => self.single("T2", Bare::L2),
            Case::T3 => {
                self.single("T3", Bare::L3)?;
                self.single("T3", Bare::L3Http2)
            }
            Case::T4 => self.t4(),
            Case::T6 => self.t6(),
            Case::T7 => self.t7(),
            Case::T9 => self.t9(),
            Case::T10 => self.t10(),
            Case::T11 => self.t11(),
            Case::T12 => self.t12(),
            Case::T13 => self.t13(),
        }
    }

    /// Starts a gateway on an empty directory.
    pub(super) fn fresh(&mut self) -> Result<Gateway, TargetsError> {
        let database = self.clear()?;
        let gateway = self.start(database.as_ref())?;
        gateway.wait_ready()?;
        self.note_version(&gateway)?;
        Ok(gateway)
    }

    pub(super) fn note_version(&mut self, gateway: &Gateway) -> Result<(), TargetsError> {
        let version = query_one(&gateway.database_url, "show server_version", &[])?;
        let version: String = version.get(0);
        let version = version.split(' ').next().unwrap_or_default();
        if !self.postgresql.iter().any(|known| known == version) {
            self.postgresql.push(version.to_owned());
        }
        Ok(())
    }

    pub(super) fn start(&self, database: Option<&Reset>) -> Result<Gateway, TargetsError> {
        self.start_on(&self.options.scratch, database)
    }

    pub(super) fn start_on(
        &self,
        data: &Path,
        database: Option<&Reset>,
    ) -> Result<Gateway, TargetsError> {
        let options = self.options;
        Gateway::start(&options.gateway, data, &options.gateway_options, database)
    }

    /// How long to send each load.
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

    /// Empties the directory and, unless the server is embedded, the database.
    pub(super) fn clear(&self) -> Result<Option<Reset>, TargetsError> {
        match std::fs::remove_dir_all(&self.options.scratch) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => self.server.reset(),
        }
    }

    /// Sends a load, and compares with the database at the end.
    pub(super) fn load(
        &self,
        gateway: &Gateway,
        seconds: u64,
        more: &[&str],
    ) -> Result<Loaded, TargetsError> {
        self.load_until(gateway, seconds, more, &Arc::default())
    }

    /// The same, but ends early if `stop` is set.
    pub(super) fn load_until(
        &self,
        gateway: &Gateway,
        seconds: u64,
        more: &[&str],
        stop: &Arc<AtomicBool>,
    ) -> Result<Loaded, TargetsError> {
        let (url, duration) = (gateway.url(), format!("{seconds}s"));
        // With present times, because older readings would make rolled-up hours dirty.
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
        let mut load = Load::of(&arguments)?;
        load.stop = Arc::clone(stop);
        let before = gateway.spent();
        let after = Cell::new(before);
        let outcome = generator::measure_until(load, || after.set(gateway.spent()))?;
        Ok(Loaded::new(outcome, before, after.get()))
    }

    fn bare(&mut self, bare: Bare) -> Result<Answered, TargetsError> {
        let answered = match self.bare.get(bare.name()) {
            Some(answered) => *answered,
            None => bare.measure("5s")?,
        };
        self.bare.insert(bare.name(), answered);
        Ok(answered)
    }

    /// Copies as many rows as a load has stored into an empty database on the same kind of server.
    pub(super) fn copied(&mut self, shape: Shape, rows: u64) -> Result<Copied, TargetsError> {
        let gateway = self.fresh()?;
        let copied = copy::measure(&gateway.database_url, shape, rows.min(L1_ROWS_MAX))?;
        gateway.stop()?;
        Ok(copied)
    }

    /// Makes a row without a limit.
    pub(super) fn row(&self, name: &'static str, what: String, figure: f64) -> Row {
        Row {
            name,
            server: self.server.name(),
            what,
            figure,
            unit: "",
            limit: None,
            target: Target::Shown,
            is_right: true,
            detail: Value::Null,
        }
    }

    fn t1(&mut self) -> Result<(), TargetsError> {
        let gateway = self.fresh()?;
        gateway.take_memory();
        let loaded = self.load(&gateway, self.options.seconds, &[])?;
        let memory = gateway.take_memory();
        gateway.stop()?;
        let acked = loaded.acked();
        let copied = self.copied(Shape::L1, acked)?;
        let what = format!(
            "500 readings per request, {acked} in all; L1 over {}",
            copied.rows
        );
        self.push(Row {
            unit: "committed/s",
            limit: Some((Shape::L1.name(), copied.per_second())),
            target: Target::RatioAtLeast(0.8),
            is_right: loaded.is_right(),
            detail: loaded.to_json(),
            ..self.row("T1", what.clone(), loaded.committed())
        });
        self.push_server_time("T1", what, &loaded, Target::Shown);
        self.push_memory("under T1", &memory);
        Ok(())
    }

    /// Measures single readings, and compares with a bare responder.
    fn single(&mut self, name: &'static str, bare: Bare) -> Result<(), TargetsError> {
        let answered = self.bare(bare)?;
        let gateway = self.fresh()?;
        let loaded = self.load(&gateway, self.options.seconds, bare.load())?;
        gateway.stop()?;
        let what = format!("1 reading per request, {}", bare.load()[2..].join(" "));
        let row = Row {
            unit: "committed/s",
            limit: Some((bare.name().to_owned(), answered.rate)),
            is_right: loaded.is_right(),
            detail: loaded.to_json(),
            ..self.row(name, what.clone(), loaded.committed())
        };
        match bare {
            // Its target is the rate of another product: see `loadtest/peers/telegraf.sh`.
            Bare::L2 => {
                self.push(row);
                self.push(Row {
                    unit: "µs/reading",
                    limit: Some((bare.name().to_owned(), answered.processor_us)),
                    target: Target::RatioAtMost(1.4),
                    ..self.row(
                        name,
                        format!("{what}: gateway's processor time"),
                        loaded.gateway_us(),
                    )
                });
                self.push_server_time(name, what, &loaded, Target::AtMost(8.0));
            }
            Bare::L3 => self.push(Row {
                target: Target::AtLeast(150_000.0),
                ..row
            }),
            Bare::L3Http2 => self.push(Row {
                target: Target::RatioAtLeast(0.45),
                ..row
            }),
        }
        Ok(())
    }

    fn t4(&mut self) -> Result<(), TargetsError> {
        let gateway = self.fresh()?;
        let lag = gateway.lag();
        let rate = RATE.to_string();
        let loaded = self.load(&gateway, self.options.seconds, &["--rate", &rate])?;
        let lag = gateway.lag().since(lag);
        let hits: f64 = query_one(&gateway.database_url, INDEX_HITS, &[])?.get(0);
        gateway.stop()?;
        let what = format!("open loop, {RATE:.0} readings/s at 500 per request");
        self.push_open_loop("T4", &what, &loaded, lag, OPEN_LOOP);
        self.push(Row {
            unit: "%",
            target: Target::AtLeast(99.0),
            ..self.row(
                "T8",
                "index hits of history under T4".to_owned(),
                100.0 * hits,
            )
        });
        Ok(())
    }

    /// Adds the latency of acknowledgements and the lateness of batches at a fixed rate, each with its target.
    pub(super) fn push_open_loop(
        &mut self,
        name: &'static str,
        what: &str,
        loaded: &Loaded,
        lag: Lag,
        [latency, within]: [Target; 2],
    ) {
        self.push(Row {
            unit: "ms",
            target: latency,
            is_right: loaded.is_right(),
            detail: loaded.to_json(),
            ..self.row(
                name,
                format!("{what}: p99 of the durable acknowledgement"),
                loaded.latency_ms(0.99),
            )
        });
        self.push(Row {
            unit: "%",
            target: within,
            is_right: loaded.is_right(),
            detail: json!({ "batches": lag.batches }),
            ..self.row(
                name,
                format!("{what}: batches whose oldest reading is committed within 1 s"),
                lag.percent(),
            )
        });
    }

    /// Adds the server's CPU time under a load.
    pub(super) fn push_server_time(
        &mut self,
        name: &'static str,
        what: String,
        loaded: &Loaded,
        target: Target,
    ) {
        self.push(Row {
            unit: "µs/reading",
            target,
            ..self.row(
                name,
                format!("{what}: server's processor time"),
                loaded.server_us(),
            )
        });
    }

    pub(super) fn push_memory(&mut self, when: &str, memory: &[Resident]) {
        let mib = memory.iter().map(|look| look.mib).fold(0.0, f64::max);
        self.push(Row {
            unit: "MiB",
            target: Target::AtMost(300.0),
            ..self.row("T5", format!("resident at most, {when}"), mib)
        });
    }

    pub(super) fn push(&mut self, row: Row) {
        say(&row.to_text());
        self.rows.push(row);
    }
}
