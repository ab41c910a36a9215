//! Readings that are set aside: those that the database refuses, and those that contradict a stored reading.

use tokio_postgres::{Client, Error};

use super::rows::{HistoryRow, Origin};
use super::session::Claim;
use crate::reading::Timestamp;

/// The SQLSTATE under which contradictions are stored: unique_violation.
pub const REPEAT_STATE: &str = "23505";

/// A row that is set aside, and why.
#[derive(Debug, Clone)]
pub struct Quarantined<R> {
    row: R,
    sqlstate: String,
    reason: String,
}

impl<R: HistoryRow> Quarantined<R> {
    /// Sets a row aside with PostgreSQL's error.
    pub fn refused(row: R, sqlstate: String, reason: String) -> Self {
        Quarantined {
            row,
            sqlstate,
            reason,
        }
    }

    /// Sets a row aside because another reading of the same device and time is stored.
    pub fn contradiction(row: R) -> Self {
        let reason = "another reading of this device and time, with other values, is stored";
        Quarantined::refused(row, REPEAT_STATE.to_owned(), reason.to_owned())
    }

    /// The position of the row in the log.
    pub fn origin(&self) -> Origin {
        self.row.origin()
    }
}

/// Writes rows to the quarantine, in the open transaction.
pub async fn quarantine<R: HistoryRow>(
    client: &Client,
    claim: &Claim,
    rows: &[Quarantined<R>],
) -> Result<(), Error> {
    for some in rows.chunks(1000) {
        let stream = R::STREAM.name();
        let positions: Vec<i64> = some.iter().map(|q| q.origin().position.to_i64()).collect();
        let indexes: Vec<i32> = some.iter().map(|q| q.origin().index as i32).collect();
        let devices: Vec<i32> = some.iter().map(|q| q.row.key().0).collect();
        let times: Vec<Timestamp> = some.iter().map(|q| q.row.key().1).collect();
        let readings: Vec<String> = some.iter().map(|q| q.row.to_json().to_string()).collect();
        let states: Vec<&str> = some.iter().map(|q| q.sqlstate.as_str()).collect();
        let reasons: Vec<&str> = some.iter().map(|q| q.reason.as_str()).collect();
        let received: Vec<Timestamp> = some.iter().map(|q| q.origin().received_at).collect();
        let named: Vec<[i32; 2]> = some.iter().map(|q| q.row.named()).collect();
        let meters: Vec<i32> = named.iter().map(|n| n[0]).collect();
        let sessions: Vec<i32> = named.iter().map(|n| n[1]).collect();
        client
            .execute(
                sql!("quarantine"),
                &[
                    &claim.run_id,
                    &claim.shard,
                    &stream,
                    &positions,
                    &indexes,
                    &devices,
                    &times,
                    &readings,
                    &states,
                    &reasons,
                    &received,
                    &meters,
                    &sessions,
                ],
            )
            .await?;
    }
    Ok(())
}
