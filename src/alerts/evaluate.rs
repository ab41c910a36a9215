//! The search for causes.

use serde_json::{Value, json};
use tokio_postgres::{Client, Row};

use super::{AlertError, Kind, Settings};
use crate::analytics::{Analyst, AskError, Priority, ReportKey, Timeframe};
use crate::energy::format::Decimal;
use crate::energy::interval::Interval;
use crate::energy::report::{EfficiencyStatus, efficiency_status};
use crate::postgres::{ReadServers, Reads};
use crate::reading::{ExternalId, Stream, Timestamp};

/// At most this many devices per stream are reported as implausible: enough for a fleet of 10,000. A sender
/// that invents an id for each reading must not use memory and a log line for each.
const IMPLAUSIBLE_MAX: usize = 10_000;
/// How far below its bound a battery's temperature closes the alert, in °C.
const TEMPERATURE_HYSTERESIS: f64 = 2.0;
/// The most sessions whose efficiency one search computes.
const SESSIONS_MAX: i64 = 100;
/// A session is judged only if there are at least this many in the past four weeks to compare it with.
const PAST_SESSIONS_MIN: i64 = 5;
/// How many deviations below the median make a session unusual.
const DEVIATIONS: f64 = 3.5;
/// The standard deviation in median absolute deviations, if values are normally distributed.
const DEVIATION_OF_MAD: f64 = 1.4826;
/// The smallest drop below the median that counts as unusual, in percent, for vehicles whose past barely varies.
const FALL_MIN: f64 = 3.0;

/// A cause that was found.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) kind: Kind,
    pub(super) stream: Stream,
    pub(super) device: i32,
    pub(super) value: f64,
    pub(super) bound: f64,
    pub(super) details: Value,
}

/// The result of a search. The alerts of a device in neither list stay unchanged.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Causes that were found.
    pub(super) found: Vec<Finding>,
    /// Devices for which a kind of cause no longer holds.
    pub(super) over: Vec<(Kind, Stream, Vec<i32>)>,
}

/// Finds causes in the newest readings.
pub(super) async fn newest(
    client: &Client,
    settings: &Settings,
    now: Timestamp,
) -> Result<Findings, AlertError> {
    let mut findings = Findings::default();
    let bound = settings.temperature_above;
    for row in client
        .query(sql!("alert_temperature"), &[&bound, &now])
        .await?
    {
        let at: Timestamp = row.try_get(2)?;
        findings.found.push(Finding {
            kind: Kind::BatteryTemperature,
            stream: Stream::Vehicle,
            device: row.try_get(0)?,
            value: row.try_get(1)?,
            bound,
            details: json!({"readingAt": at.to_string()}),
        });
    }
    let cool = bound - TEMPERATURE_HYSTERESIS;
    let over = client
        .query(sql!("alert_temperature_over"), &[&cool])
        .await?;
    let over = devices(&over)?;
    findings
        .over
        .push((Kind::BatteryTemperature, Stream::Vehicle, over));
    Ok(findings)
}

pub(super) fn devices(rows: &[Row]) -> Result<Vec<i32>, AlertError> {
    Ok(rows
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?)
}

/// Finds causes in a window of every vehicle and meter.
pub(super) async fn efficiency(
    settings: &Settings,
    reads: &Reads,
    analyst: &Analyst,
    timeframe: Timeframe,
) -> Result<Findings, AlertError> {
    // Without the deadline of a request: a large fleet takes longer, and would otherwise never be judged.
    let kept = analyst
        .fleet_report_unhurried(reads, ReportKey::default(), timeframe, Priority::Yields)
        .await?;
    let mut findings = Findings::default();
    let mut efficient = Vec::new();
    let window = json!({
        "from": kept.window.start().to_string(),
        "to": kept.window.end().to_string(),
    });
    for vehicle in &kept.report.vehicles {
        let judged = vehicle.rank.status != EfficiencyStatus::InsufficientData;
        match vehicle.rank.ratio.filter(|_| judged) {
            Some(ratio) if ratio < settings.efficiency_below => {
                let (value, bound) = (percent(ratio), percent(settings.efficiency_below));
                findings.found.push(Finding {
                    kind: Kind::EfficiencyLow,
                    stream: Stream::Vehicle,
                    device: vehicle.key,
                    value,
                    bound,
                    details: json!({"window": window.clone(), "unit": "%"}),
                });
            }
            Some(_) => efficient.push(vehicle.key),
            None => {}
        }
    }
    let vehicles = Stream::Vehicle;
    findings
        .over
        .push((Kind::EfficiencyLow, vehicles, efficient));
    let reported = kept.report.vehicles.iter();
    let of_vehicles: Vec<(i32, u64)> = reported.map(|v| (v.key, v.suspect)).collect();
    implausible(&mut findings, Stream::Vehicle, &of_vehicles, &window);
    implausible(&mut findings, Stream::Meter, &kept.report.meters, &window);
    Ok(findings)
}

/// Finds devices with suspect readings, given the number of each device's suspect readings. The devices
/// beyond [`IMPLAUSIBLE_MAX`] are not judged.
fn implausible(findings: &mut Findings, stream: Stream, all: &[(i32, u64)], window: &Value) {
    let mut plausible = Vec::with_capacity(all.len());
    let mut room = IMPLAUSIBLE_MAX;
    for &(device, suspect) in all {
        if suspect == 0 {
            plausible.push(device);
            continue;
        }
        if room == 0 {
            continue;
        }
        room -= 1;
        findings.found.push(Finding {
            kind: Kind::ImplausibleReading,
            stream,
            device,
            value: suspect as f64,
            bound: 0.0,
            details: json!({"window": window, "unit": "readings"}),
        });
    }
    findings
        .over
        .push((Kind::ImplausibleReading, stream, plausible));
}

fn percent(hundredths: i64) -> f64 {
    hundredths as f64 / 100.0
}

/// Finds vehicles whose newest session is far below their own past.
pub(super) async fn anomalies(
    client: &Client,
    servers: &ReadServers,
    analyst: &Analyst,
    now: Timestamp,
) -> Result<Findings, AlertError> {
    client
        .execute(sql!("alert_session_forget"), &[&now])
        .await?;
    let due = client
        .query(sql!("alert_sessions"), &[&now, &SESSIONS_MAX])
        .await?;
    // The result is stored, so a replica must hold the sessions and all of their readings.
    let reads = &servers.begin(servers.written().await);
    for row in &due {
        let vehicle: &str = row.try_get(2)?;
        let (from, to) = (row.try_get(3)?, row.try_get(4)?);
        let ratio = match (ExternalId::new(vehicle), Interval::new(from, to)) {
            (Ok(vehicle), Some(session)) => {
                session_efficiency(reads, analyst, vehicle, session, now).await?
            }
            _ => None,
        };
        let (session, key): (i32, i32) = (row.try_get(0)?, row.try_get(1)?);
        client
            .execute(
                sql!("alert_session_put"),
                &[&session, &key, &to, &now, &ratio],
            )
            .await?;
    }
    let mut findings = Findings::default();
    let mut usual = Vec::new();
    for row in client.query(sql!("alert_anomaly"), &[&now]).await? {
        let device = row.try_get(0)?;
        let value: f64 = row.try_get(1)?;
        let (median, mad): (f64, f64) = (row.try_get(2)?, row.try_get(3)?);
        let sessions: i64 = row.try_get(4)?;
        let at: Timestamp = row.try_get(5)?;
        let Some(bound) = unusual_below(median, mad, sessions) else {
            continue;
        };
        if value >= bound {
            usual.push(device);
            continue;
        }
        findings.found.push(Finding {
            kind: Kind::EfficiencyAnomaly,
            stream: Stream::Vehicle,
            device,
            value,
            bound,
            details: json!({
                "sessionEndedAt": at.to_string(),
                "median": median,
                "medianAbsoluteDeviation": mad,
                "sessions": sessions,
                "unit": "%",
            }),
        });
    }
    findings
        .over
        .push((Kind::EfficiencyAnomaly, Stream::Vehicle, usual));
    Ok(findings)
}

/// The efficiency below which a session is unusual. `None` means that the past is too short.
///
/// Units:  percent
fn unusual_below(median: f64, mad: f64, sessions: i64) -> Option<f64> {
    let fall = (DEVIATIONS * DEVIATION_OF_MAD * mad).max(FALL_MIN);
    (sessions >= PAST_SESSIONS_MIN).then_some(median - fall)
}

/// The efficiency of a session in percent. `None` means that it cannot be judged.
async fn session_efficiency(
    reads: &Reads,
    analyst: &Analyst,
    vehicle: ExternalId<'_>,
    session: Interval,
    now: Timestamp,
) -> Result<Option<f64>, AlertError> {
    let timeframe = Timeframe {
        window: session,
        parts: Vec::new(),
        now,
    };
    let asked = reads.ask(async |client| analyst.performance(client, vehicle, timeframe).await);
    let answer = match asked.await {
        Ok(Some(answer)) => answer.performance,
        Ok(None) | Err(AskError::TooManyReadings) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let status = efficiency_status(&answer, &analyst.judgement().bounds);
    let ratio = Decimal::ratio(&answer.matched_dc, &answer.consumed_ac)
        .filter(|_| status != EfficiencyStatus::InsufficientData)
        .and_then(|ratio| i64::try_from(ratio.units()?).ok());
    Ok(ratio.map(percent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn implausible_devices_beyond_the_bound_are_left_open() {
        let count = IMPLAUSIBLE_MAX as i32 + 10;
        let suspect = (0..count).map(|device| (device, 1));
        let all: Vec<(i32, u64)> = suspect.chain([(count, 0)]).collect();
        let mut findings = Findings::default();
        implausible(&mut findings, Stream::Meter, &all, &json!({}));
        assert_eq!(findings.found.len(), IMPLAUSIBLE_MAX);
        assert_eq!(findings.over.len(), 1);
        assert_eq!(findings.over[0].2, [count]);
    }

    #[test]
    fn a_session_is_unusual_only_against_its_own_past() {
        assert_eq!(unusual_below(90.0, 0.5, 4), None);
        // The past hardly varies: the limit is 3 percent below.
        assert_eq!(unusual_below(90.0, 0.1, 5), Some(87.0));
        // 3.5 × 1.4826 × 2 = 10.38.
        let bound = unusual_below(90.0, 2.0, 20).unwrap();
        assert!((bound - 79.62).abs() < 0.01, "{bound}");
    }
}
