//! A connection from the read pool, within a time, and what the database's errors mean to a
//! client.

use std::time::Duration;

use deadpool_postgres::{Client, Object, Pool, PoolError};
use tokio::time::{error::Elapsed, timeout};
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use super::problem::{Kind, Problem};

/// How long a request waits for a connection.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request's statements take at most, all together. Why 35 s: the pool ends a
/// statement at 30 s; this is for a network that swallows the answer.
pub(crate) const WORK_TIMEOUT: Duration = Duration::from_secs(35);
/// When to come again: a database that restarts takes some seconds.
const RETRY_SECONDS: u64 = 5;

/// Takes a connection from the pool.
///
/// Blocks: at most [`CLIENT_TIMEOUT`]
pub(crate) async fn client(pool: &Pool) -> Result<Client, Problem> {
    match timeout(CLIENT_TIMEOUT, pool.get()).await {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(error)) => {
            let error = match &error {
                PoolError::Backend(error) => explained(error),
                other => other.to_string(),
            };
            tracing::warn!(error, "no connection to the database for a request");
            Err(unavailable("the database cannot be reached"))
        }
        Err(Elapsed { .. }) => Err(unavailable("all connections to the database are busy")),
    }
}

/// Ends a request's work with a connection: back to the pool, or away where it is stuck.
pub(crate) fn finish<T, E>(
    client: Client,
    worked: Result<Result<T, E>, Elapsed>,
) -> Result<T, Problem>
where
    E: Into<Problem>,
{
    match worked {
        Ok(done) => done.map_err(Into::into),
        Err(Elapsed { .. }) => {
            // Statements are still on their way in it: nobody else is to wait behind them.
            drop(Object::take(client));
            Err(too_slow())
        }
    }
}

/// Whether a transaction may simply be tried again.
pub(crate) fn is_transient(error: &Error) -> bool {
    let transient = [
        &SqlState::T_R_SERIALIZATION_FAILURE,
        &SqlState::T_R_DEADLOCK_DETECTED,
    ];
    error.code().is_some_and(|code| transient.contains(&code))
}

impl From<Error> for Problem {
    /// What an error means to a client; it is logged here, once.
    fn from(error: Error) -> Self {
        let busy = [
            &SqlState::QUERY_CANCELED,
            &SqlState::LOCK_NOT_AVAILABLE,
            &SqlState::T_R_SERIALIZATION_FAILURE,
            &SqlState::T_R_DEADLOCK_DETECTED,
        ];
        let text = explained(&error);
        match error.code() {
            Some(code) if busy.contains(&code) => {
                tracing::warn!(
                    error = text,
                    sqlstate = code.code(),
                    "a request's statement was ended"
                );
                unavailable("the database is too busy")
            }
            // Connections (08), resources (53), operators (57P), a server that only reads (25006).
            Some(code)
                if ["08", "53", "57"].contains(&&code.code()[..2]) || code.code() == "25006" =>
            {
                tracing::warn!(
                    error = text,
                    sqlstate = code.code(),
                    "the database refuses a request"
                );
                unavailable("the database cannot be reached")
            }
            // A table that is not there yet: the migrations have not been applied.
            Some(&SqlState::UNDEFINED_TABLE) => unavailable("the database is being prepared"),
            None if error.is_closed() || is_io(&error) => {
                tracing::warn!(error = text, "the connection to the database was lost");
                unavailable("the database cannot be reached")
            }
            _ => {
                tracing::error!(error = text, "a statement of a request failed");
                Problem::new(Kind::Internal, "the database refused a statement")
            }
        }
    }
}

/// PostgreSQL's own message, or all that the driver knows: its own text names neither. (The same as
/// `postgres::explain`, which the edge does not import.)
pub(crate) fn explained(error: &Error) -> String {
    if let Some(refused) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", refused.message(), refused.code().code());
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

fn is_io(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>())
}

/// The problem of statements that took longer than a request has.
pub(crate) fn too_slow() -> Problem {
    unavailable("the database did not answer in time")
}

fn unavailable(detail: &'static str) -> Problem {
    Problem::new(Kind::DatabaseUnavailable, detail).retry_after(RETRY_SECONDS)
}
