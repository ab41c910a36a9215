//! Looking for devices that have fallen silent.
//!
//! A device is silent where nothing was heard of it for longer than it usually lets one wait. Of a
//! vehicle nothing is expected once it has left: after the end of its newest session, or once it
//! had finished charging, unless it is one that reports wherever it is.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio_postgres::Client;

use super::evaluate::{Finding, Findings, devices};
use super::{AlertError, Kind, Settings};
use crate::reading::{HOUR_MICROS, Stream, Timestamp};

/// How many times its longest silence of late a device may be silent.
const USUAL_TIMES: f64 = 1.5;
/// Devices whose past is looked at in one statement: a week of readings each.
const DEVICES_MAX: i64 = 200;
/// What looking at the past may cost: a twentieth of the time, for both streams.
const LOOK_SHARE: u32 = 40;
/// Devices whose silence is remembered, of each stream; more are looked at again each time.
const KNOWN_MAX: usize = 200_000;

/// What is known of devices that send nothing, so that their past is not read again each minute,
/// and those that wait longest do not lie behind those that are seldom heard of.
#[derive(Debug, Default)]
pub(super) struct Silences {
    meters: HashMap<i32, Known>,
    vehicles: HashMap<i32, Known>,
}

/// A silence that was looked at.
#[derive(Debug, Clone, Copy)]
struct Known {
    since: Timestamp,
    /// When it is to be looked at again: readings and sessions may come late.
    again_at: Timestamp,
}

/// How a silence is judged.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Verdict {
    /// It is unusual: how long it is, and from when on it is.
    Silent { seconds: f64, bound: f64 },
    /// It will be unusual then.
    NotBefore(Timestamp),
    /// Nothing says what is usual, or nothing is expected.
    Unknown,
}

/// Devices that were looked at together.
struct Batch {
    silent: Vec<Finding>,
    /// Whether more devices may be left to look at.
    is_full: bool,
}

impl Silences {
    /// Looks for devices that have fallen silent, and for those that are not any longer.
    ///
    /// Blocks: for a statement a stream, and where many fell silent at once for some more, until a
    ///         fortieth of the time between two looks is over
    pub(super) async fn look(
        &mut self,
        client: &Client,
        settings: &Settings,
        now: Timestamp,
        findings: &mut Findings,
    ) -> Result<(), AlertError> {
        for stream in Stream::ALL {
            let over = match stream {
                Stream::Meter => sql!("alert_silence_over_meter"),
                Stream::Vehicle => sql!("alert_silence_over_vehicle"),
            };
            let over = client.query(over, &[&now]).await?;
            findings.over.push((Kind::Silent, stream, devices(&over)?));
            let began = Instant::now();
            loop {
                let batch = self.look_at_some(client, settings, stream, now).await?;
                findings.found.extend(batch.silent);
                if !batch.is_full || began.elapsed() * LOOK_SHARE >= settings.every {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Looks at some devices of a stream that were not looked at yet.
    async fn look_at_some(
        &mut self,
        client: &Client,
        settings: &Settings,
        stream: Stream,
        now: Timestamp,
    ) -> Result<Batch, AlertError> {
        let (known, query) = match stream {
            Stream::Meter => (&mut self.meters, sql!("alert_silence_meter")),
            Stream::Vehicle => (&mut self.vehicles, sql!("alert_silence_vehicle")),
        };
        known.retain(|_, known| known.again_at > now);
        let (keys, since): (Vec<i32>, Vec<Timestamp>) =
            known.iter().map(|(&key, known)| (key, known.since)).unzip();
        let least = settings.silence_min.as_secs_f64();
        let rows = client
            .query(query, &[&now, &least, &keys, &since, &DEVICES_MAX])
            .await?;
        let mut silent = Vec::new();
        for row in &rows {
            let (device, since, at): (i32, Timestamp, Timestamp) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let (longest, is_done): (Option<f64>, bool) = (row.try_get(3)?, row.try_get(4)?);
            let verdict = judge(
                since,
                longest.filter(|_| !is_done),
                settings.silence_min,
                now,
            );
            let hour = now.plus_micros(HOUR_MICROS);
            let again_at = match verdict {
                Verdict::NotBefore(at) => at.min(hour),
                Verdict::Silent { .. } | Verdict::Unknown => hour,
            };
            if known.len() < KNOWN_MAX {
                known.insert(device, Known { since, again_at });
            }
            if let Verdict::Silent { seconds, bound } = verdict {
                silent.push(Finding {
                    kind: Kind::Silent,
                    stream,
                    device,
                    value: seconds,
                    bound,
                    details: json!({"lastReadingAt": at.to_string(), "unit": "s"}),
                });
            }
        }
        Ok(Batch {
            silent,
            is_full: rows.len() as i64 == DEVICES_MAX && known.len() < KNOWN_MAX,
        })
    }
}

/// Judges a silence by the longest of late.
///
/// Units:  seconds
fn judge(since: Timestamp, longest: Option<f64>, least: Duration, now: Timestamp) -> Verdict {
    let Some(longest) = longest else {
        return Verdict::Unknown;
    };
    let bound = (USUAL_TIMES * longest).max(least.as_secs_f64());
    let seconds = (now.as_micros() - since.as_micros()) as f64 / 1e6;
    if seconds > bound {
        return Verdict::Silent { seconds, bound };
    }
    Verdict::NotBefore(since.plus_micros((bound * 1e6) as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_unusual_beyond_the_longest_recent_one() {
        let since = Timestamp::from_micros(1_707_490_800_000_000);
        let after = |seconds: i64| since.plus_micros(seconds * 1_000_000);
        let judged = |longest, at| judge(since, longest, Duration::from_secs(1800), at);
        // A reading a minute: the least counts.
        assert_eq!(
            judged(Some(60.0), after(1800)),
            Verdict::NotBefore(after(1800))
        );
        let silent = Verdict::Silent {
            seconds: 1801.0,
            bound: 1800.0,
        };
        assert_eq!(judged(Some(60.0), after(1801)), silent);
        // A reading an hour: an hour and a half.
        let later = Verdict::NotBefore(after(5400));
        assert_eq!(judged(Some(3600.0), after(1801)), later);
        // One reading says nothing of what is usual.
        assert_eq!(judged(None, after(86_400)), Verdict::Unknown);
    }
}
