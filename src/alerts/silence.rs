//! The search for silent devices.
//!
//! A device is silent if it has sent nothing for longer than usual: longer than its longest recent silence, and than
//! three of its usual intervals if no operator has set a time. A vehicle that has left need not send. It has left if
//! its newest session has ended, or if it has finished charging, unless it also reports elsewhere.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Instant;

use serde_json::json;
use tokio_postgres::Client;

use super::evaluate::{Finding, Findings, devices};
use super::{AlertError, Kind, Settings};
use crate::energy::latest::{INTERVALS_LEARNED_FROM, silent_after, usual_interval};
use crate::reading::{HOUR_MICROS, Stream, Timestamp};

/// A device may be silent for this many times its longest recent silence.
const USUAL_TIMES: f64 = 1.5;
/// The most devices whose past one statement reads: a week of readings each.
const DEVICES_MAX: i64 = 200;
/// How many of the newest readings determine the usual interval.
const TIMES_MAX: i64 = INTERVALS_LEARNED_FROM as i64 + 1;
/// Reading the past may take one part in this many of the search interval for each stream, so a twentieth for both.
const SEARCH_SHARE: u32 = 40;
/// The most silences that are remembered of each stream. Further ones are read again each time.
const KNOWN_MAX: usize = 200_000;

/// The known silences. Their past is not read again each minute, and devices that rarely send do not delay the others.
#[derive(Debug, Default)]
pub(super) struct Silences {
    meters: HashMap<i32, Known>,
    vehicles: HashMap<i32, Known>,
}

/// A silence that was judged.
#[derive(Debug, Clone, Copy)]
struct Known {
    since: Timestamp,
    /// When it is judged again: readings and sessions may come late.
    again_at: Timestamp,
}

/// The verdict on a silence.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Verdict {
    /// It is unusual: its length, and the length from which it is unusual.
    Silent { seconds: f64, bound: f64 },
    /// It will become unusual at this time.
    NotBefore(Timestamp),
    /// The past is too short, or the device need not send.
    Unknown,
}

/// Devices that were judged together.
struct Batch {
    silent: Vec<Finding>,
    /// Whether more devices may be left to judge.
    is_full: bool,
}

impl Silences {
    /// Finds devices that have fallen silent, and those that send again.
    ///
    /// Blocks: for one statement per stream; if many devices fell silent at once, for further statements until a
    ///         fortieth of the interval has passed
    pub(super) async fn search(
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
                let batch = self.judge_some(client, settings, stream, now).await?;
                findings.found.extend(batch.silent);
                if !batch.is_full || began.elapsed() * SEARCH_SHARE >= settings.every {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Judges some devices of a stream that were not judged yet.
    async fn judge_some(
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
            .query(
                query,
                &[&now, &least, &keys, &since, &DEVICES_MAX, &TIMES_MAX],
            )
            .await?;
        let mut silent = Vec::new();
        for row in &rows {
            let (device, since, at): (i32, Timestamp, Timestamp) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let (longest, is_done): (Option<f64>, bool) = (row.try_get(3)?, row.try_get(4)?);
            let times: Option<Vec<Timestamp>> = row.try_get(5)?;
            let least = match settings.silence_is_fixed {
                true => least,
                false => least.max(silent_after(interval_of(times.unwrap_or_default()))),
            };
            let verdict = judge(since, longest.filter(|_| !is_done), least, now);
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

/// The usual interval of a device, from the times of its newest readings in any order.
fn interval_of(mut times: Vec<Timestamp>) -> Option<f64> {
    times.sort_unstable_by_key(|at| Reverse(*at));
    usual_interval(times.into_iter())
}

/// Judges a silence by the longest recent one.
///
/// Units:  seconds
fn judge(since: Timestamp, longest: Option<f64>, least: f64, now: Timestamp) -> Verdict {
    let Some(longest) = longest else {
        return Verdict::Unknown;
    };
    let bound = (USUAL_TIMES * longest).max(least);
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
        let judged = |longest, at| judge(since, longest, 1800.0, at);
        // With one reading per minute, the minimum applies.
        assert_eq!(
            judged(Some(60.0), after(1800)),
            Verdict::NotBefore(after(1800))
        );
        let silent = Verdict::Silent {
            seconds: 1801.0,
            bound: 1800.0,
        };
        assert_eq!(judged(Some(60.0), after(1801)), silent);
        // With one reading per hour, an hour and a half applies.
        let later = Verdict::NotBefore(after(5400));
        assert_eq!(judged(Some(3600.0), after(1801)), later);
        // From one reading, no usual interval is known.
        assert_eq!(judged(None, after(86_400)), Verdict::Unknown);
    }
}
