//! Whether questions reach the database.
//!
//! They take another way than the writers: a pool of their own, whose sessions a server or a pooler
//! may refuse while the writers store. So the way itself is tried, and not concluded from theirs.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Object, Pool, PoolError, TimeoutType};
use tokio::time::timeout;

use crate::http::Health;
use crate::http::api::health::DatabaseState;
use crate::postgres::explain;

/// How often the way is tried.
const EVERY: Duration = Duration::from_secs(1);
/// How long an answer may take, the connection included.
const WITHIN: Duration = Duration::from_secs(10);

/// Asks the smallest question through the pool; `Err` says why there is no answer.
///
/// Blocks: at most [`WITHIN`]
pub(super) async fn ask(pool: &Pool) -> Result<(), String> {
    let silent = || format!("the database did not answer within {WITHIN:?}");
    let client = match timeout(WITHIN, pool.get()).await {
        Ok(Ok(client)) => client,
        // Every connection is answering a question: this way is open.
        Ok(Err(PoolError::Timeout(TimeoutType::Wait))) => return Ok(()),
        Ok(Err(PoolError::Backend(error))) => return Err(explain(&error)),
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(silent()),
    };
    // Where the tables are not found, the sessions of the pool look in another schema.
    let sql = sql!("database_id");
    match timeout(WITHIN, client.query_opt(sql, &[])).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(explain(&error)),
        Err(_) => {
            // The statement is still on its way in it: no question is to wait behind it.
            drop(Object::take(client));
            Err(silent())
        }
    }
}

/// Tries the way again and again, and reports it, until it is cancelled.
///
/// Cancel: safe
pub(super) async fn watch(pool: Pool, health: Arc<Health>) {
    let mut logged = String::new();
    loop {
        match ask(&pool).await {
            Ok(()) => {
                logged.clear();
                health.set_questions(DatabaseState::Up);
            }
            Err(why) => {
                // Before the migrations there is nothing to be asked, and readiness says so.
                if logged != why && health.is_database_up() {
                    tracing::warn!(error = why, "questions do not reach the database");
                    logged.clone_from(&why);
                }
                health.set_questions(DatabaseState::Down(why));
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}
