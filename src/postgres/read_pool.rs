//! The sessions for queries: a bounded pool of its own, so that a query never takes a session from
//! the writers.
//!
//! [`ReadPool::ask`] bounds the wait for a session and the query, and discards a session that is stuck.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::{
    BuildError, Client, Connect, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod,
    Runtime,
};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, Error};

use super::explain;

/// How long a query waits for a session.
pub(super) const SESSION_WITHIN: Duration = Duration::from_secs(5);
/// How long all statements of one query may take in total. Why 35 s: the server ends a statement
/// after 30 s. This bound is for a network that loses the answer.
pub(super) const WORK_WITHIN: Duration = Duration::from_secs(35);

/// Whether this process has brought the database up to date. Before that, a missing column is one that a migration will
/// add; afterwards, someone has altered the schema.
static IS_MIGRATED: AtomicBool = AtomicBool::new(false);

/// Notes that the database is up to date.
pub(super) fn note_migrated() {
    IS_MIGRATED.store(true, Ordering::Relaxed);
}

/// Why a query to the database failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Every session of the pool is in use; try again later.
    #[error("all connections to the database are busy")]
    AllBusy,
    /// The statements took longer than a query may take.
    #[error("the database did not answer in time")]
    TooSlow,
    /// No session can be opened, or it was lost; try again later.
    #[error("{0}")]
    Unreachable(String),
    /// The server ended the statement because of a conflict.
    #[error("{0}")]
    Ended(String),
    /// The server ended the statement because it took too long.
    #[error("{0}")]
    OutOfTime(String),
    /// A client requires what a newer primary has stored, or no primary can be reached; try again later.
    #[error("the primary that stored what the client requires is not reached")]
    NotReached,
    /// A client requires what lies beyond the end of the primary's WAL.
    #[error("the client requires a position that the primary has never reached")]
    NeverWritten,
    /// A table, or a column of one, does not exist yet.
    #[error("the database is not migrated yet")]
    NotMigrated,
    /// The server refuses the statement: a defect, or an altered schema.
    #[error("{0}")]
    Refused(String),
}

impl From<Error> for ReadError {
    fn from(error: Error) -> Self {
        let text = explain(&error);
        match error.code() {
            Some(&SqlState::QUERY_CANCELED) => ReadError::OutOfTime(text),
            Some(
                &SqlState::LOCK_NOT_AVAILABLE
                | &SqlState::T_R_SERIALIZATION_FAILURE
                | &SqlState::T_R_DEADLOCK_DETECTED,
            ) => ReadError::Ended(text),
            Some(&SqlState::UNDEFINED_TABLE) => ReadError::NotMigrated,
            Some(&SqlState::UNDEFINED_COLUMN) if !IS_MIGRATED.load(Ordering::Relaxed) => {
                ReadError::NotMigrated
            }
            Some(code) if is_unreachable(code) => ReadError::Unreachable(text),
            None if error.is_closed() || is_io(&error) => ReadError::Unreachable(text),
            _ => ReadError::Refused(text),
        }
    }
}

impl From<PoolError> for ReadError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => ReadError::Unreachable(explain(&error)),
            PoolError::Timeout(_) => ReadError::AllBusy,
            other => ReadError::Unreachable(other.to_string()),
        }
    }
}

/// Whether a code means that the server cannot serve: connections (08), resources (53), an operator's
/// intervention (57), a read-only server (25006).
fn is_unreachable(code: &SqlState) -> bool {
    ["08", "53", "57"].contains(&&code.code()[..2]) || *code == SqlState::READ_ONLY_SQL_TRANSACTION
}

fn is_io(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>())
}

/// How many sessions of the pool there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolCounts {
    /// Sessions that run a query.
    pub in_use: usize,
    /// Sessions that wait for a query.
    pub idle: usize,
    /// The most sessions that the pool opens.
    pub limit: usize,
}

/// The pool of sessions for queries.
#[derive(Debug, Clone)]
pub struct ReadPool(Pool);

impl ReadPool {
    /// Wraps a pool.
    pub const fn new(pool: Pool) -> Self {
        ReadPool(pool)
    }

    /// Makes a pool; it opens no session yet.
    ///
    /// # Errors
    /// The errors of the pool's builder.
    pub(super) fn open(
        opener: impl Connect + 'static,
        size: usize,
        within: Duration,
    ) -> Result<Self, BuildError> {
        let config = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let manager = Manager::from_connect(Config::new(), opener, config);
        let pool = Pool::builder(manager)
            .max_size(size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(within))
            .create_timeout(Some(within))
            .recycle_timeout(Some(within))
            .build()?;
        Ok(ReadPool(pool))
    }

    /// Counts the sessions, for the metrics.
    pub fn counts(&self) -> PoolCounts {
        let status = self.0.status();
        PoolCounts {
            in_use: status.size.saturating_sub(status.available),
            idle: status.available,
            limit: status.max_size,
        }
    }

    /// Runs a query in a session.
    ///
    /// Blocks: at most 5 s for a session and 35 s for the query
    /// Cancel: safe; an open transaction is rolled back
    ///
    /// # Errors
    /// [`ReadError`] if there is no session or the query takes too long; otherwise the query's own.
    pub async fn ask<T, E>(
        &self,
        question: impl AsyncFnOnce(&mut Client) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<ReadError>,
    {
        self.ask_within(WORK_WITHIN, question).await
    }

    /// Runs a query with a time limit of its own.
    ///
    /// # Errors
    /// As those of [`ReadPool::ask`].
    pub async fn ask_within<T, E>(
        &self,
        within: Duration,
        question: impl AsyncFnOnce(&mut Client) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<ReadError>,
    {
        let mut client = self.session(within.min(SESSION_WITHIN)).await?;
        match timeout(within, question(&mut client)).await {
            Ok(answer) => answer,
            Err(_) => {
                // Its statements still run, so no other query must wait behind them.
                drop(Object::take(client));
                Err(ReadError::TooSlow.into())
            }
        }
    }

    /// Checks that a session can be opened, without a query.
    pub async fn check(&self) -> Result<(), ReadError> {
        self.get().await.map(drop)
    }

    /// Takes a session, for work that bounds its own time.
    ///
    /// Blocks: at most 5 s
    pub async fn get(&self) -> Result<Client, ReadError> {
        self.session(SESSION_WITHIN).await
    }

    async fn session(&self, within: Duration) -> Result<Client, ReadError> {
        timeout(within, self.0.get())
            .await
            .map_err(|_| ReadError::AllBusy)?
            .map_err(ReadError::from)
    }
}

#[cfg(test)]
impl ReadPool {
    /// Closes the pool, so that a test's server can stop.
    pub(crate) fn close(&self) {
        self.0.close();
    }
}
