//! The tasks that live as long as the gateway.
//!
//! None of them ends by itself. If one panicked or returned unnoticed, alerts would no longer open,
//! hours would no longer be rolled up, or keys would no longer be revoked. So the gateway logs the
//! name of the first part that ends, shuts down cleanly and exits with an error; a service manager
//! starts it again. The log's two threads report their panics as a failure of the log.

use std::collections::HashMap;
use std::future::{Future, pending};

use tokio::task::{Id, JoinSet};

use super::AppError;
use crate::failpoint;

/// The tasks of a gateway, by name. Their number is fixed when it starts.
#[derive(Default)]
pub(super) struct Parts {
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Parts {
    /// Starts a part that never returns by itself.
    pub(super) fn start(
        &mut self,
        name: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let task = self.tasks.spawn(failpoint::part(name, work));
        self.names.insert(task.id(), name);
    }

    /// Waits until a part has ended by itself. Without parts it never returns.
    ///
    /// Cancel: safe
    pub(super) async fn ended(&mut self) -> AppError {
        let Some(ended) = self.tasks.join_next_with_id().await else {
            return pending().await;
        };
        let (id, how) = match ended {
            Ok((id, ())) => (id, "it returned".to_owned()),
            Err(error) => (error.id(), error.to_string()),
        };
        ended_by_itself(self.names.get(&id).copied().unwrap_or("a part"), how)
    }

    /// Cancels all parts.
    ///
    /// Blocks: until each has reached its next await
    pub(super) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// Logs which part has ended and how, and returns the error that the process exits with.
pub(super) fn ended_by_itself(part: &str, how: String) -> AppError {
    tracing::error!(
        part,
        how,
        "a part of the gateway ended unexpectedly; the gateway is shutting down"
    );
    AppError::PartEnded {
        part: part.to_owned(),
        how,
    }
}
