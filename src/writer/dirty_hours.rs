//! Marks: what tells that readings have come into hours that may be summed up already.
//!
//! Hours are sealed before they are summed up. A transaction asks up to when, after its first
//! statement has given it an id, and leaves a mark for each older hour that it stores readings of.
//! Whoever seals waits until all transactions are over that had an id before: so each has either
//! seen the seal and left its marks, or is over before the sums are made. Only in that order.

use futures_util::future::try_join3;
use tokio_postgres::{Client, Error, Statement};

use super::rows::HistoryRow;
use crate::reading::{Stream, Timestamp};

/// The statements that mark.
pub(super) struct MarkStatements {
    sealed: Statement,
    meters: Statement,
    vehicles: Statement,
}

impl MarkStatements {
    pub(super) async fn prepare(client: &Client) -> Result<Self, Error> {
        let sealed = sql!("hours_sealed");
        let meters = sql!("hour_mark_meters");
        let vehicles = sql!("hour_mark_vehicles");
        let (sealed, meters, vehicles) = try_join3(
            client.prepare(sealed),
            client.prepare(meters),
            client.prepare(vehicles),
        )
        .await?;
        Ok(MarkStatements {
            sealed,
            meters,
            vehicles,
        })
    }

    /// Asks up to when hours may be summed up. The transaction has an id already.
    pub(super) async fn sealed_to(&self, client: &Client) -> Result<Option<Timestamp>, Error> {
        client.query_one(&self.sealed, &[]).await?.try_get(0)
    }

    /// Marks the hours of some rows that are sealed, whether each row is new or a repeat.
    pub(super) async fn mark<R: HistoryRow>(
        &self,
        client: &Client,
        sealed_to: Option<Timestamp>,
        rows: &[R],
    ) -> Result<(), Error> {
        let Some(sealed_to) = sealed_to else {
            return Ok(());
        };
        let old = rows.iter().map(HistoryRow::key);
        let old = old.filter(|(_, at)| *at <= sealed_to);
        let mut hours: Vec<(i32, Timestamp)> = old.map(|(id, at)| (id, at.hour())).collect();
        hours.sort_unstable();
        hours.dedup();
        if hours.is_empty() {
            return Ok(());
        }
        let (devices, hours): (Vec<i32>, Vec<Timestamp>) = hours.into_iter().unzip();
        let statement = match R::STREAM {
            Stream::Meter => &self.meters,
            Stream::Vehicle => &self.vehicles,
        };
        client.execute(statement, &[&devices, &hours]).await?;
        Ok(())
    }
}
