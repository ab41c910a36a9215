//! What has changed in the live tables and among the open alerts since the last look.
//!
//! Why not the log of this gateway: other gateways write into the same tables, and a change is live once it is
//! committed. Why not `received_at > …`: a reading is received before it is committed, by minutes while a log
//! catches up, and by another gateway's clock. An index on it would also end HOT updates. Why not a trigger
//! with NOTIFY: it would cost every batch of every writer, with or without a listener. So each device's
//! newest time is read and compared, which is exact.

use deadpool_postgres::Client;
use hashbrown::{HashMap, HashSet};
use tokio_postgres::{Error, Row};

use super::alerts::{Filter, Order, StoredAlert};
use super::live::{self, LiveStatus};
use crate::postgres::ReadError;
use crate::reading::{PerStream, Stream, Timestamp};

/// The newest alerts that are compared. More are open only if something is wrong with the whole fleet, and
/// then no client reads them one by one.
const ALERTS_MAX: usize = 1000;

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A device has a newer reading.
    Status(Stream, LiveStatus),
    /// An alert has opened or closed.
    Alert(StoredAlert),
}

/// The state at the last look.
#[derive(Debug, Default)]
pub struct Seen {
    /// When each device's newest reading was taken, by stream and short id; `None` before the first
    /// look.
    times: PerStream<Option<HashMap<i32, i64>>>,
    /// The alerts that were open; `None` before the first look.
    alerts: Option<HashSet<i64>>,
}

impl Seen {
    /// Looks once: returns what has changed since the previous look. The first look returns nothing.
    ///
    /// # Errors
    /// [`ReadError`]; begin again with an empty state, because this one may be half updated.
    pub async fn look(
        &mut self,
        client: &Client,
        now: Timestamp,
    ) -> Result<Vec<Change>, ReadError> {
        let mut changes = Vec::new();
        for stream in Stream::ALL {
            let seen = &mut self.times[stream];
            let times = times(client, stream).await?;
            match seen {
                None => *seen = Some(times.into_iter().collect()),
                Some(seen) => {
                    let changed: Vec<i32> = times
                        .into_iter()
                        .filter(|(id, at)| seen.get(id) != Some(at))
                        .map(|(id, _)| id)
                        .collect();
                    if !changed.is_empty() {
                        statuses(client, (stream, now), &changed, seen, &mut changes).await?;
                    }
                }
            }
        }
        self.alerts(client, &mut changes).await?;
        Ok(changes)
    }

    /// Adds the alerts that have opened or closed.
    async fn alerts(
        &mut self,
        client: &Client,
        changes: &mut Vec<Change>,
    ) -> Result<(), ReadError> {
        let filter = Filter {
            order: Order::Newest { before: i64::MAX },
            kind: None,
            open: Some(true),
            device: None,
            limit: ALERTS_MAX,
        };
        let open = super::alerts::list(client, filter).await?.items;
        let ids: HashSet<i64> = open.iter().map(|alert| alert.id).collect();
        let Some(before) = self.alerts.replace(ids.clone()) else {
            return Ok(());
        };
        let closed_ids: Vec<i64> = before.difference(&ids).copied().collect();
        if !closed_ids.is_empty() {
            let closed = client.prepare_cached(sql!("stream_alerts_closed")).await?;
            for row in &client.query(&closed, &[&closed_ids]).await? {
                changes.push(Change::Alert(StoredAlert::decode(row)?));
            }
        }
        // The list is newest first; events go oldest first.
        let opened = open.into_iter().rev();
        changes.extend(
            opened
                .filter(|alert| !before.contains(&alert.id))
                .map(Change::Alert),
        );
        Ok(())
    }
}

async fn times(client: &Client, stream: Stream) -> Result<Vec<(i32, i64)>, Error> {
    let sql = match stream {
        Stream::Meter => sql!("stream_meter_times"),
        Stream::Vehicle => sql!("stream_vehicle_times"),
    };
    let statement = client.prepare_cached(sql).await?;
    let rows = client.query(&statement, &[]).await?;
    let time = |row: &Row| {
        let at: Timestamp = row.try_get(1)?;
        Ok((row.try_get(0)?, at.as_micros()))
    };
    rows.iter().map(time).collect()
}

/// Adds the status of the devices that have changed, in the order of their ids.
///
/// The devices may have changed again meanwhile, so the state keeps the times that were read here.
async fn statuses(
    client: &Client,
    (stream, now): (Stream, Timestamp),
    changed: &[i32],
    seen: &mut HashMap<i32, i64>,
    changes: &mut Vec<Change>,
) -> Result<(), Error> {
    let mut found = Vec::with_capacity(changed.len());
    for (id, status) in live::of_ids(client, stream, changed, now).await? {
        seen.insert(id, status.reading.at.as_micros());
        found.push(status);
    }
    found.sort_unstable_by(|a, b| a.device.cmp(&b.device));
    changes.extend(
        found
            .into_iter()
            .map(|status| Change::Status(stream, status)),
    );
    Ok(())
}
