//! Looking at the replicas, and at the end of the primary's WAL.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::time::{sleep, timeout};

use super::samples::Moment;
use super::standby::{Why, follows, state};
use super::{Replica, Replicas, Standing, lock};
use crate::outage::Outage;
use crate::postgres::explain;
use crate::postgres::hosts::addresses;
use crate::postgres::settings::Use;

/// How often each replica, and the primary's WAL, are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often replicas are looked at while clients wait for what they have written.
const LOOK_WHILE_WAITED: Duration = Duration::from_millis(5);
/// How long a look may take.
const LOOK_WITHIN: Duration = Duration::from_secs(5);

impl Replicas {
    /// Looks at the replicas and at the end of the primary's WAL.
    ///
    /// Blocks: for ever
    /// Cancel: safe
    pub(in crate::postgres) async fn watch(&self) {
        let watching = join_all(self.replicas.iter().map(|replica| self.watch_one(replica)));
        join(self.sample(), watching).await;
    }

    /// Samples the end of the primary's WAL.
    async fn sample(&self) {
        loop {
            let opening = self.route.open(&self.watcher, Use::Question);
            if let Ok(Ok(opened)) = timeout(LOOK_WITHIN, opening).await {
                let client = Arc::new(opened.client);
                *lock(&self.primary) = Some(Arc::clone(&client));
                while !client.is_closed() {
                    let moment = Moment::now();
                    let Ok(end) = timeout(LOOK_WITHIN, self.end_of_wal()).await else {
                        break;
                    };
                    // A primary that hides its timeline shows no end.
                    if let Some(end) = end {
                        lock(&self.samples).add(moment, end, self.max_lag + LOOK_WITHIN);
                    }
                    sleep(LOOK_EVERY).await;
                }
                *lock(&self.primary) = None;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn watch_one(&self, replica: &Replica) {
        let mut outage = Outage::default();
        loop {
            let why = match self.look_at(replica, &mut outage).await {
                Ok(never) => match never {},
                Err(why) => why,
            };
            self.found(replica, Standing::NotAsked);
            if outage.changes(&why) {
                tracing::warn!(replica = replica.name, "the replica {why}");
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Looks at a replica until that fails.
    async fn look_at(&self, replica: &Replica, outage: &mut Outage) -> Result<Infallible, Why> {
        let unreachable =
            |error: &tokio_postgres::Error| format!("cannot be reached: {}", explain(error));
        let silent = |_| "does not answer".to_owned();
        let Some(config) = replica.route.standby() else {
            return Err("has no host".to_owned());
        };
        let mut config = addresses(&config).await.swap_remove(0);
        config.application_name(&self.watcher);
        let opening = replica.route.connect(&config);
        let opened = timeout(LOOK_WITHIN, opening).await.map_err(silent)?;
        let opened = opened.map_err(|error| unreachable(&error))?;
        loop {
            let looking = timeout(LOOK_WITHIN, state(&opened.client)).await;
            let found = looking.map_err(silent)?;
            let found = found.map_err(|error| unreachable(&error))??;
            follows(&found, self.route.servers().current())?;
            if let Some(moment) = lock(&self.samples).complete_to(found) {
                *lock(&replica.complete_to) = moment.instant;
            }
            self.found(replica, Standing::Follows(found));
            if outage.ends() {
                tracing::info!(replica = replica.name, "the replica follows the primary");
            }
            let mut waiting = self.waiting.subscribe();
            if *waiting.borrow() > 0 {
                sleep(LOOK_WHILE_WAITED).await;
            } else {
                drop(timeout(LOOK_EVERY, waiting.wait_for(|clients| *clients > 0)).await);
            }
        }
    }

    fn found(&self, replica: &Replica, standing: Standing) {
        let before = std::mem::replace(&mut *lock(&replica.standing), standing);
        if before != standing {
            self.looked.send_modify(|looks| *looks += 1);
        }
    }
}
