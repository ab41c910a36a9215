//! Polls the database for changes, at most twice a second while there are listeners, otherwise not at all.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

use super::feed::{Feed, Sight};
use super::filter::Kind;
use super::ring::Event;
use crate::http::api::{alerts, live};
use crate::metrics;
use crate::outage::Outage;
use crate::postgres::{ReadError, ReadServers, Written};
use crate::reading::Timestamp;
use crate::store::changes::{Change, Seen};

/// The least time between two passes. Several changes of a device within it become one event.
const PASS_EVERY: Duration = Duration::from_millis(500);
/// The pause after a pass, as a multiple of its length. So a fleet of 100,000 devices is polled less often, and
/// polling takes at most a twentieth of a core of the database.
const REST_TIMES: u32 = 19;
/// The longest pass. If one takes longer, the database is too slow.
const PASS_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long polling continues after the last listener left. A listener that reconnects within this time resumes
/// where it was.
const LINGER: Duration = Duration::from_secs(30);

/// Publishes changes to a feed while it has listeners.
///
/// Blocks: forever
/// Cancel: safe
pub(crate) async fn run(feed: Arc<Feed>, servers: ReadServers, suspect_watts: u64) {
    loop {
        feed.wanted().await;
        watch(&feed, &servers, suspect_watts).await;
        feed.set_sight(Sight::Unknown);
        feed.restart(None);
    }
}

/// Publishes changes until there was no listener for [`LINGER`].
async fn watch(feed: &Feed, servers: &ReadServers, suspect_watts: u64) {
    let mut seen = Seen::default();
    // No pass asks a server that is behind the one before: changes would be taken back.
    let mut at_least = None;
    let mut wanted_until = Instant::now() + LINGER;
    let mut outage = Outage::default();
    loop {
        let began = Instant::now();
        if feed.listeners() > 0 {
            wanted_until = began + LINGER;
        } else if began > wanted_until {
            return;
        }
        match pass(servers, &mut at_least, &mut seen, suspect_watts).await {
            Ok(events) => {
                if outage.ends() {
                    tracing::info!("the live stream reaches the database again");
                    // After a failover the same id may mean another device, so earlier events may be wrong.
                    feed.restart(at_least);
                }
                metrics::stream_events(events.len());
                feed.publish(events, at_least);
                feed.set_sight(Sight::Clear);
                let rest = began.elapsed() * REST_TIMES;
                sleep_until((began + PASS_EVERY).max(Instant::now() + rest)).await;
            }
            Err(error) => {
                if outage.begins() {
                    tracing::warn!(%error, "the live stream does not reach the database");
                }
                (seen, at_least) = (Seen::default(), None);
                feed.set_sight(Sight::Blocked);
                sleep(RETRY_AFTER).await;
            }
        }
    }
}

/// One pass: publishes what has changed since the previous one.
async fn pass(
    servers: &ReadServers,
    at_least: &mut Option<Written>,
    seen: &mut Seen,
    suspect_watts: u64,
) -> Result<Vec<Event>, ReadError> {
    let now = Timestamp::now();
    let reads = servers.begin(*at_least).never_behind();
    let look = Mutex::new((seen, Vec::new()));
    reads
        .ask_within(PASS_TIMEOUT, async |client| {
            let (seen, changes) = &mut *look.lock().await;
            seen.look(client, changes, now).await
        })
        .await?;
    let (_, changes) = look.into_inner();
    // All that the pass has seen lies before this.
    *at_least = match reads.at_least() {
        // The primary has answered.
        Some(Written::Unknown) => servers.written().await,
        known => known,
    };
    let event = |change| event(change, now, suspect_watts);
    Ok(changes.iter().map(event).collect())
}

fn event(change: &Change, now: Timestamp, suspect_watts: u64) -> Event {
    match change {
        Change::Status(stream, status) => Event {
            kind: Kind::Status(*stream),
            id: status.device.clone(),
            data: live::status_json(status, now, suspect_watts),
        },
        Change::Alert(alert) => Event {
            kind: Kind::Alert,
            id: alert.device.clone().unwrap_or_default(),
            data: alerts::alert_json(alert),
        },
    }
}
