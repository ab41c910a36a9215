//! Brings the database up to date, starts the writers, and keeps the health report true.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::gateway::Gateway;
use crate::config::Config;
use crate::http::Health;
use crate::http::api::health::{DatabaseState, MigrationState};
use crate::ingest::age::AgeLimit;
use crate::outage::Outage;
use crate::postgres::migrations::{DatabaseSettings, HistoryOptions, MigrationError, migrate};
use crate::postgres::{Target, Use};
use crate::wal::{Log, LogSource};
use crate::writer::accepted::not_accepted;
use crate::writer::binding::Binding;
use crate::writer::{ShardState, WriterOptions, Writers};

/// How often the health report is renewed.
const REPORT_EVERY: Duration = Duration::from_millis(100);
/// How long the database may take to open a session.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long the migrations may take, including the wait for another gateway's. Only a database that no longer answers
/// takes longer.
const MIGRATE_WITHIN: Duration = Duration::from_secs(3600);
/// How long the supervisor waits before it tries an unreachable database again.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// The writers, once there are any.
pub(super) type WritersSlot = Option<Writers>;

/// Tries to reach the database and then starts the writers, until it is stopped.
pub(super) struct Supervisor {
    stop: oneshot::Sender<()>,
    writers: oneshot::Receiver<Writers>,
}

impl Supervisor {
    /// Starts the tasks that reach the database and renew the health report.
    pub(super) fn start(
        config: &Config,
        target: &Target,
        log: &Log,
        binding: &Arc<Binding>,
        gateway: &mut Gateway,
    ) -> Self {
        let (states, watched) = watch::channel(Vec::new());
        let health = Arc::clone(&gateway.health);
        let start = Start {
            history: config.history,
            options: config.writers,
            target: target.clone(),
            source: log.source(),
            binding: Arc::clone(binding),
            health: Arc::clone(&health),
            states,
            age: Arc::clone(gateway.context.pipeline.age()),
        };
        let wal_dir = config.data.wal_dir();
        let reporting = report((log.source(), target.clone()), wal_dir, health, watched);
        let (stop, stopped) = oneshot::channel();
        let (hand, writers) = oneshot::channel();
        gateway.parts.start("writers", start.run(stopped, hand));
        gateway.parts.start("health report", reporting);
        Supervisor { stop, writers }
    }

    /// Stops, and returns the writers; the caller must end them.
    ///
    /// Blocks: for a moment
    pub(super) async fn stop(self) -> WritersSlot {
        // If the writers ended by themselves, the task has already ended.
        self.stop.send(()).ok();
        self.writers.await.ok()
    }
}

/// Everything that starting the writers needs.
struct Start {
    history: HistoryOptions,
    options: WriterOptions,
    target: Target,
    source: LogSource,
    binding: Arc<Binding>,
    health: Arc<Health>,
    states: watch::Sender<Vec<watch::Receiver<ShardState>>>,
    age: Arc<AgeLimit>,
}

impl Start {
    /// Migrates the database as soon as it is reached, then starts the writers and watches them. On a stop the running
    /// writers are handed over, because they still store what they can.
    async fn run(self, mut stopped: oneshot::Receiver<()>, hand: oneshot::Sender<Writers>) {
        let settings = tokio::select! {
            _ = &mut stopped => return,
            settings = self.migrated() => settings,
        };
        let (source, target) = (&self.source, &self.target);
        let mut writers = Writers::start(source, target, &self.binding, self.options, settings);
        let mut retention = writers.retention();
        self.age.keep(settings.retention);
        self.states.send_replace(writers.states());
        let follow = async {
            loop {
                self.age.keep(*retention.borrow_and_update());
                if retention.changed().await.is_err() {
                    // The maintenance has ended. Another branch reports that.
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            () = follow => {}
            _ = &mut stopped => {}
            (part, how) = writers.ended() => {
                tracing::error!(part, how, "a part of the writers ended unexpectedly");
            }
        }
        // The receiver lives until the end of the gateway.
        hand.send(writers).ok();
    }

    async fn migrated(&self) -> DatabaseSettings {
        let mut outage = Outage::default();
        loop {
            match self.try_migrate().await {
                Ok(settings) => {
                    self.health.set_migrations(MigrationState::Done);
                    return settings;
                }
                Err(error) => {
                    let text = error.to_string();
                    match error {
                        MigrationError::Silent => {
                            self.health.set_database(DatabaseState::Down(text.clone()));
                        }
                        MigrationError::Database(ref e) if e.code().is_none() => {
                            self.health.set_database(DatabaseState::Down(text.clone()));
                        }
                        _ => self
                            .health
                            .set_migrations(MigrationState::Failed(text.clone())),
                    }
                    if outage.changes(&text) {
                        tracing::warn!(
                            error = text,
                            "the database is not ready; readings wait \
                             in the log"
                        );
                    }
                }
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    async fn try_migrate(&self) -> Result<DatabaseSettings, MigrationError> {
        let connecting = self.target.connect("wattgate migrate", Use::Migration);
        let session = tokio::time::timeout(CONNECT_WITHIN, connecting)
            .await
            .map_err(|_| MigrationError::Silent)??;
        tokio::time::timeout(MIGRATE_WITHIN, migrate(session.client(), self.history))
            .await
            .map_err(|_| MigrationError::Silent)?
    }
}

/// Renews the health report until it is cancelled.
async fn report(
    (source, target): (LogSource, Target),
    wal_dir: PathBuf,
    health: Arc<Health>,
    states: watch::Receiver<Vec<watch::Receiver<ShardState>>>,
) {
    let mut every = tokio::time::interval(REPORT_EVERY);
    loop {
        every.tick().await;
        let waits = source.progress().oldest_waits();
        health.set_oldest((!waits.is_zero()).then_some(waits));
        health.set_servers(target.servers());
        health.set_gap(not_accepted(&wal_dir, &source.gaps()));
        let states = states.borrow().clone();
        if states.is_empty() {
            continue;
        }
        let mut down = states.iter().filter_map(|state| match &*state.borrow() {
            ShardState::Down(why) => Some(why.clone()),
            ShardState::Starting | ShardState::Up => None,
        });
        if let Some(why) = down.next() {
            health.set_database(DatabaseState::Down(why));
        } else if states.iter().all(|state| state.borrow().is_up()) {
            health.set_database(DatabaseState::Up);
        }
    }
}
