//! Queries to the database of a gateway that is measured.

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls};

use super::TargetsError;
use crate::processor;

/// The share of lookups in history's indexes that memory served.
pub(super) const INDEX_HITS: &str = include_str!("../../sql/index_hits.sql");

/// What PostgreSQL's processes are called.
const PROCESS: &str = "postgres";

/// Queries one row, over a connection of its own.
///
/// # Errors
/// The database cannot be reached, or returns another number of rows.
pub(super) fn query_one(
    url: &str,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<tokio_postgres::Row, TargetsError> {
    on(url, async |client| client.query_one(sql, parameters).await)
}

/// Queries rows with one number each, over a connection of its own.
///
/// # Errors
/// As [`query_one`].
pub(super) fn query_pids(url: &str, sql: &str) -> Result<Vec<i32>, TargetsError> {
    let rows = on(url, async |client| client.query(sql, &[]).await)?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Runs a statement, over a connection of its own.
///
/// # Errors
/// The database cannot be reached, or refuses the statement.
pub(super) fn execute(url: &str, sql: &str) -> Result<(), TargetsError> {
    on(url, async |client| client.batch_execute(sql).await)
}

/// The first process of the server, if it is on this machine: the parent of a session.
///
/// # Errors
/// As [`query_one`].
pub(super) fn postmaster(url: &str) -> Result<Option<i32>, TargetsError> {
    on(url, async |client| {
        let row = client.query_one("select pg_backend_pid()", &[]).await?;
        // Looked up while the session runs.
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
        // An error of the connection shows in the query that was using it.
        tokio::spawn(async move { drop(connection.await) });
        Ok(ask(&client).await?)
    })
}
