//! What has changed in the live tables and among the open alerts since the previous poll.
//!
//! Why not from this gateway's log: other gateways write to the same tables, and a change is live only once it is
//! committed. Why not `received_at > …`: a reading may be received minutes before it is committed while a log
//! catches up, and by the clock of another gateway. An index on it would also rule out HOT updates. Why not a
//! trigger with NOTIFY: every batch of every writer would pay for it, with or without a listener. So each device's
//! newest time is read and compared, which is exact.

use deadpool_postgres::Client;
use hashbrown::HashMap;
use tokio_postgres::{Error, Row};

use super::alerts::{Filter, StoredAlert};
use super::live::{self, LiveStatus};
use crate::postgres::ReadError;
use crate::reading::{PerStream, Stream, Timestamp};

/// How many of the newest open alerts are compared. If more are open, something is wrong with the whole fleet, and
/// no client reads them one by one.
const ALERTS_MAX: usize = 1000;

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A device has a newer reading.
    Status(Stream, LiveStatus),
    /// An alert has opened or closed, or an operator has acknowledged or muted it, or withdrawn that.
    Alert(StoredAlert),
}

/// What operators have done about an open alert: when it was acknowledged and muted, and until when.
type Handled = (Option<Timestamp>, Option<(Timestamp, Timestamp)>);

fn handled(alert: &StoredAlert) -> Handled {
    let mute = alert.mute.as_ref();
    (
        alert.acknowledgement.as_ref().map(|action| action.at),
        mute.map(|mute| (mute.action.at, mute.until)),
    )
}

/// The state at the previous poll.
#[derive(Debug, Default)]
pub struct Seen {
    /// The time of each device's newest reading, by stream and database id; `None` before the first poll.
    times: PerStream<Option<HashMap<i32, i64>>>,
    /// The alerts that were open; `None` before the first poll.
    alerts: Option<HashMap<i64, Handled>>,
}

impl Seen {
    /// Polls once and adds what has changed since the previous poll. The first poll adds nothing.
    ///
    /// # Errors
    /// [`ReadError`]. The same poll may be tried again with the changes so far, on a server that is not behind
    /// this one. Otherwise begin again with an empty state.
    pub async fn look(
        &mut self,
        client: &Client,
        changes: &mut Vec<Change>,
        now: Timestamp,
    ) -> Result<(), ReadError> {
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
                        statuses(client, (stream, now), &changed, seen, changes).await?;
                    }
                }
            }
        }
        self.alerts(client, now, changes).await
    }

    /// Adds the alerts that have changed: the closed ones first.
    async fn alerts(
        &mut self,
        client: &Client,
        now: Timestamp,
        changes: &mut Vec<Change>,
    ) -> Result<(), ReadError> {
        let filter = Filter {
            open: Some(true),
            ..Filter::all(now, ALERTS_MAX)
        };
        let open = super::alerts::list(client, filter).await?.items;
        let ids: HashMap<i64, Handled> = open.iter().map(|a| (a.id, handled(a))).collect();
        let Some(before) = &self.alerts else {
            self.alerts = Some(ids);
            return Ok(());
        };
        let gone = before.keys().copied().filter(|id| !ids.contains_key(id));
        let gone: Vec<i64> = gone.collect();
        if !gone.is_empty() {
            let gone = super::alerts::by_ids(client, &gone, now).await?;
            // Those that are still open are only beyond the newest.
            let closed = gone.into_iter().filter(|alert| alert.closed_at.is_some());
            changes.extend(closed.map(Change::Alert));
        }
        // The list is newest first, but events are sent oldest first.
        let changed = open.into_iter().rev();
        let changed = changed.filter(|alert| before.get(&alert.id) != Some(&handled(alert)));
        changes.extend(changed.map(Change::Alert));
        self.alerts = Some(ids);
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

/// Adds the status of devices that have changed, ordered by id.
///
/// A device may have changed again since the comparison, so the state is set to the times that are read here.
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
