//! Marks hours as dirty when a reading arrives in an hour that may be rolled up already.
//!
//! After its first statement has given it an id, a transaction reads the watermark. It marks
//! each older hour in which it stores readings as dirty. The roller moves the watermark, and then waits until
//! every transaction with an older id has finished. So each transaction has either seen the new watermark, or
//! finished before the rollup begins. Only this order is correct.

use futures_util::future::try_join3;
use tokio_postgres::{Client, Error, Statement};

use super::rows::HistoryRow;
use crate::reading::{PerStream, Timestamp};

/// The statements that mark hours as dirty.
pub(super) struct DirtyHours {
    watermark: Statement,
    add: PerStream<Statement>,
}

impl DirtyHours {
    pub(super) async fn prepare(client: &Client) -> Result<Self, Error> {
        let watermark = sql!("hours_sealed");
        let meter = sql!("hour_mark_meters");
        let vehicle = sql!("hour_mark_vehicles");
        let (watermark, meter, vehicle) = try_join3(
            client.prepare(watermark),
            client.prepare(meter),
            client.prepare(vehicle),
        )
        .await?;
        Ok(DirtyHours {
            watermark,
            add: PerStream { meter, vehicle },
        })
    }

    /// Reads the watermark. The transaction must have an id already.
    pub(super) async fn watermark(&self, client: &Client) -> Result<Option<Timestamp>, Error> {
        client.query_one(&self.watermark, &[]).await?.try_get(0)
    }

    /// Makes the hours of some rows dirty that lie up to the watermark, whether each row is new or a
    /// repeat. A row exactly at the watermark belongs to the hour that ends there.
    pub(super) async fn add<R: HistoryRow>(
        &self,
        client: &Client,
        watermark: Option<Timestamp>,
        rows: &[R],
    ) -> Result<(), Error> {
        let Some(watermark) = watermark else {
            return Ok(());
        };
        let old = rows.iter().map(HistoryRow::key);
        let old = old.filter(|(_, at)| *at <= watermark);
        let mut hours: Vec<(i32, Timestamp)> = old.map(|(id, at)| (id, at.hour())).collect();
        hours.sort_unstable();
        hours.dedup();
        if hours.is_empty() {
            return Ok(());
        }
        let (devices, hours): (Vec<i32>, Vec<Timestamp>) = hours.into_iter().unzip();
        client
            .execute(&self.add[R::STREAM], &[&devices, &hours])
            .await?;
        Ok(())
    }
}
