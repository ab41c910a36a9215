//! Alerts: problems that the gateway finds, stores in a table and posts to a webhook.
//!
//! | kind | opens when | closes when |
//! | --- | --- | --- |
//! | `efficiency_low` | a vehicle's efficiency of the last 24 hours is below a bound | it can be judged and is not |
//! | `efficiency_anomaly` | a vehicle's newest session is far below the median of its past four weeks | its newest session is not |
//! | `battery_temperature` | the newest reading is above a bound | it is 2 °C below the bound |
//! | `silent` | a device has sent nothing for longer than usual, and has not left | it sends a reading, or has left |
//! | `implausible_reading` | a reading of the last 24 hours is suspect | none is |
//!
//! An alert opens once, is updated for as long as its cause lasts, and closes. One gateway of a database
//! searches for alerts at a time ([`postgres::leader`](crate::postgres::leader)). Operators acknowledge alerts and mute
//! devices through any gateway ([`store::alert_actions`](crate::store::alert_actions)); a mute withholds deliveries.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `evaluate` | the search for causes |
//! | `rolled_up` | the wait for the rollups, before a whole fleet is searched |
//! | `silence` | the search for silent devices |
//! | `message` | a delivery as the alert object, or as a message for a chat |
//! | `store` | the table and the queue of deliveries |
//! | `webhook` | the deliveries to the receiver |

mod evaluate;
mod message;
mod rolled_up;
mod silence;
mod store;
mod webhook;

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::analytics::{Analyst, AskError, Timeframe};
use crate::energy::window;
use crate::postgres::leader::{Parts, Role, Success, Work};
use crate::postgres::{ReadError, ReadServers, Target, Use, explain};
use crate::reading::Timestamp;
use evaluate::Findings;
pub use message::{Format, Message};
use rolled_up::Waiting;
use silence::Silences;
pub use webhook::Webhook;

/// One gateway of a database searches for alerts.
const ROLE: Role = Role {
    work: "the check for alerts",
    session: "wattgate alerts",
    purpose: Use::Alerts,
    lock_key: i64::from_be_bytes(*b"wattalrt"),
    shared_key: None,
    // The newest one: an earlier schema lacks what the search reads.
    table: "alert_withheld",
};
/// How often the queue of deliveries is checked.
const DELIVER_EVERY: Duration = Duration::from_secs(1);
/// Reports on the fleet take at most a twentieth of the time.
const REPORT_SHARE: u32 = 20;

/// The cause of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Efficiency below a bound.
    EfficiencyLow,
    /// Efficiency far below the vehicle's own past.
    EfficiencyAnomaly,
    /// A hot battery.
    BatteryTemperature,
    /// A device that sends nothing, and has not left.
    Silent,
    /// A reading that implies too much power, or a register that fell.
    ImplausibleReading,
}

/// How urgent the alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Now: a person or a battery may come to harm.
    Critical,
    /// During working hours.
    Warning,
}

impl Severity {
    /// The name in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Severity::Critical => "critical",
            Severity::Warning => "warning",
        }
    }
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 5] = [
        Kind::EfficiencyLow,
        Kind::EfficiencyAnomaly,
        Kind::BatteryTemperature,
        Kind::Silent,
        Kind::ImplausibleReading,
    ];

    /// The name in the table and in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::EfficiencyLow => "efficiency_low",
            Kind::EfficiencyAnomaly => "efficiency_anomaly",
            Kind::BatteryTemperature => "battery_temperature",
            Kind::Silent => "silent",
            Kind::ImplausibleReading => "implausible_reading",
        }
    }

    /// How urgent the alert is.
    pub const fn severity(self) -> Severity {
        match self {
            Kind::BatteryTemperature => Severity::Critical,
            Kind::EfficiencyLow
            | Kind::EfficiencyAnomaly
            | Kind::Silent
            | Kind::ImplausibleReading => Severity::Warning,
        }
    }

    /// The severity of a stored kind. One that this version does not know is a warning.
    pub fn severity_of(name: &str) -> Severity {
        let known = Kind::ALL.into_iter().find(|kind| kind.name() == name);
        known.map_or(Severity::Warning, Kind::severity)
    }
}

/// The bounds of alerts, and where they are sent.
#[derive(Clone)]
pub struct Settings {
    /// How often the gateway searches for causes.
    pub every: Duration,
    /// Efficiency below this opens an alert.
    ///
    /// Units:  1/100 percent
    pub efficiency_below: i64,
    /// A battery hotter than this opens an alert, in °C.
    pub temperature_above: f64,
    /// The shortest silence that opens an alert.
    pub silence_min: Duration,
    /// Whether an operator has set it. Then the usual interval of a device does not lengthen it.
    pub silence_is_fixed: bool,
    /// The receiver of alerts. `None` means that they are only stored.
    pub webhook: Option<Webhook>,
}

impl Settings {
    /// The longest `every`.
    pub const EVERY_MAX: Duration = Duration::from_secs(86_400);
    /// The bounds that efficiency may have, in percent.
    pub const EFFICIENCY_PERCENT: RangeInclusive<f64> = 0.0..=100.0;
    /// The bounds that a battery's temperature may have, in °C.
    pub const TEMPERATURE_CELSIUS: RangeInclusive<f64> = -60.0..=150.0;
    /// The default of `silence_min`.
    pub const SILENCE_MIN: &'static str = "30m";
    /// The longest `silence_min`. Why: the search reads a week of a device's past.
    pub const SILENCE_MAX: Duration = Duration::from_secs(7 * 86_400);
}

/// Why a search failed; the next tries again.
#[derive(Debug, thiserror::Error)]
enum AlertError {
    #[error("{}", explain(.0))]
    Database(#[from] tokio_postgres::Error),
    #[error("no connection for reading: {0}")]
    Read(#[from] ReadError),
    #[error(transparent)]
    Ask(#[from] AskError),
}

/// Searches for alerts until it is cancelled.
///
/// Cancel: safe; what is half done is rolled back
pub async fn run(settings: Settings, target: Target, reads: ReadServers, analyst: Analyst) {
    let search = Search {
        settings,
        target: target.clone(),
        reads,
        analyst,
        waiting: Waiting::default(),
    };
    ROLE.lead(&target, &search).await;
}

/// The tasks of the search: those that watch, report and deliver.
type Tasks<'a> = Parts<'a, 3>;

/// The search for alerts, by the gateway that holds the lock.
struct Search {
    settings: Settings,
    target: Target,
    reads: ReadServers,
    analyst: Analyst,
    waiting: Waiting,
}

impl Work for Search {
    type Error = AlertError;

    /// Three tasks, each in a session of its own: neither a report on the fleet that takes a minute nor a slow receiver
    /// delays the alert of a hot battery. If one fails, all three start again.
    async fn work(&self, client: &mut Client, success: &Success<'_>) -> Result<(), AlertError> {
        let parts = Parts::new(success);
        tokio::try_join!(
            self.watch(client, &parts),
            self.report(&parts),
            self.deliver(&parts)
        )?;
        Ok(())
    }
}

impl Search {
    /// Searches the newest readings and silences for causes, at intervals.
    async fn watch(&self, client: &mut Client, parts: &Tasks<'_>) -> Result<(), AlertError> {
        let settings = &self.settings;
        let mut silences = Silences::default();
        loop {
            let now = Timestamp::now();
            let mut found = evaluate::newest(client, settings, now).await?;
            silences.search(client, settings, now, &mut found).await?;
            store::apply(client, settings, found, now).await?;
            store::release(client, settings, now).await?;
            parts.note(0);
            tokio::time::sleep(settings.every).await;
        }
    }

    /// Searches the whole fleet's efficiency for causes, at intervals, once the last hours are rolled up. A report
    /// that takes too long is skipped.
    async fn report(&self, parts: &Tasks<'_>) -> Result<(), AlertError> {
        let (settings, reads, analyst) = (&self.settings, &self.reads, &self.analyst);
        let name = "wattgate alerts of efficiency";
        let mut session = self.target.connect(name, Use::Alerts).await?;
        let client = session.client_mut();
        loop {
            let began = Instant::now();
            let now = Timestamp::now();
            match self.efficiency(client, now).await {
                Ok(found) => store::apply(client, settings, found, now).await?,
                Err(AlertError::Ask(error)) => {
                    tracing::warn!(%error, "cannot evaluate the fleet's efficiency");
                }
                Err(error) => return Err(error),
            }
            let found = evaluate::anomalies(client, reads, analyst, now).await?;
            store::apply(client, settings, found, now).await?;
            parts.note(1);
            let rest = began.elapsed() * REPORT_SHARE;
            tokio::time::sleep(settings.every.max(rest)).await;
        }
    }

    async fn efficiency(&self, client: &Client, now: Timestamp) -> Result<Findings, AlertError> {
        let Ok(window) = window::window(None, None, now) else {
            return Ok(Findings::default());
        };
        if !self.waiting.is_over(client, window, now).await? {
            tracing::debug!(
                "the fleet's efficiency is evaluated once the last hours are rolled up"
            );
            return Ok(Findings::default());
        }
        let timeframe = Timeframe {
            window,
            parts: Vec::new(),
            now,
        };
        // What was rolled up, and everything else that is committed now.
        let reads = self.reads.begin(self.reads.written().await);
        evaluate::efficiency(&self.settings, &reads, &self.analyst, timeframe).await
    }

    /// Sends waiting deliveries to the webhook's receiver, if there is one.
    async fn deliver(&self, parts: &Tasks<'_>) -> Result<(), AlertError> {
        let Some(webhook) = &self.settings.webhook else {
            parts.note(2);
            return Ok(());
        };
        let name = "wattgate alerts webhook";
        let mut session = self.target.connect(name, Use::Alerts).await?;
        let client = session.client_mut();
        loop {
            webhook::deliver(client, webhook, Timestamp::now()).await?;
            parts.note(2);
            tokio::time::sleep(DELIVER_EVERY.min(self.settings.every)).await;
        }
    }
}
