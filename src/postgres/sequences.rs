//! Repairs sequences of ids that are behind the ids in their tables.
//!
//! Logical replication copies rows but not sequences, so a promoted subscriber would give new devices ids that are
//! already taken. The same happens to a table that was filled by hand.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

use super::explain;

/// The tables whose ids come from a sequence and are unique by themselves. In each, an index finds the greatest id.
const TABLES: [&str; 6] = [
    "meters",
    "vehicles",
    "session_names",
    "alerts",
    "alert_deliveries",
    "alert_mutes",
];

/// One repair at a time. Otherwise one that has read an older id could set a sequence back.
const LOCK_KEY: i64 = i64::from_be_bytes(*b"wg-ids\0\0");

/// Moves every sequence that is behind its table to the greatest id there.
///
/// Blocks: while another session repairs
/// Cancel: safe
///
/// # Errors
/// PostgreSQL's errors, except that a missing right is only logged; no sequence is ever moved back.
pub async fn repair(client: &Client) -> Result<(), Error> {
    let tables = TABLES.map(|table| {
        format!(
            "select '{table}', pg_catalog.setval(s.sequence, s.newest)
             from (
                 select (select max(id) from {table}) as newest,
                     pg_catalog.pg_get_serial_sequence('{table}', 'id')::regclass as sequence
             ) as s
             where s.newest > coalesce(pg_catalog.pg_sequence_last_value(s.sequence), 0)"
        )
    });
    // One message is one transaction. Its second statement sees the result of the previous repair.
    let sql = format!(
        "select pg_catalog.pg_advisory_xact_lock({LOCK_KEY}); {}",
        tables.join(" union all ")
    );
    let answer = match client.simple_query(&sql).await {
        // Without the repair, an insert that draws an id already taken fails.
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            tracing::warn!(
                error = explain(&error),
                "cannot compare the sequences of ids with their tables; grant the gateway's user usage \
                 and update on the sequences"
            );
            return Ok(());
        }
        answer => answer?,
    };
    for message in answer {
        if let SimpleQueryMessage::Row(row) = message
            && row.len() == 2
            && let (Some(table), Some(newest)) = (row.get(0), row.get(1))
        {
            tracing::warn!(
                table,
                newest,
                "the sequence of ids was behind the ids in the table, as in a promoted logical subscriber; it was \
                 moved forward"
            );
        }
    }
    Ok(())
}
