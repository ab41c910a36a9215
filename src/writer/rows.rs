//! Rows of history: what a reading becomes in PostgreSQL.

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::ToSql;

use crate::reading::{Stream, Timestamp};
use crate::wal::frame::Position;

/// The position of a row's reading in the log, and when it was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The frame.
    pub position: Position,
    /// The reading's index in the shard's section of the frame.
    pub index: u32,
    /// The time at which it was received.
    pub received_at: Timestamp,
}

/// The energy of a row. It goes into one of two columns; the other is null.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowEnergy {
    /// kWh.
    pub kwh: f64,
    /// Whether it is a register total.
    pub register: bool,
}

/// A row of `meter_telemetry_history`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeterRow {
    /// The meter's id.
    pub id: i32,
    /// The time of the measurement.
    pub at: Timestamp,
    /// AC energy.
    pub energy: RowEnergy,
    /// V.
    pub voltage: f64,
    /// Its place in the log.
    pub origin: Origin,
}

/// A row of `vehicle_telemetry_history`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VehicleRow {
    /// The vehicle's id.
    pub id: i32,
    /// The time of the measurement.
    pub at: Timestamp,
    /// DC energy.
    pub energy: RowEnergy,
    /// %.
    pub soc: f64,
    /// °C.
    pub battery_temp: f64,
    /// The meter that it names, or 0.
    pub named_meter: i32,
    /// The session that it names, or 0.
    pub named_session: i32,
    /// Its place in the log.
    pub origin: Origin,
}

#[cfg(test)]
impl MeterRow {
    /// A test's row: received when it was measured, at the start of the log.
    pub(super) fn for_test(id: i32, at: Timestamp, kwh: f64) -> Self {
        MeterRow {
            id,
            at,
            energy: RowEnergy {
                kwh,
                register: false,
            },
            voltage: 230.0,
            origin: Origin {
                position: Position::START,
                index: 0,
                received_at: at,
            },
        }
    }
}

/// The values of many rows as columns, for a statement with `unnest`.
pub type Columns = Vec<Box<dyn ToSql + Sync + Send>>;

/// Borrows columns as a statement's parameters.
pub(super) fn as_params(columns: &Columns) -> Vec<&(dyn ToSql + Sync)> {
    columns
        .iter()
        .map(|c| &**c as &(dyn ToSql + Sync))
        .collect()
}

/// What the writer needs to know about a kind of row.
pub trait HistoryRow: Copy + Send + Sync + 'static {
    /// The stream.
    const STREAM: Stream;
    /// `COPY … FROM STDIN BINARY` with the columns in the order of [`HistoryRow::encode`].
    const COPY: &'static str;
    /// Reads the stored values of given keys, with constant bounds of time so that only the partitions concerned
    /// are read. Index: the primary key.
    const PROBE: &'static str;
    /// Inserts the rows that are not there yet and returns their keys. Used only after a race with another
    /// gateway.
    const INSERT: &'static str;

    /// The key in history: device and time.
    fn key(&self) -> (i32, Timestamp);
    /// Its place in the log.
    fn origin(&self) -> Origin;
    /// Whether two rows with one key hold the same values.
    fn same_values(&self, other: &Self) -> bool;
    /// Appends the row in COPY's binary format.
    fn encode(&self, out: &mut BytesMut);
    /// Decodes a row of [`HistoryRow::PROBE`]. Its origin is copied from `like`.
    fn from_probe(row: &tokio_postgres::Row, like: &Self) -> Self;
    /// The columns of [`HistoryRow::INSERT`].
    fn columns(rows: &[Self]) -> Columns;
    /// The ids of the meter and the session that it names; 0 means none.
    fn named(&self) -> [i32; 2];
    /// The values for the quarantine, as JSON.
    fn to_json(&self) -> serde_json::Value;
}

impl HistoryRow for MeterRow {
    const STREAM: Stream = Stream::Meter;
    const COPY: &'static str = sql!("copy_meter");
    const PROBE: &'static str = sql!("probe_meter");
    const INSERT: &'static str = sql!("insert_meter");

    fn key(&self) -> (i32, Timestamp) {
        (self.id, self.at)
    }

    fn origin(&self) -> Origin {
        self.origin
    }

    fn same_values(&self, other: &Self) -> bool {
        self.energy == other.energy && self.voltage == other.voltage
    }

    fn encode(&self, out: &mut BytesMut) {
        out.reserve(64);
        out.put_i16(5);
        put_time(out, self.at);
        put_energy(out, self.energy);
        put_f64(out, self.voltage);
        put_i32(out, self.id);
    }

    fn from_probe(row: &tokio_postgres::Row, like: &Self) -> Self {
        MeterRow {
            id: row.get(0),
            at: row.get(1),
            energy: energy(row.get(2), row.get(3)),
            voltage: row.get(4),
            origin: like.origin,
        }
    }

    fn columns(rows: &[Self]) -> Columns {
        vec![
            Box::new(rows.iter().map(|r| r.id).collect::<Vec<_>>()),
            Box::new(rows.iter().map(|r| r.at).collect::<Vec<_>>()),
            Box::new(rows.iter().map(|r| r.energy.interval()).collect::<Vec<_>>()),
            Box::new(rows.iter().map(|r| r.energy.total()).collect::<Vec<_>>()),
            Box::new(rows.iter().map(|r| r.voltage).collect::<Vec<_>>()),
        ]
    }

    fn named(&self) -> [i32; 2] {
        [0, 0]
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "kwhConsumedAc": self.energy.kwh,
            "energyKind": self.energy.kind_name(),
            "voltage": self.voltage,
            "timestamp": self.at.to_string(),
        })
    }
}

impl HistoryRow for VehicleRow {
    const STREAM: Stream = Stream::Vehicle;
    const COPY: &'static str = sql!("copy_vehicle");
    const PROBE: &'static str = sql!("probe_vehicle");
    const INSERT: &'static str = sql!("insert_vehicle");

    fn key(&self) -> (i32, Timestamp) {
        (self.id, self.at)
    }

    fn origin(&self) -> Origin {
        self.origin
    }

    fn same_values(&self, other: &Self) -> bool {
        self.energy == other.energy
            && self.soc == other.soc
            && self.battery_temp == other.battery_temp
            && self.named_meter == other.named_meter
            && self.named_session == other.named_session
    }

    fn encode(&self, out: &mut BytesMut) {
        out.reserve(96);
        out.put_i16(8);
        put_time(out, self.at);
        put_energy(out, self.energy);
        put_f64(out, self.soc);
        put_f64(out, self.battery_temp);
        put_i32(out, self.id);
        put_named(out, self.named_meter);
        put_named(out, self.named_session);
    }

    fn from_probe(row: &tokio_postgres::Row, like: &Self) -> Self {
        VehicleRow {
            id: row.get(0),
            at: row.get(1),
            energy: energy(row.get(2), row.get(3)),
            soc: row.get(4),
            battery_temp: row.get(5),
            named_meter: row.get::<_, Option<i32>>(6).unwrap_or(0),
            named_session: row.get::<_, Option<i32>>(7).unwrap_or(0),
            origin: like.origin,
        }
    }

    fn columns(rows: &[Self]) -> Columns {
        let named = |id: i32| (id != 0).then_some(id);
        vec![
            Box::new(rows.iter().map(|r| r.id).collect::<Vec<_>>()),
            Box::new(rows.iter().map(|r| r.at).collect::<Vec<_>>()),
            Box::new(rows.iter().map(|r| r.energy.interval()).collect::<Vec<_>>()),
            Box::new(rows.iter().map(|r| r.energy.total()).collect::<Vec<_>>()),
            Box::new(rows.iter().map(|r| r.soc).collect::<Vec<_>>()),
            Box::new(rows.iter().map(|r| r.battery_temp).collect::<Vec<_>>()),
            Box::new(
                rows.iter()
                    .map(|r| named(r.named_meter))
                    .collect::<Vec<_>>(),
            ),
            Box::new(
                rows.iter()
                    .map(|r| named(r.named_session))
                    .collect::<Vec<_>>(),
            ),
        ]
    }

    fn named(&self) -> [i32; 2] {
        [self.named_meter, self.named_session]
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "soc": self.soc,
            "kwhDeliveredDc": self.energy.kwh,
            "energyKind": self.energy.kind_name(),
            "batteryTemp": self.battery_temp,
            "timestamp": self.at.to_string(),
        })
    }
}

impl RowEnergy {
    /// The value of the interval column.
    pub fn interval(self) -> Option<f64> {
        (!self.register).then_some(self.kwh)
    }

    /// The value of the register column.
    pub fn total(self) -> Option<f64> {
        self.register.then_some(self.kwh)
    }

    fn kind_name(self) -> &'static str {
        if self.register {
            "register"
        } else {
            "interval"
        }
    }
}

fn energy(interval: Option<f64>, register: Option<f64>) -> RowEnergy {
    match register {
        Some(kwh) => RowEnergy {
            kwh,
            register: true,
        },
        None => RowEnergy {
            kwh: interval.unwrap_or_default(),
            register: false,
        },
    }
}

fn put_time(out: &mut BytesMut, at: Timestamp) {
    out.put_i32(8);
    out.put_i64(at.as_micros() - Timestamp::Y2000.as_micros());
}

fn put_f64(out: &mut BytesMut, value: f64) {
    out.put_i32(8);
    out.put_f64(value);
}

fn put_i32(out: &mut BytesMut, value: i32) {
    out.put_i32(4);
    out.put_i32(value);
}

fn put_null(out: &mut BytesMut) {
    out.put_i32(-1);
}

fn put_named(out: &mut BytesMut, id: i32) {
    if id == 0 {
        put_null(out)
    } else {
        put_i32(out, id)
    }
}

/// The interval column, then the register column: one of them is null.
fn put_energy(out: &mut BytesMut, energy: RowEnergy) {
    if energy.register {
        put_null(out);
        put_f64(out, energy.kwh);
    } else {
        put_f64(out, energy.kwh);
        put_null(out);
    }
}
