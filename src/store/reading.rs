//! A stored reading, from any table.

use tokio_postgres::{Error, Row};

use crate::reading::{Energy, EnergyKind, Stream, Timestamp};

/// A reading as stored: the values that its device sent.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredReading {
    /// When it was taken.
    pub at: Timestamp,
    /// Its energy.
    pub energy: Energy,
    /// The fields of its kind of device.
    pub details: StoredDetails,
}

/// The fields that only one kind of device has, as stored.
#[derive(Debug, Clone, PartialEq)]
pub enum StoredDetails {
    /// A meter's reading.
    Meter {
        /// V (RMS).
        voltage: f64,
    },
    /// A vehicle's reading.
    Vehicle {
        /// State of charge, %.
        soc: f64,
        /// °C.
        battery_temp: f64,
        /// The meter that it names. Live status does not hold it.
        meter: Option<String>,
        /// The session that it names. Live status does not hold it.
        session: Option<String>,
    },
}

impl StoredReading {
    /// Decodes the columns of a reading, starting at column `first` of a row: `ts`, the energy as an interval, the
    /// energy as a register, and then a meter's `voltage` or a vehicle's `soc` and `battery_temp`.
    ///
    /// # Errors
    /// The driver's errors: the statement has other columns.
    pub(super) fn decode(stream: Stream, row: &Row, first: usize) -> Result<Self, Error> {
        let interval: Option<f64> = row.try_get(first + 1)?;
        let register: Option<f64> = row.try_get(first + 2)?;
        let kind = match register {
            Some(_) => EnergyKind::Register,
            None => EnergyKind::Interval,
        };
        Ok(StoredReading {
            at: row.try_get(first)?,
            energy: Energy {
                kwh: register.or(interval).unwrap_or_default(),
                kind,
            },
            details: match stream {
                Stream::Meter => StoredDetails::Meter {
                    voltage: row.try_get(first + 3)?,
                },
                Stream::Vehicle => StoredDetails::Vehicle {
                    soc: row.try_get(first + 3)?,
                    battery_temp: row.try_get(first + 4)?,
                    meter: None,
                    session: None,
                },
            },
        })
    }

    /// Decodes a row of history: a reading and, for a vehicle, the meter and the session that it names.
    ///
    /// # Errors
    /// As for [`StoredReading::decode`].
    pub(super) fn decode_history(stream: Stream, row: &Row) -> Result<Self, Error> {
        let mut reading = StoredReading::decode(stream, row, 0)?;
        if let StoredDetails::Vehicle { meter, session, .. } = &mut reading.details {
            *meter = row.try_get(5)?;
            *session = row.try_get(6)?;
        }
        Ok(reading)
    }
}
