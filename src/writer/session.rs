//! A writer's session with the database: its settings, its statements, its claim on a checkpoint.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, Statement};
use uuid::Uuid;

use super::rows::{HistoryRow, MeterRow, VehicleRow};
use crate::postgres::PartitionWidth;
use crate::postgres::migrations::width_of;
use crate::postgres::partitions::{self, Partitions};
use crate::postgres::registry::{IdCache, ResolveError};
use crate::postgres::{Session, Target};
use crate::reading::Stream;
use crate::wal::frame::Position;
use crate::wal::progress::{Stored, Tally};

/// What a session's cache of ids may hold.
const ID_CACHE_BYTES: usize = 16 << 20;
/// How long a claim waits for a row that another session holds, before that one is ended.
const CLAIM_WAIT: &str = "set lock_timeout = '2s'";

/// Settings of a writer's session, each sent on its own.
const SETTINGS: [&str; 14] = [
    "set timezone = 'UTC'",
    "set datestyle = 'ISO'",
    "set client_min_messages = 'warning'",
    // A lock that is not given within this is the environment's fault: connect again.
    "set lock_timeout = '10s'",
    "set statement_timeout = '60s'",
    "set idle_in_transaction_session_timeout = '60s'",
    // The server gives up a client that has vanished, also in the middle of a COPY.
    "set tcp_keepalives_idle = 10",
    "set tcp_keepalives_interval = 5",
    "set tcp_keepalives_count = 3",
    "set tcp_user_timeout = 15000",
    // A probe looks keys up; planned with its own values, it locks only the partitions it needs.
    "set plan_cache_mode = 'force_custom_plan'",
    "set enable_hashjoin = off",
    "set enable_mergejoin = off",
    "set enable_seqscan = off",
];

/// Why a session cannot go on. Each means: drop it, and connect again after a while.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// As PostgreSQL or the network give it.
    #[error("{}", describe(.0))]
    Database(#[from] Error),
    /// A newer session has claimed the checkpoint.
    #[error("another session has taken over this shard's checkpoint")]
    Fenced,
    /// The log is bound to another database.
    #[error(
        "this is database {found}, but the log has stored into database {bound}: nothing is \
         written. Mend DATABASE_URL; or, if the change is meant, stop the gateway and remove \
         the file 'database' in the log's directory"
    )]
    WrongDatabase {
        /// The database's id.
        found: Uuid,
        /// The id that the log is bound to.
        bound: Uuid,
    },
    /// The database has not been migrated yet.
    #[error("the database is not migrated yet")]
    NotMigrated,
    /// A registry hides what it holds.
    #[error(transparent)]
    Registry(ResolveError),
    /// The database took too long.
    #[error("the database did not answer within {0:?}")]
    Timeout(Duration),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] crate::wal::reader::ReadError),
    /// The log's directory cannot be written.
    #[error("cannot bind the log to the database: {0}")]
    Binding(std::io::Error),
    /// A thread of this process has panicked.
    #[error("a task of the writer has panicked")]
    Panicked,
}

impl From<ResolveError> for SessionError {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::Database(error) => SessionError::Database(error),
            hidden => SessionError::Registry(hidden),
        }
    }
}

impl SessionError {
    /// The label of `batch_retries_total`.
    pub fn sqlstate(&self) -> &str {
        match self {
            SessionError::Database(error) => error.code().map_or("connection", SqlState::code),
            SessionError::Fenced => "fenced",
            SessionError::Timeout(_) => "timeout",
            SessionError::WrongDatabase { .. } => "wrong_database",
            SessionError::NotMigrated => "not_migrated",
            SessionError::Log(_) => "log",
            SessionError::Registry(_) => "registry",
            SessionError::Binding(_) => "binding",
            SessionError::Panicked => "panicked",
        }
    }
}

/// An error of the database in words: PostgreSQL's own message where there is one.
fn describe(error: &Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} (SQLSTATE {})", db.message(), db.code().code()),
        None => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(inner) = source {
                text = format!("{text}: {inner}");
                source = inner.source();
            }
            text
        }
    }
}

/// The statements of one kind of history row.
pub(super) struct RowStatements {
    pub(super) copy: Statement,
    pub(super) probe: Statement,
    pub(super) insert: Statement,
    pub(super) live: Statement,
}

impl RowStatements {
    async fn prepare<R: HistoryRow>(client: &Client, live: &str) -> Result<Self, Error> {
        Ok(RowStatements {
            copy: client.prepare(R::COPY).await?,
            probe: client.prepare(R::PROBE).await?,
            insert: client.prepare(R::INSERT).await?,
            live: client.prepare(live).await?,
        })
    }
}

/// A claim on the checkpoint of one shard of one run.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// The run.
    pub run_id: Uuid,
    /// The shard.
    pub shard: i32,
    /// Raised by every claim; an older one can move nothing any more.
    pub epoch: i64,
    /// The checkpoint, as this session last committed it.
    pub stored: Stored,
}

/// A session with everything that lives and dies with it.
pub struct WriterSession {
    session: Session,
    /// Ids, valid for this session alone.
    pub ids: IdCache,
    /// Partitions of both streams, as last seen.
    pub partitions: [Partitions; 2],
    /// The database's own id.
    pub database_id: Uuid,
    /// The width of new partitions.
    pub width: PartitionWidth,
    pub(super) meter: RowStatements,
    pub(super) vehicle: RowStatements,
    pub(super) checkpoint_move: Statement,
}

impl WriterSession {
    /// Connects and prepares.
    ///
    /// # Errors
    /// [`SessionError`]: try again later.
    pub async fn open(target: &Target, name: &str) -> Result<Self, SessionError> {
        let session = target.connect(name).await?;
        let client = session.client();
        for setting in SETTINGS {
            client.batch_execute(setting).await?;
        }
        // A server may be set to answer COMMIT before it is durable; what this session commits
        // moves a checkpoint, and 201 promises it.
        let sql = "select set_config('synchronous_commit', 'on', false)
                   where current_setting('synchronous_commit') = 'off'";
        client.query(sql, &[]).await?;
        let sql = "select database_id, partition_width from gateway_database";
        let (database_id, width) = match client.query_opt(sql, &[]).await {
            Ok(Some(row)) => (row.get(0), width_of(row.get(1))),
            Ok(None) => return Err(SessionError::NotMigrated),
            Err(e) if e.code() == Some(&SqlState::UNDEFINED_TABLE) => {
                return Err(SessionError::NotMigrated);
            }
            Err(e) => return Err(e.into()),
        };
        let meter = RowStatements::prepare::<MeterRow>(
            client,
            include_str!("../../sql/queries/upsert_live_meter.sql"),
        )
        .await?;
        let vehicle = RowStatements::prepare::<VehicleRow>(
            client,
            include_str!("../../sql/queries/upsert_live_vehicle.sql"),
        )
        .await?;
        let checkpoint_move = client
            .prepare(include_str!("../../sql/queries/checkpoint_move.sql"))
            .await?;
        let partitions = [
            partitions::load(client, Stream::Meter).await?,
            partitions::load(client, Stream::Vehicle).await?,
        ];
        Ok(WriterSession {
            ids: IdCache::new(ID_CACHE_BYTES),
            partitions,
            database_id,
            width,
            meter,
            vehicle,
            checkpoint_move,
            session,
        })
    }

    /// The client of this session.
    pub fn client(&self) -> &Client {
        self.session.client()
    }

    /// Claims the checkpoint of a shard: from now on only this session moves it.
    ///
    /// A session of before whose connection was lost may still be in its transaction and hold the
    /// row. After two seconds it is ended, if it is still the one that was recorded.
    ///
    /// Blocks: until the row is free
    ///
    /// # Errors
    /// As PostgreSQL gives them.
    pub async fn claim(&self, run_id: Uuid, shard: u16) -> Result<Claim, SessionError> {
        let shard = i32::from(shard);
        let client = self.client();
        client.batch_execute(CLAIM_WAIT).await?;
        let sql = include_str!("../../sql/queries/checkpoint_claim.sql");
        let start = Position::START.to_i64();
        let row = loop {
            match client.query_one(sql, &[&run_id, &shard, &start]).await {
                Ok(row) => break row,
                Err(e) if e.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                    let sql = include_str!("../../sql/queries/checkpoint_zombie.sql");
                    client.query(sql, &[&run_id, &shard]).await?;
                    tracing::warn!(%run_id, shard, "ended a session that still held a checkpoint");
                }
                Err(e) => return Err(e.into()),
            }
        };
        client.batch_execute(SETTINGS[3]).await?;
        let count = |at: usize| row.get::<_, i64>(at) as u64;
        let stored = Stored {
            position: Position::from_i64(row.get(0)),
            live_position: Position::from_i64(row.get(1)),
            tally: Tally {
                stored: [count(3), count(6)],
                duplicates: [count(4), count(7)],
                quarantined: [count(5), count(8)],
            },
            gap: [count(9), count(10)],
        };
        Ok(Claim {
            run_id,
            shard,
            epoch: row.get(2),
            stored,
        })
    }

    /// Moves a claimed checkpoint over readings that the log no longer has.
    ///
    /// # Errors
    /// As PostgreSQL gives them; [`SessionError::Fenced`] where the claim is no longer ours.
    pub async fn skip_gap(
        &self,
        claim: &mut Claim,
        to: Position,
        readings: [u64; 2],
    ) -> Result<(), SessionError> {
        let sql = include_str!("../../sql/queries/checkpoint_gap.sql");
        let gap = readings.map(|n| n as i64);
        let from = claim.stored.position.to_i64();
        let moved = self
            .client()
            .execute(
                sql,
                &[
                    &claim.run_id,
                    &claim.shard,
                    &claim.epoch,
                    &from,
                    &to.to_i64(),
                    &gap[0],
                    &gap[1],
                ],
            )
            .await?;
        if moved != 1 {
            return Err(SessionError::Fenced);
        }
        claim.stored.position = to;
        claim.stored.live_position = claim.stored.live_position.max(to);
        for (total, more) in claim.stored.gap.iter_mut().zip(readings) {
            *total += more;
        }
        Ok(())
    }
}
