//! Who may still store readings without a mark.

use std::time::Duration;

use tokio_postgres::{Client, Error};

/// Between two looks at who is still there.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Waits until every transaction is over that had an id before this began.
///
/// A writer's transaction asks for the seal once it has its id. So one that has seen an older seal
/// had its id before the newer was committed, and is over when this returns: what it has stored is
/// seen by whoever sums up from then on. All later ones leave marks.
///
/// Blocks: as long as the longest of them; who holds a transaction open for hours holds this up
///
/// # Errors
/// As PostgreSQL gives them.
pub(super) async fn wait_for_older(client: &Client) -> Result<(), Error> {
    // An id of its own, and not the newest that a snapshot tells: that may lie below running ones.
    let own = "select pg_current_xact_id()::text::bigint";
    let own: i64 = client.query_one(own, &[]).await?.try_get(0)?;
    let oldest = "select pg_snapshot_xmin(pg_current_snapshot())::text::bigint";
    let oldest = client.prepare(oldest).await?;
    loop {
        let running: i64 = client.query_one(&oldest, &[]).await?.try_get(0)?;
        if running >= own {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
