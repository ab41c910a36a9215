//! L1 and L4: how many rows per second PostgreSQL alone accepts.
//!
//! Two concurrent connections, each with its own devices, COPY batches in binary form, one transaction per batch,
//! sorted by device and time. The layout is that of `limit_tables.sql`. It is fixed even if the shipped tables
//! change, so that the limits stay comparable. In L1, a batch has several readings of each device. L4 has the
//! shape of a fleet: each device sends once per round, in random order.

use std::time::Instant;

use bytes::{BufMut, BytesMut};
use futures_util::SinkExt;
use tokio_postgres::{Client, NoTls};

use crate::generator::order::{Devices, Order};

/// Rows of an L1 batch, by definition.
const L1_BATCH_ROWS: u32 = 40_000;

/// Concurrent connections: one per core of the machine on which the limit was first measured.
const CONNECTIONS: u32 = 2;

/// All devices of L1, as in the load of T1.
const L1_DEVICES: u32 = 20_000;

/// Rows of an L4 batch: about as many as arrive while a batch is stored.
const FLEET_BATCH_ROWS: u32 = 10_000;
const LARGE_FLEET_BATCH_ROWS: u32 = 20_000;

/// From this many devices on, a fleet counts as large.
const LARGE_FLEET: u32 = 500_000;

/// The time between two readings of a device.
const ROUND_US: i64 = 1_000_000;

/// The seed of L4's random order.
const SEED: u64 = 4;

/// COPY data is sent in chunks of this size.
const CHUNK_BYTES: usize = 64 << 10;

/// PostgreSQL's epoch, the year 2000, in microseconds after Unix's.
const EPOCH_US: i64 = 946_684_800_000_000;

/// The first rows are a day old.
const START_BEFORE_US: i64 = 24 * 3600 * 1_000_000;

const TABLES: &str = include_str!("../../sql/limit_tables.sql");
const COPY: &str = include_str!("../../sql/limit_copy.sql");
const DROP: &str = include_str!("../../sql/limit_drop.sql");

/// Which devices are in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The next readings of all devices of the connection.
    L1,
    /// One reading each of the next devices in the connection's random order.
    Fleet { devices: u32, batch_rows: u32 },
}

impl Shape {
    /// L4 with this many devices.
    pub(crate) const fn fleet(devices: u32) -> Self {
        Shape::Fleet {
            devices,
            batch_rows: if devices >= LARGE_FLEET {
                LARGE_FLEET_BATCH_ROWS
            } else {
                FLEET_BATCH_ROWS
            },
        }
    }

    /// The name in reports.
    pub(crate) fn name(self) -> String {
        match self {
            Shape::L1 => "L1".to_owned(),
            Shape::Fleet { devices, .. } => format!("L4-{devices}"),
        }
    }

    const fn batch_rows(self) -> u32 {
        match self {
            Shape::L1 => L1_BATCH_ROWS,
            Shape::Fleet { batch_rows, .. } => batch_rows,
        }
    }

    /// The (device, round) pairs of a connection's batch, sorted.
    fn batch(self, share: u32, batch: u64) -> Vec<(u32, u64)> {
        match self {
            Shape::L1 => {
                let devices = L1_DEVICES / CONNECTIONS;
                let rounds = u64::from(L1_BATCH_ROWS / devices);
                let rounds = batch * rounds..(batch + 1) * rounds;
                let devices = share * devices + 1..=(share + 1) * devices;
                devices
                    .flat_map(|device| rounds.clone().map(move |round| (device, round)))
                    .collect()
            }
            Shape::Fleet {
                devices,
                batch_rows,
            } => {
                let count = devices / CONNECTIONS;
                let devices = Devices::new(share * count + 1, count, Order::Random, SEED);
                let from = batch * u64::from(batch_rows);
                let mut rows: Vec<(u32, u64)> = (from..from + u64::from(batch_rows))
                    .map(|position| devices.at(position))
                    .collect();
                rows.sort_unstable();
                rows
            }
        }
    }
}

/// The result.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Copied {
    pub(crate) rows: u64,
    pub(crate) seconds: f64,
}

impl Copied {
    pub(crate) fn per_second(self) -> f64 {
        self.rows as f64 / self.seconds
    }
}

/// Copies this many rows in whole batches, and then removes them.
///
/// Blocks: until they are committed
///
/// # Errors
/// The database is unreachable, or refuses a statement.
pub(crate) fn measure(url: &str, shape: Shape, rows: u64) -> Result<Copied, super::LimitError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONNECTIONS as usize)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let client = connect(url).await?;
        client.batch_execute(TABLES).await?;
        let batches = rows.div_ceil(u64::from(shape.batch_rows() * CONNECTIONS));
        let start_us = jiff::Timestamp::now().as_microsecond() - START_BEFORE_US;
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(connect(url).await?);
        }
        let began = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for (share, client) in (0..).zip(clients) {
            tasks.spawn(copy_share(client, shape, share, batches, start_us));
        }
        while let Some(outcome) = tasks.join_next().await {
            outcome.map_err(std::io::Error::other)??;
        }
        let seconds = began.elapsed().as_secs_f64();
        client.batch_execute(DROP).await?;
        Ok(Copied {
            rows: batches * u64::from(shape.batch_rows() * CONNECTIONS),
            seconds,
        })
    })
}

async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // A connection error shows up in the statement that uses the connection.
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

/// Copies one connection's batches.
async fn copy_share(
    client: Client,
    shape: Shape,
    share: u32,
    batches: u64,
    start_us: i64,
) -> Result<(), tokio_postgres::Error> {
    let copy = client.prepare(COPY).await?;
    for batch in 0..batches {
        let rows = shape.batch(share, batch);
        client.batch_execute("begin").await?;
        let sink = client.copy_in(&copy).await?;
        tokio::pin!(sink);
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES + 64);
        chunk.extend_from_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
        for (device, round) in rows {
            encode(
                &mut chunk,
                device as i32,
                start_us + round as i64 * ROUND_US,
            );
            if chunk.len() >= CHUNK_BYTES {
                let next = BytesMut::with_capacity(CHUNK_BYTES + 64);
                sink.send(std::mem::replace(&mut chunk, next).freeze())
                    .await?;
            }
        }
        chunk.put_i16(-1);
        sink.send(chunk.freeze()).await?;
        sink.finish().await?;
        client.batch_execute("commit").await?;
    }
    Ok(())
}

/// Appends a row in COPY's binary format.
fn encode(out: &mut BytesMut, meter: i32, at_us: i64) {
    out.put_i16(5);
    out.put_i32(8);
    out.put_i64(at_us - EPOCH_US);
    out.put_i32(8);
    out.put_f64(0.01);
    // The register is null, because a reading has only one of the two.
    out.put_i32(-1);
    out.put_i32(8);
    out.put_f64(230.5);
    out.put_i32(4);
    out.put_i32(meter);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn batches_are_sorted_and_hold_each_row_once() {
        for shape in [Shape::L1, Shape::fleet(60_000), Shape::fleet(500_000)] {
            let mut rows = HashSet::new();
            for share in 0..CONNECTIONS {
                for batch in 0..4 {
                    let batch = shape.batch(share, batch);
                    assert_eq!(batch.len(), shape.batch_rows() as usize);
                    assert!(batch.is_sorted());
                    rows.extend(batch);
                }
            }
            let all = 4 * CONNECTIONS * shape.batch_rows();
            assert_eq!(rows.len(), all as usize, "{shape:?}");
        }
    }
}
