//! The readings of all devices in a window, one device after the other.
//!
//! Each query reads a few thousand readings. Memory is constant whatever the window, and a slow client holds
//! neither a snapshot nor a session. Readings that are stored during an export may or may not be included.

use deadpool_postgres::Client;
use tokio_postgres::{Error, Row};

use super::reading::StoredReading;
use crate::postgres::ReadError;
use crate::reading::{Stream, Timestamp};

/// The most readings of one piece, about 1 MB as NDJSON.
pub const READINGS_MAX: usize = 5_000;
/// How many devices are looked up at once.
const DEVICES_MAX: i64 = 1_000;
/// How many devices without readings one piece may skip.
const IDLE_DEVICES_MAX: usize = 1_000;

/// The progress of an export.
#[derive(Debug)]
pub struct Export {
    stream: Stream,
    from: Timestamp,
    to: Timestamp,
    /// Devices still to be exported, of those that were looked up. The last element comes next.
    devices: Vec<(i32, String)>,
    /// The last device that was looked up.
    after: i32,
    exhausted: bool,
    /// The time up to which the next device's readings were sent already.
    sent_up_to: Timestamp,
}

/// Some readings of an export, all of one device.
#[derive(Debug, Default)]
pub struct Piece {
    /// The device.
    pub device: String,
    /// Its readings; empty if the piece only skipped devices without readings.
    pub readings: Vec<StoredReading>,
}

impl Export {
    /// Begins an export of the readings in (`from`, `to`].
    pub const fn new(stream: Stream, from: Timestamp, to: Timestamp) -> Self {
        Export {
            stream,
            from,
            to,
            devices: Vec::new(),
            after: i32::MIN,
            exhausted: false,
            sent_up_to: from,
        }
    }

    /// The stream that is exported.
    pub const fn stream(&self) -> Stream {
        self.stream
    }

    /// Reads the next piece; `None` at the end.
    ///
    /// Order:  devices in the order of their registration, the readings of each by time
    ///
    /// # Errors
    /// [`ReadError`]; call again to continue at the same place.
    pub async fn next(&mut self, client: &Client) -> Result<Option<Piece>, ReadError> {
        let sql = match self.stream {
            Stream::Meter => sql!("export_meter"),
            Stream::Vehicle => sql!("export_vehicle"),
        };
        let statement = client.prepare_cached(sql).await?;
        let limit = READINGS_MAX as i64;
        for _ in 0..IDLE_DEVICES_MAX {
            self.look_up(client).await?;
            let Some((id, device)) = self.devices.last() else {
                return Ok(None);
            };
            let rows = client
                .query(&statement, &[id, &self.sent_up_to, &self.to, &limit])
                .await?;
            let decode = |row| StoredReading::decode_history(self.stream, row);
            let readings: Vec<_> = rows.iter().map(decode).collect::<Result<_, Error>>()?;
            let piece = Piece {
                device: device.clone(),
                readings,
            };
            match piece.readings.last() {
                Some(last) if piece.readings.len() == READINGS_MAX => self.sent_up_to = last.at,
                _ => {
                    self.devices.pop();
                    self.sent_up_to = self.from;
                }
            }
            if !piece.readings.is_empty() {
                return Ok(Some(piece));
            }
        }
        Ok(Some(Piece::default()))
    }

    /// Looks up the next devices if none are left.
    async fn look_up(&mut self, client: &Client) -> Result<(), Error> {
        if self.exhausted || !self.devices.is_empty() {
            return Ok(());
        }
        let sql = match self.stream {
            Stream::Meter => sql!("export_devices_meter"),
            Stream::Vehicle => sql!("export_devices_vehicle"),
        };
        let statement = client.prepare_cached(sql).await?;
        let rows = client
            .query(&statement, &[&self.after, &DEVICES_MAX])
            .await?;
        let device = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?));
        self.devices = rows.iter().map(device).collect::<Result<_, Error>>()?;
        self.exhausted = self.devices.is_empty();
        self.after = self.devices.last().map_or(self.after, |(id, _)| *id);
        self.devices.reverse();
        Ok(())
    }
}
