//! The transactions that may still store readings without making their hours dirty.

use tokio_postgres::{Client, Error};

/// The transactions that had an id at some moment.
///
/// A writer's transaction reads the watermark once it has its id. So a transaction that has read an older
/// watermark got its id before the newer one was committed, and is one of these. Once they have finished, later
/// rollups see their readings. All later transactions make their hours dirty.
#[derive(Debug, Clone, Copy)]
pub(super) struct Older {
    /// Every id below this one belongs to such a transaction, or to a finished one.
    below: i64,
}

impl Older {
    /// The transactions that have an id now.
    pub(super) async fn now(client: &Client) -> Result<Self, Error> {
        // An id of its own, because the newest id of a snapshot may be below those of running transactions.
        let own = "select pg_current_xact_id()::text::bigint";
        let below = client.query_one(own, &[]).await?.try_get(0)?;
        Ok(Older { below })
    }

    /// Whether all of them have finished. A transaction that stays open delays the rollup until it ends.
    pub(super) async fn have_finished(self, client: &Client) -> Result<bool, Error> {
        let oldest = "select pg_snapshot_xmin(pg_current_snapshot())::text::bigint";
        let running: i64 = client.query_one(oldest, &[]).await?.try_get(0)?;
        Ok(running >= self.below)
    }
}
