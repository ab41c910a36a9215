//! Whether queries reach the database.
//!
//! Queries use a pool of their own. A server or a pooler may refuse the pool's sessions although
//! the writers store, so the pool is tested separately.

use std::sync::Arc;
use std::time::Duration;

use crate::http::Health;
use crate::http::api::health::DatabaseState;
use crate::outage::Outage;
use crate::postgres::{ReadError, ReadPool};

/// How often the pool is tested.
const EVERY: Duration = Duration::from_secs(1);
/// How long an answer may take, the connection included.
const WITHIN: Duration = Duration::from_secs(10);

/// Runs the smallest query through the pool; `Err` holds why it failed.
///
/// Blocks: at most [`WITHIN`], and 5 s for a session
pub(crate) async fn ask(reads: &ReadPool) -> Result<(), String> {
    // This also detects that the pool's sessions search another schema than the writers.
    let sql = sql!("database_id");
    let answer = reads.ask_within(WITHIN, async |client| {
        client.query_opt(sql, &[]).await.map_err(ReadError::from)
    });
    match answer.await {
        // Every session is in use, which shows that sessions can be opened.
        Ok(_) | Err(ReadError::AllBusy) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Tests the pool at intervals and reports the result, until it is cancelled.
///
/// Cancel: safe
pub(super) async fn watch(reads: ReadPool, health: Arc<Health>) {
    let mut outage = Outage::default();
    loop {
        match ask(&reads).await {
            Ok(()) => {
                outage.ends();
                health.set_questions(DatabaseState::Up);
            }
            Err(why) => {
                // Before the migrations there are no tables, and readiness reports that.
                if health.is_database_up() && outage.changes(&why) {
                    tracing::warn!(error = why, "queries do not reach the database");
                }
                health.set_questions(DatabaseState::Down(why));
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}
