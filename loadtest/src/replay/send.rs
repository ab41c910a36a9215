//! Sends sessions one by one, and readings in batches per stream.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::client::{CallError, Client, Repeats};
use crate::output::say;
use crate::stop::Stop;
use wattgate_sessions::body::{self, rfc3339};
use wattgate_sessions::curve::Sample;
use wattgate_sessions::timeline::{Booking, Event};

/// What needs no escaping in a path segment or a query value (RFC 3986, unreserved).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// How many warnings are printed in full. Further ones are only counted.
const WARNINGS_MAX: u64 = 20;

/// Percent-encodes an id for a path or a query.
pub(crate) fn escape(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// What was counted so far.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    /// Readings sent, each counted once even if it was sent repeatedly.
    pub(crate) sent: u64,
    /// Readings accepted, according to the gateway's responses.
    pub(crate) accepted: u64,
    /// Readings rejected.
    pub(crate) rejected: u64,
    /// AC energy of the sent readings.
    pub(crate) ac_micro_kwh: i64,
    /// Sessions rejected.
    pub(crate) conflicts: u64,
}

/// One stay, as far as it has been replayed.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) booking: Arc<Booking>,
    /// AC energy of the readings sent.
    pub(crate) ac_micro_kwh: i64,
    /// The latest sample that was sent.
    pub(crate) last: Option<Sample>,
    /// Whether the vehicle has left.
    pub(crate) ended: bool,
}

/// A stream's readings that are waiting to be sent, one per line.
#[derive(Debug, Default)]
struct Batch {
    lines: Vec<u8>,
    readings: usize,
}

/// Sends events to the gateway and remembers what it sent.
pub(crate) struct Sender {
    meters: Client,
    vehicles: Client,
    meter_batch: Batch,
    vehicle_batch: Batch,
    batch_max: usize,
    sessions_late: bool,
    entries: Vec<Entry>,
    tally: Tally,
}

impl Sender {
    /// Makes a sender with one connection per stream. Sessions use that of the vehicles.
    pub(crate) fn new(client: &Client, batch_max: usize, sessions_late: bool) -> Self {
        Sender {
            meters: client.fork(client.stop()),
            vehicles: client.fork(client.stop()),
            meter_batch: Batch::default(),
            vehicle_batch: Batch::default(),
            batch_max,
            sessions_late,
            entries: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// The same sender with its waiting readings, and another stop signal.
    pub(crate) fn with_stop(mut self, stop: Stop) -> Self {
        self.meters = self.meters.fork_counted(stop.clone());
        self.vehicles = self.vehicles.fork_counted(stop);
        self
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// All stays that have begun, by their number.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// How often requests had to be repeated.
    pub(crate) fn repeats(&self) -> Repeats {
        Repeats {
            refused: self.meters.repeats.refused + self.vehicles.repeats.refused,
            broken: self.meters.repeats.broken + self.vehicles.repeats.broken,
        }
    }

    /// Handles an event: sends a session at once, and readings when their batch is full.
    ///
    /// Cancel: the event may or may not have been handled, and must not be handled again
    ///
    /// # Errors
    /// [`CallError::Stopped`]: all readings are kept for [`Sender::flush`], but a session's start or end may not
    /// have been sent.
    pub(crate) async fn take(&mut self, event: &Event) -> Result<(), CallError> {
        match event {
            Event::Start(booking) => {
                self.entries.push(Entry {
                    booking: Arc::clone(booking),
                    ac_micro_kwh: 0,
                    last: None,
                    ended: false,
                });
                if !self.sessions_late {
                    self.register(booking, None).await?;
                }
            }
            Event::Reading(booking, sample) => {
                self.meter_batch.push_meter(booking, sample);
                self.vehicle_batch.push_vehicle(booking, sample);
                self.tally.sent += 2;
                self.tally.ac_micro_kwh += sample.ac_micro_kwh;
                if let Some(entry) = self.entries.get_mut(booking.number) {
                    entry.ac_micro_kwh += sample.ac_micro_kwh;
                    // By time, not by the order of sending, which may be shuffled.
                    let newest = entry.last.filter(|last| last.at_us > sample.at_us);
                    entry.last = Some(newest.unwrap_or(*sample));
                }
                if self.meter_batch.readings >= self.batch_max {
                    self.flush().await?;
                }
            }
            Event::End(booking) => {
                if let Some(entry) = self.entries.get_mut(booking.number) {
                    entry.ended = true;
                }
                if !self.sessions_late {
                    self.end(booking).await?;
                }
            }
        }
        Ok(())
    }

    /// Sends the waiting readings of both streams at once. Readings without a response keep waiting.
    pub(crate) async fn flush(&mut self) -> Result<(), CallError> {
        self.send("").await
    }

    async fn send(&mut self, query: &str) -> Result<(), CallError> {
        let (meters, vehicles) = tokio::join!(
            self.meter_batch.send(&mut self.meters, "meter", query),
            self.vehicle_batch
                .send(&mut self.vehicles, "vehicle", query),
        );
        for outcome in [meters, vehicles] {
            let (accepted, rejected, first_error) = outcome?;
            self.tally.accepted += accepted;
            self.tally.rejected += rejected;
            if rejected > 0 {
                self.warn(&format!(
                    "{rejected} readings refused, the first: {first_error}"
                ));
            }
        }
        Ok(())
    }

    /// Prepares the comparison: sends waiting readings, registers late sessions, and waits until everything is
    /// committed.
    ///
    /// The gateway stores each device's readings in the order in which they arrive. So one reading of each device
    /// is sent again with `ack=committed`: once that is committed, all others are too. The repeat is stored only
    /// once.
    pub(crate) async fn settle(&mut self) -> Result<(), CallError> {
        self.flush().await?;
        let entries = self.entries.clone();
        for entry in &entries {
            if self.sessions_late {
                let ended = entry.ended.then(|| entry.booking.end_us());
                self.register(&entry.booking, ended).await?;
            } else if entry.ended {
                // Already sent, unless Ctrl-C came first. Sending it again is safe.
                self.end(&entry.booking).await?;
            }
        }
        let counted = self.tally.clone();
        for chunk in entries.chunks(self.batch_max) {
            for entry in chunk {
                if let Some(sample) = &entry.last {
                    self.meter_batch.push_meter(&entry.booking, sample);
                    self.vehicle_batch.push_vehicle(&entry.booking, sample);
                }
            }
            self.send("?ack=committed").await?;
        }
        // Accepted repeats must not count; rejected ones must.
        self.tally.accepted = counted.accepted;
        Ok(())
    }

    async fn register(
        &mut self,
        booking: &Booking,
        ended_us: Option<i64>,
    ) -> Result<(), CallError> {
        let mut session = body::session(booking);
        if let Some(ended_us) = ended_us {
            session["endedAt"] = json!(rfc3339(ended_us));
        }
        let answer = post(&mut self.vehicles, "/v1/sessions", &session).await?;
        match answer.status {
            status if status.is_success() => Ok(()),
            // An earlier replay has registered the same session, and may have ended it.
            StatusCode::CONFLICT if self.is_known(booking, &session).await? => Ok(()),
            StatusCode::CONFLICT => {
                self.conflict(booking, &answer.excerpt());
                Ok(())
            }
            _ => Err(CallError::Refused(answer.excerpt())),
        }
    }

    async fn end(&mut self, booking: &Booking) -> Result<(), CallError> {
        let path = format!("/v1/sessions/{}/end", escape(&booking.session_id));
        let end = json!({ "endedAt": rfc3339(booking.end_us()) });
        let answer = post(&mut self.vehicles, &path, &end).await?;
        match answer.status {
            status if status.is_success() => Ok(()),
            StatusCode::CONFLICT | StatusCode::NOT_FOUND => {
                self.conflict(booking, &answer.excerpt());
                Ok(())
            }
            _ => Err(CallError::Refused(answer.excerpt())),
        }
    }

    /// Whether the gateway has this session with the same vehicle, meter and start.
    async fn is_known(&mut self, booking: &Booking, session: &Value) -> Result<bool, CallError> {
        let path = format!("/v1/sessions/{}", escape(&booking.session_id));
        let answer = get(&mut self.vehicles, &path).await?;
        let known = answer.json();
        let same = |field: &str| known[field] == session[field];
        let started = known["startedAt"]
            .as_str()
            .and_then(|text| text.parse::<jiff::Timestamp>().ok());
        Ok(answer.status.is_success()
            && same("vehicleId")
            && same("meterId")
            && started.map(jiff::Timestamp::as_microsecond) == Some(booking.start_us()))
    }

    fn conflict(&mut self, booking: &Booking, answer: &str) {
        self.tally.conflicts += 1;
        self.warn(&format!("session {} refused: {answer}", booking.session_id));
    }

    fn warn(&self, text: &str) {
        if self.tally.conflicts + self.tally.rejected <= WARNINGS_MAX {
            say(&format!("warning: {text}"));
        }
    }
}

impl Batch {
    fn push_meter(&mut self, booking: &Booking, sample: &Sample) {
        body::push_meter(&mut self.lines, booking, sample);
        self.readings += 1;
    }

    fn push_vehicle(&mut self, booking: &Booking, sample: &Sample) {
        body::push_vehicle(&mut self.lines, booking, sample);
        self.readings += 1;
    }

    /// Sends the batch, and clears it once there is a response. Returns how many readings were accepted and
    /// rejected, and the first error.
    async fn send(
        &mut self,
        client: &mut Client,
        stream: &str,
        query: &str,
    ) -> Result<(u64, u64, String), CallError> {
        if self.readings == 0 {
            return Ok((0, 0, String::new()));
        }
        let body = Bytes::copy_from_slice(&self.lines);
        let path = format!("/v1/ingestion/{stream}{query}");
        let answer = client
            .call(Method::POST, &path, "application/x-ndjson", body)
            .await?;
        let json = answer.json();
        let (true, Some(accepted)) = (answer.status.is_success(), json["accepted"].as_u64()) else {
            return Err(CallError::Refused(answer.excerpt()));
        };
        let rejected = self.readings as u64 - accepted.min(self.readings as u64);
        self.lines.clear();
        self.readings = 0;
        Ok((accepted, rejected, json["errors"][0].to_string()))
    }
}

async fn post(
    client: &mut Client,
    path: &str,
    body: &Value,
) -> Result<super::client::Answer, CallError> {
    let body = Bytes::from(body.to_string());
    client
        .call(Method::POST, path, "application/json", body)
        .await
}

/// Gets a resource from the gateway.
pub(crate) async fn get(
    client: &mut Client,
    path: &str,
) -> Result<super::client::Answer, CallError> {
    client
        .call(Method::GET, path, "application/json", Bytes::new())
        .await
}

/// The ids of a vehicle's sessions in the gateway, in the order of its response.
pub(crate) async fn sessions_of(
    client: &mut Client,
    vehicle: &str,
) -> Result<Vec<String>, CallError> {
    let answer = get(
        client,
        &format!("/v1/sessions?vehicleId={}", escape(vehicle)),
    )
    .await?;
    let json = answer.json();
    let items = json["items"].as_array().or(json.as_array());
    Ok(items
        .into_iter()
        .flatten()
        .filter_map(|session| session["sessionId"].as_str())
        .map(str::to_owned)
        .collect())
}
