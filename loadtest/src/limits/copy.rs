//! L1: how many rows a second PostgreSQL alone accepts.
//!
//! Two connections at once, each with devices of its own, COPY sorted batches in binary form into
//! the layout of `limit_tables.sql`, a transaction a batch. The shipped tables may differ; L1 stays the same.

use std::time::Instant;

use bytes::{BufMut, BytesMut};
use futures_util::SinkExt;
use tokio_postgres::{Client, NoTls};

/// Rows of a batch, as the definition of L1 has it.
const BATCH_ROWS: u32 = 40_000;

/// Connections at once: both cores of the machine that the limit was first measured on.
const CONNECTIONS: u32 = 2;

/// Devices in all, as the load of T1.
const DEVICES: u32 = 20_000;

/// COPY is sent in pieces of this size.
const CHUNK_BYTES: usize = 64 << 10;

/// From PostgreSQL's epoch, the year 2000, back to Unix's.
const EPOCH_US: i64 = 946_684_800_000_000;

/// The rows begin a day ago.
const START_BEFORE_US: i64 = 24 * 3600 * 1_000_000;

const TABLES: &str = include_str!("../../sql/limit_tables.sql");
const COPY: &str = include_str!("../../sql/limit_copy.sql");
const DROP: &str = include_str!("../../sql/limit_drop.sql");

/// The measurement.
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

/// Copies so many rows, in whole batches, and removes them.
///
/// Blocks: until they are committed
///
/// # Errors
/// The database cannot be reached, or refuses a statement.
pub(crate) fn measure(url: &str, rows: u64) -> Result<Copied, super::LimitError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONNECTIONS as usize)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let client = connect(url).await?;
        client.batch_execute(TABLES).await?;
        let batches = rows.div_ceil(u64::from(BATCH_ROWS * CONNECTIONS));
        let start_us = jiff::Timestamp::now().as_microsecond() - START_BEFORE_US;
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(connect(url).await?);
        }
        let began = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for (share, client) in (0..).zip(clients) {
            tasks.spawn(copy_share(client, share, batches, start_us));
        }
        while let Some(outcome) = tasks.join_next().await {
            outcome.map_err(std::io::Error::other)??;
        }
        let seconds = began.elapsed().as_secs_f64();
        client.batch_execute(DROP).await?;
        Ok(Copied {
            rows: batches * u64::from(BATCH_ROWS * CONNECTIONS),
            seconds,
        })
    })
}

async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // Its error shows in the statement that was on it.
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

/// Copies one connection's batches: its devices' next readings, by device, then time.
async fn copy_share(
    client: Client,
    share: u32,
    batches: u64,
    start_us: i64,
) -> Result<(), tokio_postgres::Error> {
    let devices = DEVICES / CONNECTIONS;
    let steps = i64::from(BATCH_ROWS / devices);
    let copy = client.prepare(COPY).await?;
    for batch in 0..batches as i64 {
        client.batch_execute("begin").await?;
        let sink = client.copy_in(&copy).await?;
        tokio::pin!(sink);
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES + 64);
        chunk.extend_from_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
        for device in 0..devices {
            for step in batch * steps..(batch + 1) * steps {
                let at_us = start_us + step * 1_000_000;
                encode(&mut chunk, (share * devices + device + 1) as i32, at_us);
                if chunk.len() >= CHUNK_BYTES {
                    let next = BytesMut::with_capacity(CHUNK_BYTES + 64);
                    sink.send(std::mem::replace(&mut chunk, next).freeze())
                        .await?;
                }
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
    // The register is null: a reading has one of the two.
    out.put_i32(-1);
    out.put_i32(8);
    out.put_f64(230.5);
    out.put_i32(4);
    out.put_i32(meter);
}
