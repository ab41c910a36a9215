//! Whether questions reach the database.
//!
//! They take another way than the writers: a pool of their own, whose sessions a server or a pooler
//! may refuse while the writers store. So the way itself is tried, and not concluded from theirs.

use std::sync::Arc;
use std::time::Duration;

use crate::http::Health;
use crate::http::api::health::DatabaseState;
use crate::outage::Outage;
use crate::postgres::{ReadError, ReadPool};

/// How often the way is tried.
const EVERY: Duration = Duration::from_secs(1);
/// How long an answer may take, the connection included.
const WITHIN: Duration = Duration::from_secs(10);

/// Asks the smallest question through the pool; `Err` says why there is no answer.
///
/// Blocks: at most [`WITHIN`], and 5 s for a session
pub(crate) async fn ask(reads: &ReadPool) -> Result<(), String> {
    // Where the tables are not found, the sessions of the pool look in another schema.
    let sql = sql!("database_id");
    let asked = reads.ask_within(WITHIN, async |client| {
        client.query_opt(sql, &[]).await.map_err(ReadError::from)
    });
    match asked.await {
        // Every session is answering a question: this way is open.
        Ok(_) | Err(ReadError::AllBusy) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Tries the way again and again, and reports it, until it is cancelled.
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
                // Before the migrations there is nothing to be asked, and readiness says so.
                if health.is_database_up() && outage.changes(&why) {
                    tracing::warn!(error = why, "questions do not reach the database");
                }
                health.set_questions(DatabaseState::Down(why));
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}
