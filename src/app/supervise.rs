//! Brings the database up to date, starts the writers, and keeps the health report true.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::wishes;
use crate::config::Config;
use crate::http::Health;
use crate::http::health::{DatabaseState, MigrationState};
use crate::postgres::migrations::{DatabaseSettings, MigrationError, Wishes, migrate};
use crate::postgres::{Target, Use};
use crate::wal::{Log, LogSource};
use crate::writer::accepted::not_accepted;
use crate::writer::binding::Binding;
use crate::writer::{ShardState, WriterOptions, Writers};

/// With so many devices live status is still written with each batch: 256 rows take about 1 ms,
/// and a batch that is not full has lingered for 25.
const LIVE_AT_ONCE_DEVICES: usize = 256;

/// How often the health report is renewed.
const REPORT_EVERY: Duration = Duration::from_millis(100);
/// How long the database may take to let a session in.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long the migrations may take, the wait for another gateway's included. Only a database that
/// has stopped answering takes longer.
const MIGRATE_WITHIN: Duration = Duration::from_secs(3600);
/// How long it waits before it tries an unreachable database again.
const AGAIN: Duration = Duration::from_millis(250);

/// The writers, once there are any.
pub(super) type WritersSlot = Option<Writers>;

/// Works beside the server until it is stopped.
pub(super) struct Supervisor {
    writers: Arc<Mutex<WritersSlot>>,
    starting: JoinHandle<()>,
    reporting: JoinHandle<()>,
}

impl Supervisor {
    /// Begins to reach for the database.
    pub(super) fn start(
        config: &Config,
        target: &Target,
        log: &Log,
        binding: &Arc<Binding>,
        health: &Arc<Health>,
    ) -> Self {
        let writers: Arc<Mutex<WritersSlot>> = Arc::default();
        let (states, watched) = watch::channel(Vec::new());
        let start = Start {
            wishes: wishes(config),
            options: WriterOptions {
                batch_rows_max: config.batch_rows_max,
                linger: config.linger,
                live_interval: config.live_interval,
                live_at_once_devices: LIVE_AT_ONCE_DEVICES,
                answer_within: WriterOptions::ANSWER_WITHIN,
            },
            target: target.clone(),
            source: log.source(),
            binding: Arc::clone(binding),
            health: Arc::clone(health),
            writers: Arc::clone(&writers),
            states,
        };
        Supervisor {
            writers,
            starting: tokio::spawn(start.run()),
            reporting: tokio::spawn(report(
                log.source(),
                config.data_dir.join("wal"),
                Arc::clone(health),
                watched,
            )),
        }
    }

    /// Stops, and gives the writers to whoever ends them.
    pub(super) fn stop(self) -> WritersSlot {
        self.starting.abort();
        self.reporting.abort();
        self.writers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// What it takes to start the writers.
struct Start {
    wishes: Wishes,
    options: WriterOptions,
    target: Target,
    source: LogSource,
    binding: Arc<Binding>,
    health: Arc<Health>,
    writers: Arc<Mutex<WritersSlot>>,
    states: watch::Sender<Vec<watch::Receiver<ShardState>>>,
}

impl Start {
    /// Migrates the database as soon as it is there, then starts the writers.
    async fn run(self) {
        let settings = self.migrated().await;
        let Start {
            source,
            target,
            binding,
            options,
            ..
        } = &self;
        let writers = Writers::start(source, target, binding, *options, settings);
        self.states.send_replace(writers.states());
        *self.writers.lock().unwrap_or_else(PoisonError::into_inner) = Some(writers);
    }

    async fn migrated(&self) -> DatabaseSettings {
        let mut said = String::new();
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
                    if said != text {
                        tracing::warn!(
                            error = text,
                            "the database is not ready; readings wait \
                            in the log"
                        );
                        said = text;
                    }
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn try_migrate(&self) -> Result<DatabaseSettings, MigrationError> {
        let connecting = self.target.connect("wattgate migrate", Use::Migration);
        let session = tokio::time::timeout(CONNECT_WITHIN, connecting)
            .await
            .map_err(|_| MigrationError::Silent)??;
        tokio::time::timeout(MIGRATE_WITHIN, migrate(session.client(), self.wishes))
            .await
            .map_err(|_| MigrationError::Silent)?
    }
}

/// Renews the health report until it is cancelled.
async fn report(
    source: LogSource,
    wal_dir: PathBuf,
    health: Arc<Health>,
    states: watch::Receiver<Vec<watch::Receiver<ShardState>>>,
) {
    let mut every = tokio::time::interval(REPORT_EVERY);
    loop {
        every.tick().await;
        let waits = source.progress().oldest_waits();
        health.set_oldest((!waits.is_zero()).then_some(waits));
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
