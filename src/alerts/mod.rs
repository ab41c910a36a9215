//! Alerts: what people should look at, found on the gateway, kept in a table, told to a webhook.
//!
//! | kind | opens where | closes where |
//! | --- | --- | --- |
//! | `efficiency_low` | a vehicle's efficiency of the last 24 hours is below a bound | it is judged and is not |
//! | `efficiency_anomaly` | its newest session is far below the median of its own past four weeks | its newest session is not |
//! | `battery_temperature` | the newest reading is above a bound | it is 2 °C below the bound |
//! | `silent` | a device has not been heard of for longer than it usually is, and has not left | it is heard of, or has left |
//! | `implausible_reading` | a reading of the last 24 hours is suspect | none is |
//!
//! An alert opens once, is brought up to date as long as its cause lasts, and closes. One gateway
//! of a database looks for them at a time, the one that holds an advisory lock.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `evaluate` | looking for causes |
//! | `silence` | looking for devices that have fallen silent |
//! | `store` | the table and the queue of deliveries |
//! | `webhook` | telling the receiver |

mod evaluate;
mod silence;
mod store;
mod webhook;

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::analytics::{Analyst, AskError};
use crate::postgres::{ReadError, ReadPool, Target, Use, explain};
use crate::reading::Timestamp;
use silence::Silences;
pub use webhook::Webhook;

/// The key of the advisory lock: "wattalrt" as a number.
const LOCK_KEY: i64 = i64::from_be_bytes(*b"wattalrt");
/// How often the lock is tried, and a lost database is reached for again.
const AGAIN: Duration = Duration::from_secs(5);
/// How often the queue of deliveries is looked at.
const DELIVER_EVERY: Duration = Duration::from_secs(1);
/// What surveys of the fleet may cost: a twentieth of the time.
const SURVEY_SHARE: u32 = 20;

/// What an alert is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Efficiency below a bound.
    EfficiencyLow,
    /// Efficiency far below the vehicle's own past.
    EfficiencyAnomaly,
    /// A hot battery.
    BatteryTemperature,
    /// A device that is not heard of, and has not left.
    Silent,
    /// A reading that implies too much power, or a register that fell.
    ImplausibleReading,
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
}

/// From when on something is an alert.
#[derive(Clone)]
pub struct Settings {
    /// How often causes are looked for.
    pub every: Duration,
    /// Efficiency below this is one.
    ///
    /// Units:  1/100 percent
    pub efficiency_below: i64,
    /// A battery hotter than this is one, in °C.
    pub temperature_above: f64,
    /// A device is silent after this at the earliest.
    pub silence_min: Duration,
    /// Who is told.
    pub webhook: Option<Webhook>,
}

/// Why an evaluation failed; the next tries again.
#[derive(Debug, thiserror::Error)]
enum AlertError {
    #[error("{}", explain(.0))]
    Database(#[from] tokio_postgres::Error),
    #[error("no connection for reading: {0}")]
    Read(#[from] ReadError),
    #[error(transparent)]
    Ask(#[from] AskError),
}

/// Looks for alerts until it is cancelled.
///
/// Cancel: safe; what is half done is rolled back
pub async fn run(settings: Settings, target: Target, reads: ReadPool, analyst: Analyst) {
    let mut said = String::new();
    loop {
        if let Err(error) = lead(&settings, &target, &reads, &analyst).await {
            let text = error.to_string();
            if said != text {
                tracing::warn!(error = text, "alerts are not looked for; trying again");
                said = text;
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Waits for the lock, and then looks for alerts as long as the session lasts.
async fn lead(
    settings: &Settings,
    target: &Target,
    reads: &ReadPool,
    analyst: &Analyst,
) -> Result<(), AlertError> {
    let mut session = target.connect("wattgate alerts", Use::Alerts).await?;
    let client = session.client_mut();
    // Before the migrations there is nothing to look at.
    let ready = "select to_regclass('alerts') is not null and pg_try_advisory_lock($1)";
    while !client
        .query_one(ready, &[&LOCK_KEY])
        .await?
        .get::<_, bool>(0)
    {
        tokio::time::sleep(AGAIN).await;
    }
    tracing::debug!("this gateway looks for alerts");
    // Each in a session of its own: neither a fleet that takes a minute to survey nor a receiver
    // that takes its time keeps a hot battery from being seen. Where one fails all begin again.
    tokio::try_join!(
        watch(client, settings),
        survey(settings, target, reads, analyst),
        tell(settings, target),
    )?;
    Ok(())
}

/// Looks for what newest readings and silences tell, again and again.
async fn watch(client: &mut Client, settings: &Settings) -> Result<(), AlertError> {
    let mut silences = Silences::default();
    loop {
        let now = Timestamp::now();
        let mut found = evaluate::newest(client, settings, now).await?;
        silences.look(client, settings, now, &mut found).await?;
        store::apply(client, settings, found, now).await?;
        tokio::time::sleep(settings.every).await;
    }
}

/// Looks for what takes the whole fleet's efficiency, again and again. An answer that is not there
/// in time is left for the next time.
async fn survey(
    settings: &Settings,
    target: &Target,
    reads: &ReadPool,
    analyst: &Analyst,
) -> Result<(), AlertError> {
    let mut session = target
        .connect("wattgate alerts of efficiency", Use::Alerts)
        .await?;
    let client = session.client_mut();
    loop {
        let began = Instant::now();
        let now = Timestamp::now();
        match evaluate::efficiency(settings, reads, analyst, now).await {
            Ok(found) => store::apply(client, settings, found, now).await?,
            Err(AlertError::Ask(error)) => {
                tracing::warn!(%error, "the fleet's efficiency was not looked at");
            }
            Err(error) => return Err(error),
        }
        let found = evaluate::anomalies(client, reads, analyst, now).await?;
        store::apply(client, settings, found, now).await?;
        let rest = began.elapsed() * SURVEY_SHARE;
        tokio::time::sleep(settings.every.max(rest)).await;
    }
}

/// Tells the receiver of the webhook what waits, where there is one.
async fn tell(settings: &Settings, target: &Target) -> Result<(), AlertError> {
    let Some(webhook) = &settings.webhook else {
        return Ok(());
    };
    let mut session = target
        .connect("wattgate alerts webhook", Use::Alerts)
        .await?;
    let client = session.client_mut();
    loop {
        webhook::deliver(client, webhook, Timestamp::now()).await?;
        tokio::time::sleep(DELIVER_EVERY.min(settings.every)).await;
    }
}
