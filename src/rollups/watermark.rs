//! The transactions that may still store readings without making their hours dirty.

use std::time::Duration;

use tokio_postgres::{Client, Error};

/// How often the running transactions are checked.
const CHECK_EVERY: Duration = Duration::from_millis(50);

/// Waits until every transaction has finished that had an id before this began.
///
/// A writer's transaction reads the watermark once it has its id. So a transaction that has read an older
/// watermark got its id before the newer one was committed, and has finished when this returns. Later
/// rollups see its readings. All later transactions make their hours dirty.
///
/// Blocks: as long as the longest of them; a transaction that stays open for hours blocks the rollup
///
/// # Errors
/// PostgreSQL's own errors.
pub(super) async fn wait_for_older(client: &Client) -> Result<(), Error> {
    // An id of its own, not the newest id of a snapshot: that may lie below running transactions.
    let own = "select pg_current_xact_id()::text::bigint";
    let own: i64 = client.query_one(own, &[]).await?.try_get(0)?;
    let oldest = "select pg_snapshot_xmin(pg_current_snapshot())::text::bigint";
    let oldest = client.prepare(oldest).await?;
    loop {
        let running: i64 = client.query_one(&oldest, &[]).await?.try_get(0)?;
        if running >= own {
            return Ok(());
        }
        tokio::time::sleep(CHECK_EVERY).await;
    }
}
