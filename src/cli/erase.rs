//! `wattgate erase`: removes everything that is stored about a vehicle.

use std::fmt::Write;

use crate::app::{AppError, Database};
use crate::config::DataConfig;
use crate::postgres::{Session, Target, Use, explain};
use crate::wal::storage::{DirectoryError, DirectoryView};

/// What the columns of the result count, in their order.
const COUNTED: [&str; 12] = [
    "vehicles",
    "readings",
    "rows of live status",
    "hourly rollups",
    "dirty hours",
    "sessions",
    "efficiencies of sessions",
    "ids of sessions",
    "readings in quarantine",
    "alerts",
    "mutes of alerts",
    "deliveries of alerts",
];

/// Erases a vehicle from the database, in one transaction.
///
/// No gateway may be running, because it would continue with the cached id, and store the readings that wait in
/// its log. Stored readings stay in the log's retained segments until a gateway starts with `--wal-retain 0B`.
///
/// Shape:  the answer, as text
/// Blocks: until the database has committed
///
/// # Errors
/// [`AppError`]: a gateway runs, the vehicle is unknown, or the database cannot be reached or refuses.
/// Nothing was erased.
pub async fn erase(config: &DataConfig, vehicle: &str) -> Result<String, AppError> {
    let wal_dir = config.wal_dir();
    // Locked until the end, so that no gateway starts on this directory meanwhile.
    let _held = match DirectoryView::new(&wal_dir) {
        Ok(view) => view.hold().map_err(|error| match error {
            DirectoryError::InUse(_) => AppError::Erase(format!(
                "a gateway is using {}: stop it first, so that its log is stored and no ids stay in its \
                 memory",
                config.dir.display()
            )),
            other => other.into(),
        })?,
        // A database on a server, and no gateway on this machine.
        Err(_) => None,
    };
    let database = Database::reach_guarded(config).await?;
    let result = erase_from(&database.target, vehicle).await;
    database.close().await;
    result
}

async fn erase_from(target: &Target, vehicle: &str) -> Result<String, AppError> {
    let failed = |e: tokio_postgres::Error| AppError::Database(explain(&e));
    let mut session = target
        .connect("wattgate erase", Use::Command)
        .await
        .map_err(failed)?;
    let others = sql!("erase_others");
    let others = session.client().query(others, &[]).await.map_err(failed)?;
    if !others.is_empty() {
        let places: Vec<String> = others.iter().map(|row| row.get(0)).collect();
        return Err(AppError::Erase(format!(
            "gateways are writing to this database, from {}: stop all of them first",
            places.join(", ")
        )));
    }
    let counts = erased(&mut session, vehicle).await.map_err(failed)?;
    if counts.iter().sum::<i64>() == 0 {
        return Err(AppError::Erase(format!(
            "nothing is stored about vehicle {vehicle}: check the id"
        )));
    }
    let mut answer = format!("erased {vehicle}:");
    for (count, what) in counts.iter().zip(COUNTED).filter(|(count, _)| **count > 0) {
        // Writing to a string does not fail.
        write!(answer, "\n{count:>12} {what}").ok();
    }
    answer.push_str(
        "\nstart each gateway once with --wal-retain 0B, which deletes what its log still retains; \
         backups keep the vehicle until they are deleted",
    );
    Ok(answer)
}

async fn erased(session: &mut Session, vehicle: &str) -> Result<Vec<i64>, tokio_postgres::Error> {
    let sql = sql!("erase_vehicle");
    let transaction = session.client_mut().transaction().await?;
    let row = transaction.query_one(sql, &[&vehicle]).await?;
    transaction.commit().await?;
    (0..COUNTED.len())
        .map(|column| row.try_get(column))
        .collect()
}
