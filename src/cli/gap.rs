//! Gaps: readings that the database lacks and the log no longer holds.

use std::path::Path;

use tokio_postgres::Client;
use uuid::Uuid;

use crate::app::{AppError, Database};
use crate::config::DataConfig;
use crate::postgres::{Use, explain};
use crate::wal::catalog::parse_segment_name;
use crate::wal::progress::Gap;
use crate::wal::retired_runs;
use crate::wal::retired_runs::Remembered;
use crate::wal::storage::DirectoryView;
use crate::writer::accepted::{accept, not_accepted};
use crate::writer::restored::{counted, lacking};

/// Finds the gaps between a log and its database. A gateway may be running.
///
/// # Errors
/// [`AppError`]: the log's directory cannot be read, or the database refuses.
pub(crate) async fn gaps(
    client: &Client,
    wal_dir: &Path,
    database: Uuid,
) -> Result<Vec<Gap>, AppError> {
    let refused = |e: &dyn std::fmt::Display| AppError::Wal(format!("{}: {e}", wal_dir.display()));
    let view = DirectoryView::new(wal_dir).map_err(|e| refused(&e))?;
    let names = view.list().map_err(|e| refused(&e))?;
    let mut present: Vec<Uuid> = (names.iter())
        .filter_map(|name| parse_segment_name(name).map(|(_, id, _)| id))
        .collect();
    present.dedup();
    let mut gone = Vec::new();
    if names.iter().any(|name| name == retired_runs::FILE_NAME) {
        let file = view
            .open(retired_runs::FILE_NAME)
            .map_err(|e| refused(&e))?;
        gone = Remembered::read(&*file)
            .map_err(|e| refused(&e))?
            .into_stored_into(database);
        gone.retain(|run| !present.contains(&run.id));
    }
    let failed = |e: tokio_postgres::Error| AppError::Database(explain(&e));
    let mut gaps = counted(client, &present).await.map_err(failed)?;
    let lacking = lacking(client, &gone).await.map_err(failed)?;
    gaps.extend(lacking.iter().map(Gap::from));
    Ok(gaps)
}

/// `wattgate wal accept-gap`: accepts the readings of every gap as lost, so that gateways become ready
/// again.
///
/// # Errors
/// [`AppError`]: nothing was accepted.
pub(crate) async fn accept_all(config: &DataConfig, wal_dir: &Path) -> Result<String, AppError> {
    let database = Database::reach_guarded(config).await?;
    let found = find(&database, wal_dir).await;
    database.close().await;
    let found = found?;
    let readings = not_accepted(wal_dir, &found);
    if readings == 0 {
        return Ok("there is no gap to accept".to_owned());
    }
    accept(wal_dir, &found).map_err(|e| AppError::Wal(format!("{}: {e}", wal_dir.display())))?;
    Ok(format!("{readings} readings are given up as lost"))
}

async fn find(database: &Database, wal_dir: &Path) -> Result<Vec<Gap>, AppError> {
    let failed = |e: tokio_postgres::Error| AppError::Database(explain(&e));
    let session = database
        .target
        .connect("wattgate wal accept-gap", Use::Command)
        .await
        .map_err(failed)?;
    let client = session.client();
    let sql = sql!("database_id");
    let row = client.query_one(sql, &[]).await.map_err(failed)?;
    gaps(client, wal_dir, row.get(0)).await
}
