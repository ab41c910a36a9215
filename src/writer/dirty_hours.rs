//! Marks hours as dirty when a reading arrives in an hour that may be rolled up already.
//!
//! After its first statement has given it an id, a transaction reads the watermark and the pass of the rollup over
//! dirty hours. It marks each older hour in which it stores readings as dirty. The roller moves the watermark, or
//! begins a pass, and then waits until every transaction with an older id has finished. So each transaction has
//! either seen the new values, or finished before the rollup begins. Only this order is correct.
//!
//! A mark of a pass is valid until a later pass. Until then, the session leaves no second mark for readings after the
//! mark's earliest. It remembers a mark once the transaction has committed.

use std::collections::HashMap;

use futures_util::future::try_join3;
use tokio_postgres::{Client, Error, Statement};

use super::rows::HistoryRow;
use crate::postgres::leader::ROLLUP_WITHOUT_PASSES;
use crate::reading::{PerStream, Timestamp};

/// The pass of a mark that counts only for its own batch.
const THIS_BATCH: i64 = 0;

/// A device's hour.
type DeviceHour = (i32, Timestamp);

/// The statements that leave marks of dirty hours, and the marks that are still valid.
pub(super) struct DirtyHours {
    watermark: Statement,
    add: PerStream<Statement>,
    /// Whether the session shares the lock that keeps out rollups that know no passes.
    is_shared: bool,
    /// The pass of the valid marks.
    pass: i64,
    /// The earliest reading of each valid mark of this session.
    standing: PerStream<HashMap<DeviceHour, Timestamp>>,
    /// How many marks of each stream it remembers. Each batch leaves any further mark again.
    standing_max: usize,
}

/// What a transaction must know before it stores readings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watermark {
    /// A reading up to it makes its hour dirty.
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

    /// Reads the watermark. The transaction must have an id already.
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

    /// Marks the hours of rows up to the watermark as dirty, whether each row is new or a repeat. A row exactly at the
    /// watermark belongs to the hour that ends there.
    ///
    /// Order:  rows of one device ascending by time, but for two partitions
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
        // One order for all gateways, although no mark waits for another.
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
        // A mark that was left without the lock may have been removed.
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
