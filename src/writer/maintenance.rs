//! Regular maintenance of the database: partitions ahead of time, retention, and checkpoints of forgotten runs.

use std::time::Duration;

use tokio::sync::watch;
use tokio_postgres::Client;
use uuid::Uuid;

use super::session::SessionError;
use crate::postgres::migrations::{DatabaseSettings, stored_retention};
use crate::postgres::{PartitionWidth, Target, Use, partitions};
use crate::reading::{Stream, Timestamp};
use crate::wal::LogSource;

/// The interval. Partitions are created far ahead, so a missed run does no harm.
const EVERY: Duration = Duration::from_secs(600);
/// The interval after a failure, or while a partition to be dropped is in use.
const AGAIN: Duration = Duration::from_secs(30);
/// How long one run may take, including connecting.
const WITHIN: Duration = Duration::from_secs(300);

/// How many devices' old rollups one statement removes. Each has only a few expired hours, because this runs
/// often.
const EXPIRE_DEVICES: i64 = 1_000;

/// Maintains the database until it is cancelled.
///
/// Cancel: safe at any point
pub(super) async fn maintain(
    target: Target,
    source: LogSource,
    settings: DatabaseSettings,
    kept: watch::Sender<Option<Duration>>,
) {
    let mut forgotten = Vec::new();
    loop {
        forgotten.extend(source.take_forgotten());
        let work = once(&target, &mut forgotten, settings.partition, &kept);
        let pause = match tokio::time::timeout(WITHIN, work).await {
            Ok(Ok(Left::Nothing)) => EVERY,
            Ok(Ok(Left::Partitions)) => AGAIN,
            Ok(Err(error)) => {
                tracing::warn!(%error, "database maintenance failed; trying again");
                AGAIN
            }
            Err(_) => {
                tracing::warn!("database maintenance took too long; trying again");
                AGAIN
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Whether something is left for the next run.
enum Left {
    Nothing,
    /// Partitions past their retention that are still being read or written.
    Partitions,
}

async fn once(
    target: &Target,
    forgotten: &mut Vec<Uuid>,
    width: PartitionWidth,
    kept: &watch::Sender<Option<Duration>>,
) -> Result<Left, SessionError> {
    let session = target
        .connect("wattgate maintenance", Use::Maintenance)
        .await?;
    let client = session.client();
    // Another gateway or an operator may have changed the retention. It is published first, so that ingestion
    // learns it even if a later step fails.
    let retention = stored_retention(client).await?;
    let before = kept.send_replace(retention);
    if before != retention {
        let [from, to] = [before, retention].map(|kept| match kept {
            Some(kept) => format!("{} s", kept.as_secs()),
            None => "for ever".to_owned(),
        });
        tracing::warn!(from, to, "the stored retention has changed");
    }
    let now = Timestamp::now();
    for stream in Stream::ALL {
        let ahead = partitions::instants_ahead(now, width);
        partitions::ensure(client, stream, width, &ahead).await?;
    }
    if !forgotten.is_empty() {
        // Index: the primary key of wal_checkpoints.
        let sql = "delete from wal_checkpoints where run_id = any($1)";
        client.execute(sql, &[&*forgotten]).await?;
        forgotten.clear();
    }
    let mut left = Left::Nothing;
    if let Some(retention) = retention
        && let Some(newest) = newest_reading(client).await?
    {
        // If the clock is years ahead, history must not be deleted, so the newest reading counts as well.
        let oldest = partitions::oldest_kept(now.min(newest), retention);
        for stream in Stream::ALL {
            expire_hours(client, stream, oldest).await?;
            if partitions::drop_before(client, stream, oldest).await?.left > 0 {
                left = Left::Partitions;
            }
        }
    }
    Ok(left)
}

/// The newest time of a stored reading; `None` if there are no readings.
async fn newest_reading(client: &Client) -> Result<Option<Timestamp>, SessionError> {
    let sql = sql!("newest_reading");
    Ok(client.query_one(sql, &[]).await?.get(0))
}

/// Removes rollups of hours before an instant, some devices per statement. They go before their readings do, so
/// that no rollup outlives its readings.
async fn expire_hours(
    client: &Client,
    stream: Stream,
    before: Timestamp,
) -> Result<(), SessionError> {
    let (next, expire) = match stream {
        Stream::Meter => (sql!("hour_devices_meters"), sql!("hours_expire_meters")),
        Stream::Vehicle => (sql!("hour_devices_vehicles"), sql!("hours_expire_vehicles")),
    };
    let mut after = i32::MIN;
    loop {
        let rows = client.query(next, &[&after, &EXPIRE_DEVICES]).await?;
        let devices: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
        let Some(last) = devices.last() else {
            return Ok(());
        };
        after = *last;
        client.execute(expire, &[&devices, &before]).await?;
    }
}
