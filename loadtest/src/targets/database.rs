//! Questions to the database of a gateway that is measured.

use tokio_postgres::NoTls;
use tokio_postgres::types::ToSql;

use super::TargetsError;

/// The share of lookups in history's indexes that memory served.
pub(super) const INDEX_HITS: &str = include_str!("../../sql/index_hits.sql");

/// Queries one row, over a connection of its own.
///
/// # Errors
/// The database cannot be reached, or returns another number of rows.
pub(super) fn query_one(
    url: &str,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<tokio_postgres::Row, TargetsError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        // Its error shows in the query that was on it.
        tokio::spawn(async move { drop(connection.await) });
        Ok(client.query_one(sql, parameters).await?)
    })
}
