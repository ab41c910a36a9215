//! Looking for changes: the live tables are compared, twice a second, with what they were.
//!
//! Why not the log of this gateway: other gateways write into the same tables, and what is live
//! is what is committed. Why not `received_at > …`: a reading is received before it is committed,
//! by minutes where a log catches up, and by another gateway's clock; and an index on it would end
//! HOT updates. Why not a trigger with NOTIFY: it would cost every batch of every writer, with or
//! without anybody who listens. So the time of each device's newest reading is read and compared,
//! which is exact, and costs nothing while nobody listens.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Client, Pool};
use hashbrown::{HashMap, HashSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_postgres::Error;

use super::feed::{Feed, Sight};
use super::filter::Kind;
use super::ring::Event;
use crate::http::api::{alerts, live};
use crate::metrics;
use crate::reading::{Stream, Timestamp};

/// Between two passes, at least: a device's changes within it are one event.
const PASS_EVERY: Duration = Duration::from_millis(500);
/// A pass rests this many times its own length, so that 100,000 devices are looked at less often
/// instead of costing more: at most a twentieth of a core of the database.
const REST_TIMES: u32 = 19;
/// How long a pass takes at most; then the database is too slow for it.
const PASS_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failure.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long changes are still looked for when nobody listens any more: who comes back within it
/// goes on where it was.
const LINGER: Duration = Duration::from_secs(30);

/// Looks for changes for as long as somebody listens.
///
/// Blocks: for ever
/// Cancel: safe
pub(super) async fn run(feed: Arc<Feed>, pool: Pool) {
    loop {
        feed.wanted().await;
        watch(&feed, &pool).await;
        feed.set_sight(Sight::Unknown);
        feed.restart();
    }
}

/// Looks for changes until nobody has listened for a while.
async fn watch(feed: &Feed, pool: &Pool) {
    let mut known = Known::default();
    let mut wanted_until = Instant::now() + LINGER;
    let mut failing = false;
    loop {
        let began = Instant::now();
        if feed.listeners() > 0 {
            wanted_until = began + LINGER;
        } else if began > wanted_until {
            return;
        }
        match pass(pool, &mut known).await {
            Ok(events) => {
                if failing {
                    tracing::info!("the live stream sees the database again");
                    // Ids may mean other devices after a failover, and so may what is known.
                    feed.restart();
                    failing = false;
                }
                metrics::stream_events(events.len());
                feed.publish(events);
                feed.set_sight(Sight::Clear);
                let rest = began.elapsed() * REST_TIMES;
                sleep_until((began + PASS_EVERY).max(Instant::now() + rest)).await;
            }
            Err(reason) => {
                if !failing {
                    tracing::warn!(reason, "the live stream does not see the database");
                }
                failing = true;
                known = Known::default();
                feed.set_sight(Sight::Blocked);
                sleep(RETRY_AFTER).await;
            }
        }
    }
}

/// The newest alerts that are compared. More are open where something is wrong with the whole
/// fleet, and then nobody reads them one by one.
const ALERTS_MAX: i64 = 1000;

/// What was seen at the look before; none before the first.
#[derive(Default)]
struct Known {
    /// When each device's newest reading was taken, by stream and short id.
    times: [Option<HashMap<i32, i64>>; 2],
    /// The alerts that were open.
    alerts: Option<HashSet<i64>>,
}

/// One look: what has changed since the one before.
async fn pass(pool: &Pool, known: &mut Known) -> Result<Vec<Event>, String> {
    let client = match timeout(PASS_TIMEOUT, pool.get()).await {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err("all connections to the database are busy".to_owned()),
    };
    let looked = timeout(PASS_TIMEOUT, look(&client, known)).await;
    if looked.is_err() {
        // A statement is still on its way in it: nobody else is to wait behind it.
        drop(deadpool_postgres::Object::take(client));
        return Err("the database did not answer in time".to_owned());
    }
    looked
        .unwrap_or_else(|_| Ok(Vec::new()))
        .map_err(|error| error.to_string())
}

async fn look(client: &Client, known: &mut Known) -> Result<Vec<Event>, Error> {
    let mut events = Vec::new();
    for stream in Stream::ALL {
        let known = &mut known.times[stream.index()];
        let times = times(client, stream).await?;
        match known {
            // The first look is what later ones are compared with.
            None => *known = Some(times.into_iter().collect()),
            Some(known) => {
                let changed: Vec<i32> = times
                    .into_iter()
                    .filter(|(id, at)| known.get(id) != Some(at))
                    .map(|(id, _)| id)
                    .collect();
                if !changed.is_empty() {
                    events.extend(read(client, stream, &changed, known).await?);
                }
            }
        }
    }
    events.extend(alerts(client, &mut known.alerts).await?);
    Ok(events)
}

/// The alerts that have opened or closed.
async fn alerts(client: &Client, known: &mut Option<HashSet<i64>>) -> Result<Vec<Event>, Error> {
    let open = sql!("alerts");
    let open = client.prepare_cached(open).await?;
    let (newest, any, is_open) = (i64::MAX, None::<&str>, Some(true));
    let rows = client
        .query(&open, &[&newest, &any, &is_open, &ALERTS_MAX, &any, &any])
        .await?;
    let mut ids = HashSet::with_capacity(rows.len());
    for row in &rows {
        ids.insert(row.try_get::<_, i64>(0)?);
    }
    let Some(before) = known.replace(ids.clone()) else {
        return Ok(Vec::new());
    };
    let event = |row: &tokio_postgres::Row| -> Result<Event, Error> {
        let (id, data) = alerts::alert_json(row)?;
        Ok(Event {
            kind: Kind::Alert,
            id,
            data,
        })
    };
    let mut events = Vec::new();
    let gone: Vec<i64> = before.difference(&ids).copied().collect();
    if !gone.is_empty() {
        let closed = sql!("stream_alerts_closed");
        let closed = client.prepare_cached(closed).await?;
        for row in &client.query(&closed, &[&gone]).await? {
            events.push(event(row)?);
        }
    }
    // The rows come newest first.
    for row in rows.iter().rev() {
        if !before.contains(&row.try_get::<_, i64>(0)?) {
            events.push(event(row)?);
        }
    }
    Ok(events)
}

async fn times(client: &Client, stream: Stream) -> Result<Vec<(i32, i64)>, Error> {
    let sql = match stream {
        Stream::Meter => sql!("stream_meter_times"),
        Stream::Vehicle => sql!("stream_vehicle_times"),
    };
    let statement = client.prepare_cached(sql).await?;
    let rows = client.query(&statement, &[]).await?;
    let time = |row: &tokio_postgres::Row| {
        let at: Timestamp = row.try_get(1)?;
        Ok((row.try_get(0)?, at.as_micros()))
    };
    rows.iter().map(time).collect()
}

/// Reads the devices that have changed, by their ids' order.
///
/// They may have changed once more since: what is noted is what was read.
async fn read(
    client: &Client,
    stream: Stream,
    changed: &[i32],
    known: &mut HashMap<i32, i64>,
) -> Result<Vec<Event>, Error> {
    let (sql, id_column) = match stream {
        Stream::Meter => (sql!("stream_meters"), 6),
        Stream::Vehicle => (sql!("stream_vehicles"), 7),
    };
    let statement = client.prepare_cached(sql).await?;
    let rows = client.query(&statement, &[&changed]).await?;
    let now = Timestamp::now();
    let mut events = Vec::with_capacity(rows.len());
    for row in &rows {
        let at: Timestamp = row.try_get(1)?;
        known.insert(row.try_get(id_column)?, at.as_micros());
        let (id, data) = live::status_json(stream, row, now)?;
        events.push(Event {
            kind: Kind::Status(stream),
            id,
            data,
        });
    }
    events.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    Ok(events)
}
