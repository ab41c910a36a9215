//! `wattgate quarantine`: lists quarantined readings, and retries them.

use std::fmt::Write;

use serde_json::{Map, Value};

use crate::app::{AppError, Database};
use crate::config::{DataConfig, QuarantineArgs, QuarantineCommand, StreamArg};
use crate::postgres::{Target, Use, explain};
use crate::reading::{Stream, Timestamp};
use crate::writer::WriterOptions;
use crate::writer::retry::{Filter, retry};
use crate::writer::session::WriterSession;

/// Lists or retries quarantined readings.
///
/// Shape:  the answer, as text or with a JSON object a line
/// Blocks: until the database has answered
///
/// # Errors
/// [`AppError`]: the database cannot be reached, or refuses.
pub async fn quarantine(
    config: &DataConfig,
    command: &QuarantineCommand,
) -> Result<String, AppError> {
    let database = Database::reach_guarded(config).await?;
    let result = match command {
        QuarantineCommand::List {
            limit, which, json, ..
        } => list(&database.target, *limit, &filter(which), *json).await,
        QuarantineCommand::Retry { which, .. } => retried(&database.target, &filter(which)).await,
    };
    database.close().await;
    result
}

fn filter(which: &QuarantineArgs) -> Filter {
    Filter {
        stream: which.stream.map(|stream| match stream {
            StreamArg::Meter => Stream::Meter,
            StreamArg::Vehicle => Stream::Vehicle,
        }),
        device: which.device.clone(),
    }
}

async fn list(
    target: &Target,
    limit: u32,
    filter: &Filter,
    json: bool,
) -> Result<String, AppError> {
    let failed = |e: tokio_postgres::Error| AppError::Database(explain(&e));
    let session = target
        .connect("wattgate quarantine", Use::Command)
        .await
        .map_err(failed)?;
    let client = session.client();
    let sql = sql!("quarantine_list");
    let stream = filter.stream.map(Stream::name);
    let rows = client
        .query(sql, &[&stream, &filter.device, &i64::from(limit)])
        .await
        .map_err(failed)?;
    let mut lines = Vec::with_capacity(rows.len() + 1);
    for row in &rows {
        let [stream, device, sqlstate, reason] =
            [1, 2, 4, 5].map(|column| row.get::<_, String>(column));
        let at: Timestamp = row.get(3);
        // One reading at a time, so that each query searches one partition.
        let sql = match stream.as_str() {
            "meter" => sql!("quarantine_stored_meter"),
            _ => sql!("quarantine_stored_vehicle"),
        };
        let stored = client.query_opt(sql, &[&device, &at]).await;
        let stored: Option<String> = stored.map_err(failed)?.map(|row| row.get(0));
        if json {
            lines.push(with_stored(row.get(0), stored.as_deref())?);
            continue;
        }
        let refused: String = row.get(7);
        lines.push(format!(
            "{at}  {stream} {device}  {sqlstate}  {reason}\n    refused: {refused}"
        ));
        if let Some(stored) = stored {
            lines.push(format!("    stored:  {stored}"));
        }
    }
    let all: i64 = rows.first().map_or(0, |row| row.get(6));
    let mut answer = lines.join("\n");
    if !json {
        match (rows.len(), all) {
            (0, _) => answer.push_str("nothing is in quarantine"),
            (shown, all) if (shown as i64) < all => {
                // Writing to a string does not fail.
                write!(answer, "\n{shown} of {all} are shown; --limit shows more").ok();
            }
            _ => {}
        }
    }
    Ok(answer)
}

/// A reading's JSON with the stored reading beside it. `null` means that none is stored.
fn with_stored(reading: &str, stored: Option<&str>) -> Result<String, AppError> {
    let unreadable = |e: serde_json::Error| AppError::Database(e.to_string());
    let mut reading: Map<String, Value> = serde_json::from_str(reading).map_err(unreadable)?;
    let stored = stored.map(serde_json::from_str).transpose();
    let stored = stored.map_err(unreadable)?.unwrap_or(Value::Null);
    reading.insert("stored".to_owned(), stored);
    serde_json::to_string(&reading).map_err(unreadable)
}

async fn retried(target: &Target, filter: &Filter) -> Result<String, AppError> {
    let work = async {
        let within = WriterOptions::ANSWER_WITHIN;
        let mut session = WriterSession::open(target, "wattgate quarantine", within).await?;
        retry(&mut session, filter).await
    };
    let sum = work.await.map_err(|e| AppError::Database(e.to_string()))?;
    Ok(format!(
        "{} stored, {} were already stored, {} stay in quarantine",
        sum.stored, sum.duplicates, sum.left
    ))
}
