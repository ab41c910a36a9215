//! The history of T7: as many meters as vehicles, in pairs of the same id, with one reading per minute.
//!
//! It is copied directly into the tables, minute by minute for all devices, which is the order in which a gateway
//! that keeps up stores it. So a device's readings are scattered over the disk.

use bytes::{BufMut, BytesMut};
use futures_util::SinkExt;
use tokio_postgres::{Client, NoTls};

use super::TargetsError;

/// COPY data is sent in chunks of this size.
const CHUNK_BYTES: usize = 64 << 10;
/// PostgreSQL's epoch, the year 2000, in microseconds after Unix's.
const EPOCH_US: i64 = 946_684_800_000_000;
/// The time between two readings of a device.
pub(super) const MINUTE_US: i64 = 60_000_000;
/// How many minutes one transaction copies.
const MINUTES_PER_COMMIT: i64 = 10;

const DEVICES: &str = include_str!("../../sql/history_devices.sql");
const METER_KEYS: &str = include_str!("../../sql/history_meter_keys.sql");
const VEHICLE_KEYS: &str = include_str!("../../sql/history_vehicle_keys.sql");
const METER_COPY: &str = include_str!("../../sql/history_meter_copy.sql");
const VEHICLE_COPY: &str = include_str!("../../sql/history_vehicle_copy.sql");
/// Removes hours that were rolled up before their readings were copied, because copying leaves no dirty marks.
const FORGET_HOURS: &str = include_str!("../../sql/history_forget_hours.sql");

/// The shape of the history.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Meters and vehicles together.
    pub(super) devices: u32,
    /// All their readings.
    pub(super) rows: u64,
    /// The time of the last minute, in microseconds since 1970.
    pub(super) end_us: i64,
}

impl Shape {
    /// The number of vehicles, and of meters.
    pub(super) const fn vehicles(self) -> u32 {
        self.devices / 2
    }

    /// How many readings each device has.
    pub(super) fn minutes(self) -> i64 {
        self.rows.div_ceil(u64::from(self.vehicles() * 2)) as i64
    }

    /// The time of the first minute.
    pub(super) fn start_us(self) -> i64 {
        self.end_us - (self.minutes() - 1) * MINUTE_US
    }
}

/// Registers the devices and copies their readings, with one connection per stream. The partitions must exist.
///
/// Blocks: until everything is committed and the tables are analyzed
///
/// # Errors
/// The database is unreachable, or refuses a statement.
pub(super) fn fill(url: &str, shape: Shape) -> Result<(), TargetsError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let client = connect(url).await?;
        let vehicles = i32::try_from(shape.vehicles()).unwrap_or(i32::MAX);
        client.execute(DEVICES, &[&vehicles]).await?;
        let mut tasks = tokio::task::JoinSet::new();
        for (keys, copy, row) in [
            (
                METER_KEYS,
                METER_COPY,
                meter_row as fn(&mut BytesMut, i64, i32),
            ),
            (VEHICLE_KEYS, VEHICLE_COPY, vehicle_row),
        ] {
            let keys = client.query(keys, &[]).await?;
            let keys: Vec<i32> = keys.iter().map(|row| row.get(0)).collect();
            tasks.spawn(stream(connect(url).await?, copy, keys, shape, row));
        }
        while let Some(outcome) = tasks.join_next().await {
            outcome.map_err(std::io::Error::other)??;
        }
        client.batch_execute(FORGET_HOURS).await?;
        client.batch_execute("analyze").await?;
        Ok(())
    })
}

async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // A connection error shows up in the statement that uses the connection.
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

async fn stream(
    client: Client,
    copy: &str,
    keys: Vec<i32>,
    shape: Shape,
    row: fn(&mut BytesMut, i64, i32),
) -> Result<(), tokio_postgres::Error> {
    let copy = client.prepare(copy).await?;
    let minutes: Vec<i64> = (0..shape.minutes()).collect();
    for minutes in minutes.chunks(MINUTES_PER_COMMIT as usize) {
        client.batch_execute("begin").await?;
        for minute in minutes {
            let at_us = shape.start_us() + minute * MINUTE_US;
            let sink = client.copy_in(&copy).await?;
            tokio::pin!(sink);
            let mut chunk = BytesMut::with_capacity(CHUNK_BYTES + 128);
            chunk.extend_from_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
            for &key in &keys {
                row(&mut chunk, at_us, key);
                if chunk.len() >= CHUNK_BYTES {
                    let next = BytesMut::with_capacity(CHUNK_BYTES + 128);
                    sink.send(std::mem::replace(&mut chunk, next).freeze())
                        .await?;
                }
            }
            chunk.put_i16(-1);
            sink.send(chunk.freeze()).await?;
            sink.finish().await?;
        }
        client.batch_execute("commit").await?;
    }
    Ok(())
}

/// Six decimals that vary by device and minute.
fn millionths(at_us: i64, key: i32) -> f64 {
    let mixed = (at_us / MINUTE_US).wrapping_mul(7919) + i64::from(key).wrapping_mul(104_729);
    mixed.rem_euclid(10_000) as f64
}

/// A meter's row: about 7 kW.
fn meter_row(out: &mut BytesMut, at_us: i64, key: i32) {
    out.put_i16(5);
    time(out, at_us);
    double(out, (115_000.0 + millionths(at_us, key)) / 1e6);
    out.put_i32(-1);
    double(out, 230.5);
    integer(out, key);
}

/// A vehicle's row: the part of that energy that reaches it.
fn vehicle_row(out: &mut BytesMut, at_us: i64, key: i32) {
    out.put_i16(8);
    time(out, at_us);
    double(out, (105_000.0 + millionths(at_us, key)) / 1e6);
    out.put_i32(-1);
    double(out, 62.5);
    double(out, 25.0 + millionths(at_us, key) / 1e3);
    integer(out, key);
    out.put_i32(-1);
    out.put_i32(-1);
}

fn time(out: &mut BytesMut, at_us: i64) {
    out.put_i32(8);
    out.put_i64(at_us - EPOCH_US);
}

fn double(out: &mut BytesMut, value: f64) {
    out.put_i32(8);
    out.put_f64(value);
}

fn integer(out: &mut BytesMut, value: i32) {
    out.put_i32(4);
    out.put_i32(value);
}
