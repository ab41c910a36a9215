//! A writer's session with the database: its settings, its statements, its claim on a checkpoint.

use std::future::Future;
use std::time::Duration;

use futures_util::TryFutureExt;
use futures_util::future::{try_join, try_join3, try_join4};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, Statement};
use uuid::Uuid;

use super::dirty_hours::DirtyHours;
use super::newest_seen::NewestSeen;
use super::rows::{HistoryRow, MeterRow, VehicleRow};
use super::shares::Shares;
use crate::postgres::PartitionWidth;
use crate::postgres::migrations::width_of;
use crate::postgres::partitions;
use crate::postgres::partitions::Partitions;
use crate::postgres::registry::{IdCache, ResolveError};
use crate::postgres::sequences;
use crate::postgres::{Session, Target, Use, explain};
use crate::reading::{PerStream, StreamCounts};
use crate::wal::frame::Position;
use crate::wal::progress::{Stored, Tally};

/// The size of the id cache in a command's session. A writer has its own share instead.
const ID_CACHE_BYTES: usize = 16 << 20;
/// How long a claim waits for a row that another session holds before it terminates that session.
const CLAIM_WAIT: &str = "set lock_timeout = '2s'";
/// How many attempts a claim makes before it reports that another session holds the row.
const CLAIM_TRIES: u32 = 3;
/// How long connecting may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long a request to cancel a statement may take.
const CANCEL_WITHIN: Duration = Duration::from_secs(2);

/// Why a session ended. Drop it, and connect again after a pause.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// An error of PostgreSQL or of the network.
    #[error("{}", explain(.0))]
    Database(#[from] Error),
    /// A newer session has claimed the checkpoint.
    #[error("another session has taken over this shard's checkpoint")]
    Fenced,
    /// The log is bound to another database.
    #[error(
        "this is database {found}, but the log is bound to database {bound}: nothing is written. \
         Correct DATABASE_URL; or, to store into this database, run `wattgate wal adopt`"
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
    /// A registry has rows that this session cannot see.
    #[error(transparent)]
    Registry(ResolveError),
    /// The database has moved to a newer server, so this one's responses no longer count.
    #[error("the database has moved to another server")]
    Superseded,
    /// The connection has ended while it was idle.
    #[error("the connection to the database was closed")]
    Ended,
    /// The database took too long.
    #[error("the database did not answer within {0:?}")]
    Timeout(Duration),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] crate::wal::reader::ReadError),
    /// The log's directory cannot be written.
    #[error("cannot bind the log to the database: {0}")]
    Binding(std::io::Error),
    /// Every strategy failed for a batch.
    #[error("every strategy failed to store the batch, each for a different reason")]
    Restless,
    /// Rows of the batch were in history, and then were not.
    #[error("stored readings were deleted while a batch with the same readings was being stored")]
    RowsDeleted,
    /// The writer has panicked: a defect, or tables whose types are not the gateway's own.
    #[error("the writer panicked; see the panic message in the process's output")]
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
    /// The `sqlstate` label of `batch_retries_total`.
    pub fn sqlstate(&self) -> &str {
        match self {
            SessionError::Database(error) => error.code().map_or("connection", SqlState::code),
            SessionError::Ended => "connection",
            SessionError::Fenced => "fenced",
            SessionError::Superseded => "superseded",
            SessionError::Timeout(_) => "timeout",
            SessionError::WrongDatabase { .. } => "wrong_database",
            SessionError::NotMigrated => "not_migrated",
            SessionError::Log(_) => "log",
            SessionError::Registry(_) => "registry",
            SessionError::Binding(_) => "binding",
            SessionError::Restless => "restless",
            SessionError::RowsDeleted => "rows_deleted",
            SessionError::Panicked => "panicked",
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
        let (copy, probe, insert, live) = try_join4(
            client.prepare(R::COPY),
            client.prepare(R::PROBE),
            client.prepare(R::INSERT),
            client.prepare(live),
        )
        .await?;
        Ok(RowStatements {
            copy,
            probe,
            insert,
            live,
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
    /// Each claim raises it. A claim with an older epoch cannot move the checkpoint any more.
    pub epoch: i64,
    /// The checkpoint, as this session last committed it.
    pub stored: Stored,
}

/// The failover count at which sequences were last repaired; `None` before the first session. All writers share
/// it.
pub(super) type Settled = tokio::sync::Mutex<Option<u64>>;

/// A session, and everything that is valid only in it.
pub struct WriterSession {
    session: Session,
    /// Cached ids, valid in this session alone.
    pub ids: IdCache,
    /// The known partitions of both streams.
    pub partitions: PerStream<Partitions>,
    /// The newest reading of each device that this session has stored, for both streams.
    pub newest_seen: PerStream<NewestSeen>,
    /// The database's own id.
    pub database_id: Uuid,
    /// The width of new partitions.
    pub width: PartitionWidth,
    /// How long the database may take for one response. The server's own timeouts do not help if the server or the
    /// network is unreachable.
    pub answer_within: Duration,
    statements: PerStream<RowStatements>,
    pub(super) checkpoint_move: Statement,
    pub(super) dirty_hours: DirtyHours,
}

impl WriterSession {
    /// Connects and prepares the statements.
    ///
    /// Blocks: at most 10 s for the connection and `answer_within` for the rest
    ///
    /// # Errors
    /// [`SessionError`]: try again later.
    pub async fn open(
        target: &Target,
        name: &str,
        answer_within: Duration,
    ) -> Result<Self, SessionError> {
        let connect_within = answer_within.min(CONNECT_WITHIN);
        let session = tokio::time::timeout(connect_within, target.connect(name, Use::Writer))
            .await
            .map_err(|_| SessionError::Timeout(connect_within))??;
        tokio::time::timeout(answer_within, Self::prepare(session, answer_within))
            .await
            .map_err(|_| SessionError::Timeout(answer_within))?
    }

    async fn prepare(session: Session, answer_within: Duration) -> Result<Self, SessionError> {
        let client = session.client();
        // Everything is pipelined in one round trip. The identity comes first, so that a database without tables
        // is reported as not migrated.
        let rows = try_join(
            RowStatements::prepare::<MeterRow>(client, sql!("upsert_live_meter")),
            RowStatements::prepare::<VehicleRow>(client, sql!("upsert_live_vehicle")),
        );
        let sql = sql!("checkpoint_move");
        let others = try_join3(
            client.prepare(sql),
            DirtyHours::prepare(client),
            partitions::load_both(client),
        );
        let prepared = try_join(rows, others).map_err(SessionError::from);
        let (identity, ((meter, vehicle), (checkpoint_move, dirty_hours, partitions))) =
            try_join(identity(client), prepared).await?;
        let (database_id, width) = identity;
        Ok(WriterSession {
            ids: IdCache::new(ID_CACHE_BYTES),
            partitions,
            newest_seen: Default::default(),
            database_id,
            width,
            answer_within,
            statements: PerStream { meter, vehicle },
            checkpoint_move,
            dirty_hours,
            session,
        })
    }

    /// Sets the caches' bounds to a writer's share. They must still be empty.
    pub(super) fn bound(&mut self, shares: &Shares) {
        self.ids = IdCache::new(shares.ids_bytes);
        self.newest_seen = PerStream::from_fn(|_| NewestSeen::new(shares.seen_devices));
        self.dirty_hours.bound(shares.standing_marks);
    }

    /// Waits until the connection has ended.
    ///
    /// Cancel: safe
    pub async fn ended(&self) {
        self.session.ended().await;
    }

    /// Repairs sequences once after each failover: on a promoted logical subscriber they lag behind.
    ///
    /// Blocks: while another writer repairs them
    ///
    /// # Errors
    /// [`SessionError`]
    pub(super) async fn settle(&self, settled: &Settled) -> Result<(), SessionError> {
        let mut settled = settled.lock().await;
        let moves = self.session.moves();
        // At the first server, the migrations have already repaired them.
        if settled.is_some_and(|settled| settled < moves) {
            self.answered(sequences::repair(self.client())).await?;
        }
        *settled = (*settled).max(Some(moves));
        Ok(())
    }

    /// Runs `act` on what the server has committed. Once a newer primary was seen, a commit on the old one must
    /// not be acknowledged.
    ///
    /// # Errors
    /// [`SessionError::Superseded`]: `act` did not run.
    pub(super) fn acknowledge<T>(&self, act: impl FnOnce() -> T) -> Result<T, SessionError> {
        let acted = self.session.while_current(act);
        acted.ok_or(SessionError::Superseded)
    }

    /// The statements for one kind of row.
    pub(super) fn statements<R: HistoryRow>(&self) -> &RowStatements {
        &self.statements[R::STREAM]
    }

    /// The statements that write live status.
    pub(super) fn live_statements(&self) -> PerStream<&Statement> {
        PerStream::from_fn(|stream| &self.statements[stream].live)
    }

    /// Waits for a response of the database, up to `answer_within`.
    ///
    /// # Errors
    /// [`SessionError::Timeout`] after the statement was cancelled: drop the session. Otherwise the error of
    /// `work`.
    pub async fn answered<T, E: Into<SessionError>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, SessionError> {
        self.answered_in(self.answer_within, work).await
    }

    /// Like [`WriterSession::answered`], with another time limit.
    ///
    /// # Errors
    /// As [`WriterSession::answered`].
    pub async fn answered_in<T, E: Into<SessionError>>(
        &self,
        within: Duration,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, SessionError> {
        match tokio::time::timeout(within, work).await {
            Ok(result) => result.map_err(Into::into),
            Err(_) => {
                // A server that waits for a lock does not notice a closed socket. If this request gets no response
                // either, the next session's claim terminates the statement.
                drop(tokio::time::timeout(CANCEL_WITHIN, self.session.cancel()).await);
                Err(SessionError::Timeout(within))
            }
        }
    }

    /// The client of this session.
    pub fn client(&self) -> &Client {
        self.session.client()
    }

    /// Claims the checkpoint of a shard. From now on only this session can move it.
    ///
    /// An earlier session whose connection was lost may still be in its transaction and hold the row. After two
    /// seconds it is terminated, if it is still the one recorded in the row.
    ///
    /// Blocks: until the row is free
    pub async fn claim(&self, run_id: Uuid, shard: u16) -> Result<Claim, SessionError> {
        let shard = i32::from(shard);
        let client = self.client();
        client.batch_execute(CLAIM_WAIT).await?;
        let sql = sql!("checkpoint_claim");
        let start = Position::START.to_i64();
        let mut tries = 0;
        let row = loop {
            tries += 1;
            match client.query_one(sql, &[&run_id, &shard, &start]).await {
                Ok(row) => break row,
                Err(e) if e.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                    if tries == CLAIM_TRIES {
                        // No writer is recorded: an operator's session holds the row.
                        return Err(e.into());
                    }
                    let sql = sql!("checkpoint_zombie");
                    if !client.query(sql, &[&run_id, &shard]).await?.is_empty() {
                        tracing::warn!(%run_id, shard, "ended a session that held a checkpoint");
                    }
                }
                Err(e) => return Err(e.into()),
            }
        };
        let wait = format!("set lock_timeout = '{}'", Use::Writer.lock_timeout());
        client.batch_execute(&wait).await?;
        let counts = |meter: usize, vehicle: usize| PerStream {
            meter: row.get::<_, i64>(meter) as u64,
            vehicle: row.get::<_, i64>(vehicle) as u64,
        };
        let stored = Stored {
            position: Position::from_i64(row.get(0)),
            live_position: Position::from_i64(row.get(1)),
            tally: Tally {
                stored: counts(3, 6),
                duplicates: counts(4, 7),
                quarantined: counts(5, 8),
            },
            gap: counts(9, 10),
        };
        Ok(Claim {
            run_id,
            shard,
            epoch: row.get(2),
            stored,
        })
    }

    /// Moves a claimed checkpoint past readings that the log no longer holds, and counts them as a gap.
    ///
    /// # Errors
    /// PostgreSQL's errors; [`SessionError::Fenced`] if another session holds the claim.
    pub async fn skip_gap(
        &self,
        claim: &mut Claim,
        to: Position,
        readings: StreamCounts,
    ) -> Result<(), SessionError> {
        let sql = sql!("checkpoint_gap");
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
                    &gap.meter,
                    &gap.vehicle,
                ],
            )
            .await?;
        if moved != 1 {
            return Err(SessionError::Fenced);
        }
        claim.stored.position = to;
        claim.stored.live_position = claim.stored.live_position.max(to);
        claim.stored.gap += readings;
        Ok(())
    }
}

/// The database's own id, and the width of new partitions.
async fn identity(client: &Client) -> Result<(Uuid, PartitionWidth), SessionError> {
    let sql = "select database_id, partition_width from gateway_database";
    // `query_typed` looks up no types, which saves a round trip.
    let rows = match client.query_typed(sql, &[]).await {
        Ok(rows) => rows,
        Err(e) if e.code() == Some(&SqlState::UNDEFINED_TABLE) => {
            return Err(SessionError::NotMigrated);
        }
        Err(e) => return Err(e.into()),
    };
    let found = rows.first().ok_or(SessionError::NotMigrated)?;
    Ok((found.get(0), width_of(found.get(1))))
}
