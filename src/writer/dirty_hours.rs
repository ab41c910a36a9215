//! Marks an hour as dirty if a reading arrives after the hour may have been rolled up.
//!
//! A transaction first executes a statement that assigns its transaction id. Then it reads the watermark and the
//! number of the current pass, in which the rollup works through dirty hours. It marks every hour before the
//! watermark in which it stores readings. The rollup, in turn, moves the watermark or begins a pass, and then
//! waits until every transaction with an older id has finished. So a transaction has either seen the new values,
//! or finished before the rollup reads its rows. No other order is correct.
//!
//! A mark that carries a pass stays until a later pass. Until then, the session does not write it again for
//! readings that are no earlier than the mark's earliest. The session remembers a mark only once its transaction
//! has committed.

use std::collections::HashMap;

use futures_util::future::try_join3;
use tokio_postgres::{Client, Error, Statement};

use super::rows::HistoryRow;
use crate::postgres::leader::ROLLUP_WITHOUT_PASSES;
use crate::reading::{PerStream, Timestamp};

/// The pass of a mark that covers only the batch that writes it.
const THIS_BATCH: i64 = 0;

/// A device's hour.
type DeviceHour = (i32, Timestamp);

/// The statements that write dirty marks, and the marks that are still valid.
pub(super) struct DirtyHours {
    watermark: Statement,
    add: PerStream<Statement>,
    /// Whether the session holds the shared lock that excludes rollups of an older version, which know no passes.
    is_shared: bool,
    /// The pass in which the remembered marks are valid.
    pass: i64,
    /// The earliest reading of each valid mark of this session.
    standing: PerStream<HashMap<DeviceHour, Timestamp>>,
    /// How many marks of each stream it remembers. Marks beyond that are written again by each batch.
    standing_max: usize,
}

/// What a transaction must know before it stores readings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watermark {
    /// A reading at or before this time makes its hour dirty. `None` means nothing is rolled up yet.
    to: Option<Timestamp>,
    pass: i64,
    is_shared: bool,
}

/// The marks of a transaction.
#[derive(Debug, Default)]
pub(super) struct Marked(Vec<(DeviceHour, Timestamp)>);

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
            is_shared: false,
            pass: THIS_BATCH,
            standing: PerStream::default(),
            standing_max: 0,
        })
    }

    /// Sets how many marks of each stream the session may remember; none by default.
    pub(super) fn bound(&mut self, standing_max: usize) {
        self.standing_max = standing_max;
    }

    /// Reads the watermark. The transaction must already have an id.
    pub(super) async fn watermark(&self, client: &Client) -> Result<Watermark, Error> {
        // A session that remembers nothing needs no lock.
        let has_lock = self.is_shared || self.standing_max == 0;
        let row = client
            .query_one(&self.watermark, &[&has_lock, &ROLLUP_WITHOUT_PASSES])
            .await?;
        Ok(Watermark {
            to: row.try_get(0)?,
            pass: row.try_get(1)?,
            is_shared: self.standing_max > 0 && row.try_get(2)?,
        })
    }

    /// Marks the hours of rows at or before the watermark as dirty, for new rows and repeats alike. A row exactly
    /// at the watermark belongs to the hour that ends there.
    ///
    /// Order:  each device's rows ascend by time within a partition
    pub(super) async fn add<R: HistoryRow>(
        &self,
        client: &Client,
        watermark: Watermark,
        rows: &[R],
    ) -> Result<Marked, Error> {
        let Some(to) = watermark.to else {
            return Ok(Marked::default());
        };
        let old = rows.iter().map(HistoryRow::key).filter(|(_, at)| *at <= to);
        let mut hours: Vec<(DeviceHour, Timestamp)> = Vec::new();
        for (device, at) in old {
            let hour = (device, at.hour());
            match hours.last_mut() {
                Some((last, earliest)) if *last == hour => *earliest = at.min(*earliest),
                _ => hours.push((hour, at)),
            }
        }
        let pass = match watermark.is_shared {
            true => watermark.pass,
            false => THIS_BATCH,
        };
        if watermark.is_shared && pass == self.pass {
            let standing = &self.standing[R::STREAM];
            hours.retain(|(hour, at)| standing.get(hour).is_none_or(|earliest| at < earliest));
        }
        if hours.is_empty() {
            return Ok(Marked::default());
        }
        // The same order in all gateways, although no mark waits for another.
        hours.sort_unstable();
        let devices: Vec<i32> = hours.iter().map(|((device, _), _)| *device).collect();
        let starts: Vec<Timestamp> = hours.iter().map(|((_, hour), _)| *hour).collect();
        let earliest: Vec<Timestamp> = hours.iter().map(|(_, at)| *at).collect();
        client
            .execute(&self.add[R::STREAM], &[&devices, &starts, &earliest, &pass])
            .await?;
        Ok(Marked(hours))
    }

    /// Remembers the marks of a transaction that has committed.
    pub(super) fn committed(&mut self, watermark: Watermark, marked: PerStream<Marked>) {
        // Without the lock, an older rollup may have removed the mark already.
        if !watermark.is_shared {
            return;
        }
        self.is_shared = true;
        if self.pass != watermark.pass {
            self.pass = watermark.pass;
            self.standing = PerStream::default();
        }
        let PerStream { meter, vehicle } = marked;
        let both = [
            (&mut self.standing.meter, meter),
            (&mut self.standing.vehicle, vehicle),
        ];
        for (standing, Marked(marked)) in both {
            for (hour, at) in marked {
                if let Some(earliest) = standing.get_mut(&hour) {
                    *earliest = at.min(*earliest);
                } else if standing.len() < self.standing_max {
                    standing.insert(hour, at);
                }
            }
        }
    }
}
