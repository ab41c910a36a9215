//! What the database needs now and then: partitions ahead, retention, checkpoints of runs whose
//! log is gone.

use std::time::Duration;

use super::session::SessionError;
use crate::postgres::migrations::DatabaseSettings;
use crate::postgres::{Target, partitions};
use crate::reading::{Stream, Timestamp};
use crate::wal::LogSource;

/// How often it looks. Partitions are made far ahead, so that missing one look is nothing.
const EVERY: Duration = Duration::from_secs(600);
/// How soon it tries again after a failure.
const AGAIN: Duration = Duration::from_secs(30);

/// Maintains the database until it is cancelled.
///
/// Cancel: safe at any point
pub(super) async fn maintain(target: Target, source: LogSource, settings: DatabaseSettings) {
    loop {
        let pause = match once(&target, &source, settings).await {
            Ok(()) => EVERY,
            Err(error) => {
                tracing::warn!(%error, "maintenance of the database failed; it is tried again");
                AGAIN
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn once(
    target: &Target,
    source: &LogSource,
    settings: DatabaseSettings,
) -> Result<(), SessionError> {
    let session = target.connect("wattgate maintenance").await?;
    let client = session.client();
    for setting in [
        "set timezone = 'UTC'",
        "set datestyle = 'ISO'",
        "set lock_timeout = '10s'",
    ] {
        client.batch_execute(setting).await?;
    }
    let now = Timestamp::now();
    for stream in Stream::ALL {
        let ahead = partitions::instants_ahead(now, settings.partition);
        partitions::ensure(client, stream, settings.partition, &ahead).await?;
    }
    let retired = source.take_retired();
    if !retired.is_empty() {
        // Index: the primary key of wal_checkpoints.
        let sql = "delete from wal_checkpoints where run_id = any($1)";
        client.execute(sql, &[&retired]).await?;
    }
    if let Some(retention) = settings.retention {
        let oldest = partitions::oldest_kept(now, retention);
        for stream in Stream::ALL {
            partitions::drop_before(client, stream, oldest).await?;
        }
    }
    Ok(())
}
