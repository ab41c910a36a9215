//! Maps database errors to problems, and logs each once.

use super::problem::{Kind, Problem};
use crate::analytics::AskError;
use crate::postgres::ReadError;

/// How soon to retry. A database needs a few seconds to restart.
const RETRY_SECONDS: u64 = 5;
/// When to retry if the primary is looked for: every host is looked at once a second.
const NOT_REACHED_RETRY_SECONDS: u64 = 1;
/// How soon to retry if other queries use up the memory.
const BUSY_RETRY_SECONDS: u64 = 2;
/// How soon to retry if a report on the fleet is still being computed.
const SLOW_RETRY_SECONDS: u64 = 15;

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match &error {
            ReadError::AllBusy => unavailable("all connections to the database are busy"),
            ReadError::TooSlow => unavailable("the database did not answer in time"),
            ReadError::NotMigrated => unavailable("the database is being prepared"),
            ReadError::Unreachable(_) => {
                tracing::warn!(%error, "the database cannot be reached for a request");
                unavailable("the database cannot be reached")
            }
            ReadError::Ended(_) | ReadError::OutOfTime(_) => {
                tracing::warn!(%error, "the database ended a request's statement");
                unavailable("the database is too busy")
            }
            ReadError::NotReached => {
                let detail = "the gateway does not reach the primary that Wattgate-Read-After is of; send the \
                              request again";
                Problem::new(Kind::DatabaseUnavailable, detail)
                    .retry_after(NOT_REACHED_RETRY_SECONDS)
            }
            ReadError::NeverWritten => {
                let detail = "Wattgate-Read-After is beyond everything that the database has stored; send a value \
                              that a response returned";
                Problem::new(Kind::BadParameter, detail)
            }
            ReadError::Refused(_) => {
                tracing::error!(%error, "the database refused a request's statement");
                Problem::new(Kind::Internal, "the database refused a statement")
            }
        }
    }
}

impl From<AskError> for Problem {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Database(error) => ReadError::from(error).into(),
            AskError::Read(error) => error.into(),
            AskError::TooManyReadings => {
                Problem::new(Kind::BadParameter, error.to_string()).code("window_too_large")
            }
            AskError::Busy => {
                Problem::new(Kind::Overloaded, error.to_string()).retry_after(BUSY_RETRY_SECONDS)
            }
            AskError::TooSlow => {
                Problem::new(Kind::Overloaded, error.to_string()).retry_after(SLOW_RETRY_SECONDS)
            }
            AskError::Failed => Problem::new(Kind::Internal, error.to_string()),
        }
    }
}

fn unavailable(detail: &'static str) -> Problem {
    Problem::new(Kind::DatabaseUnavailable, detail).retry_after(RETRY_SECONDS)
}
