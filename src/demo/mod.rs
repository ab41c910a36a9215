//! The demo: a real day of charging at a workplace, sent to the gateway itself as if it were happening now.
//!
//! It speaks HTTP like any client, so the dashboard shows what it would show for a fleet. The demo sends the last 24
//! hours at once. From then on each meter and vehicle reports once a minute, and the day begins again after 24 hours.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use wattgate_sessions::data::{parse, select};
use wattgate_sessions::plan::Live;
use wattgate_sessions::timeline::{Booking, Event, Timeline};
use wattgate_sessions::{DAY_OF_JPL, body};

use crate::http_client::{PostError, Receiver, WEB};

/// The most readings of each stream in a request.
const BATCH: usize = 500;
/// Events that are due within this time share a request.
const TICK: Duration = Duration::from_millis(100);
/// How long a request may take.
const WITHIN: Duration = Duration::from_secs(10);
/// How long requests may fail before that is logged: a start takes a moment.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause after a request that failed.
const PAUSE: Duration = Duration::from_millis(250);

/// Sends the sessions and readings to the gateway at this address, without end.
///
/// It returns only if the recorded day cannot be read.
///
/// Cancel: safe
pub async fn play(gateway: SocketAddr) {
    let mut stays = match parse(DAY_OF_JPL) {
        Ok(stays) => select(stays).stays,
        Err(error) => return tracing::error!(%error, "the demo's day cannot be read"),
    };
    // A vehicle has the id of its session; these are shorter than the data's.
    for (n, stay) in stays.iter_mut().enumerate() {
        stay.session_id = format!("EV-{:02}", n + 1);
    }
    let mut player = Player {
        gateway,
        meters: Readings::default(),
        vehicles: Readings::default(),
        past: Some(BTreeMap::new()),
        failing: None,
    };
    let live = Live::new(stays, Timestamp::now().as_microsecond());
    for event in Timeline::new(live.bookings(), None) {
        if let Some(wait) = until(event.at_us()) {
            player.flush().await;
            player.arrive().await;
            tokio::time::sleep(wait).await;
        }
        player.take(&event).await;
    }
}

/// How long to wait for a moment; `None` if it is due.
fn until(at_us: i64) -> Option<Duration> {
    let ahead_us = at_us - Timestamp::now().as_microsecond();
    let ahead = Duration::from_micros(u64::try_from(ahead_us).ok()?);
    (!ahead.is_zero()).then_some(ahead.max(TICK))
}

struct Player {
    gateway: SocketAddr,
    meters: Readings,
    vehicles: Readings,
    /// The sessions that have begun, by number, while the last 24 hours are sent. They are registered together with
    /// their end, or after all readings: an open session without readings would open an alert.
    past: Option<BTreeMap<usize, Arc<Booking>>>,
    /// Since when requests have failed, and whether that was logged.
    failing: Option<(Instant, bool)>,
}

impl Player {
    async fn take(&mut self, event: &Event) {
        match event {
            Event::Start(booking) => match &mut self.past {
                Some(past) => drop(past.insert(booking.number, Arc::clone(booking))),
                None => self.register(body::session(booking)).await,
            },
            Event::Reading(booking, sample) => {
                self.meters
                    .push(|lines| body::push_meter(lines, booking, sample));
                self.vehicles
                    .push(|lines| body::push_vehicle(lines, booking, sample));
                if self.meters.count == BATCH {
                    self.flush().await;
                }
            }
            Event::End(booking) => {
                let ended_at = json!(body::rfc3339(booking.end_us()));
                let past = self.past.as_mut();
                if past.is_some_and(|past| past.remove(&booking.number).is_some()) {
                    let mut session = body::session(booking);
                    session["endedAt"] = ended_at;
                    return self.register(session).await;
                }
                let id = utf8_percent_encode(&booking.session_id, NON_ALPHANUMERIC);
                let end = json!({ "endedAt": ended_at }).to_string();
                self.post(&format!("/v1/sessions/{id}/end"), &end).await;
            }
        }
    }

    /// Called once the last 24 hours are sent. Registers the sessions that are still open.
    async fn arrive(&mut self) {
        for booking in self.past.take().into_iter().flat_map(BTreeMap::into_values) {
            self.register(body::session(&booking)).await;
        }
    }

    async fn register(&mut self, session: Value) {
        self.post("/v1/sessions", &session.to_string()).await;
    }

    /// Sends the waiting readings of both streams.
    async fn flush(&mut self) {
        for (path, readings) in [
            ("/v1/ingestion/meter", self.meters.take()),
            ("/v1/ingestion/vehicle", self.vehicles.take()),
        ] {
            if let Some(readings) = readings {
                self.post(path, &readings).await;
            }
        }
    }

    /// Sends a body until it is accepted. A refusal that another try cannot change is logged and skipped.
    async fn post(&mut self, path: &str, body: &str) {
        loop {
            match self.try_post(path, body).await {
                Ok(()) => {
                    self.failing = None;
                    return;
                }
                Err(PostError::Refused(status)) if is_final(status) => {
                    tracing::warn!(path, %status, "the demo's request is refused");
                    return;
                }
                Err(error) => {
                    let (since, logged) = self.failing.get_or_insert((Instant::now(), false));
                    if since.elapsed() > PATIENCE && !*logged {
                        *logged = true;
                        tracing::warn!(
                            path, %error,
                            "the demo's requests fail; if the disk is full, set TMPDIR to a \
                             directory with 1 GiB of free space"
                        );
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn try_post(&self, path: &str, body: &str) -> Result<(), PostError> {
        let url = format!("http://{}{path}", self.gateway);
        let receiver =
            Receiver::new(&url, WEB).map_err(|e| PostError::Connection(e.to_string()))?;
        receiver.post_json(&[], body.to_owned(), WITHIN).await
    }
}

/// Whether the same request would be refused again.
fn is_final(status: hyper::StatusCode) -> bool {
    use hyper::StatusCode;
    status.is_client_error()
        && status != StatusCode::TOO_MANY_REQUESTS
        && status != StatusCode::REQUEST_TIMEOUT
}

/// Readings of a stream that wait to be sent, one per line.
#[derive(Default)]
struct Readings {
    lines: Vec<u8>,
    count: usize,
}

impl Readings {
    fn push(&mut self, push: impl FnOnce(&mut Vec<u8>)) {
        push(&mut self.lines);
        self.count += 1;
    }

    /// Empties it into a JSON array.
    fn take(&mut self) -> Option<String> {
        self.count = 0;
        let lines = String::from_utf8(std::mem::take(&mut self.lines)).unwrap_or_default();
        let readings: Vec<&str> = lines.lines().collect();
        (!readings.is_empty()).then(|| format!("[{}]", readings.join(",")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_readings_become_one_array_and_are_then_gone() {
        let mut readings = Readings::default();
        assert_eq!(readings.take(), None);
        readings.push(|lines| lines.extend_from_slice(b"{\"a\":1}\n"));
        readings.push(|lines| lines.extend_from_slice(b"{\"a\":2}\n"));
        assert_eq!(readings.take().as_deref(), Some(r#"[{"a":1},{"a":2}]"#));
        assert_eq!(readings.take(), None);
    }

    #[test]
    fn only_a_refusal_that_cannot_change_is_final() {
        let finals = [400, 404, 409, 422].map(|code| hyper::StatusCode::from_u16(code).unwrap());
        let again =
            [408, 429, 500, 503, 507].map(|code| hyper::StatusCode::from_u16(code).unwrap());
        assert!(finals.into_iter().all(is_final));
        assert!(!again.into_iter().any(is_final));
    }
}
