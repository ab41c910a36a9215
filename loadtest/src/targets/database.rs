//! Queries on the database of a gateway under measurement.

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls};

use super::TargetsError;
use crate::processor;

/// The share of index blocks of history that were found in memory, 0 to 1.
pub(super) const INDEX_HITS: &str = include_str!("../../sql/index_hits.sql");

/// The name of PostgreSQL's processes.
const PROCESS: &str = "postgres";

/// Queries one row on a new connection.
///
/// # Errors
/// The database is unreachable, or returns another number of rows.
pub(super) fn query_one(
    url: &str,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<tokio_postgres::Row, TargetsError> {
    on(url, async |client| client.query_one(sql, parameters).await)
}

/// Queries rows of one number each, on a new connection.
///
/// # Errors
/// As for [`query_one`].
pub(super) fn query_pids(url: &str, sql: &str) -> Result<Vec<i32>, TargetsError> {
    let rows = on(url, async |client| client.query(sql, &[]).await)?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Runs a statement on a new connection.
///
/// # Errors
/// The database is unreachable, or refuses the statement.
pub(super) fn execute(url: &str, sql: &str) -> Result<(), TargetsError> {
    on(url, async |client| client.batch_execute(sql).await)
}

/// The postmaster, which is the parent of every session, if the server is on this machine.
///
/// # Errors
/// As for [`query_one`].
pub(super) fn postmaster(url: &str) -> Result<Option<i32>, TargetsError> {
    on(url, async |client| {
        let row = client.query_one("select pg_backend_pid()", &[]).await?;
        // Looked up while the session is running.
        Ok(processor::parent_named(row.get(0), PROCESS))
    })
}

fn on<T>(
    url: &str,
    ask: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
) -> Result<T, TargetsError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        // A connection error shows up in the query that uses the connection.
        tokio::spawn(async move { drop(connection.await) });
        Ok(ask(&client).await?)
    })
}
