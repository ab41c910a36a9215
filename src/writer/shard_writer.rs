//! One shard writer: drains its shards of every run, oldest run first.
//!
//! A writer has no queue of its own. The log is the buffer, and a slow or unreachable database only makes the
//! cursor lag. After any failure a writer drops its session with all cached state, connects again, and starts from
//! the checkpoint in the database (invariant 3).

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::backoff;
use super::backoff::{backoff, random_fraction};
use super::binding::Binding;
use super::drain::{Drain, Resources};
use super::pace::Pace;
use super::session::{SessionError, Settled, WriterSession};
use super::{ShardState, restored};
use crate::metrics;
use crate::postgres::Target;
use crate::wal::catalog::Run;

/// One shard writer and its resources.
pub(super) struct ShardWriter {
    /// Its number. It drains the shards `s` with `s % writers == number`.
    pub(super) number: u16,
    pub(super) writers: u16,
    pub(super) target: Target,
    pub(super) binding: Arc<Binding>,
    pub(super) resources: Resources,
    pub(super) settled: Arc<Settled>,
    pub(super) state: watch::Sender<ShardState>,
}

impl ShardWriter {
    /// Runs until the log has ended and everything in it is stored.
    pub(super) async fn run(self) {
        let mut pace = Pace::new(&self.resources.shares);
        loop {
            let began = Instant::now();
            // A panic ends the session but not the writer, whose shards would otherwise stop forever.
            let session = AssertUnwindSafe(self.session(&mut pace)).catch_unwind();
            let error = match session.await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error,
                Err(_) => SessionError::Panicked,
            };
            pace.failed(&error);
            metrics::batch_retried(error.sqlstate());
            let text = error.to_string();
            if began.elapsed() > backoff::BACKOFF_MOST {
                pace.failures = 0;
            }
            let down = ShardState::Down(text.clone());
            let was_up = self.state.send_replace(down).is_up();
            if was_up || pace.failures == 0 {
                tracing::warn!(
                    writer = self.number,
                    error = text,
                    "a writer cannot reach the database; readings wait in the log"
                );
            }
            let pause = backoff(pace.failures, random_fraction());
            pace.failures += 1;
            tokio::time::sleep(pause).await;
        }
    }

    /// Connects and drains every shard in order. Returns once the log has ended.
    async fn session(&self, pace: &mut Pace) -> Result<(), SessionError> {
        let Resources {
            source,
            options,
            shares,
            ..
        } = &self.resources;
        let name = format!("wattgate writer {}", self.number);
        let mut session = WriterSession::open(&self.target, &name, options.answer_within).await?;
        session.bound(shares);
        let binding = Arc::clone(&self.binding);
        let id = session.database_id;
        spawn_blocking(move || binding.check(id))
            .await
            .map_err(|_| SessionError::Panicked)??;
        session.settle(&self.settled).await?;
        if !self.state.send_replace(ShardState::Up).is_up() {
            tracing::info!(
                writer = self.number,
                "a writer has connected to the database"
            );
        }
        // Retired runs are listed before this list, so that a run that is retired in between is in both.
        let runs = source.runs();
        if self.number == 0 {
            restored::compare(&session, source).await?;
        }
        for (at, run) in runs.iter().enumerate() {
            for shard in (self.number..run.shards).step_by(usize::from(self.writers)) {
                tokio::select! {
                    () = self.wait_for_earlier(&runs[..at], run) => {}
                    () = session.ended() => return Err(SessionError::Ended),
                }
                let drain = Drain::begin(&self.resources, &mut session, run, shard);
                if let Some(drain) = drain.await? {
                    drain.run(pace).await?;
                }
            }
        }
        Ok(())
    }

    /// Waits until earlier runs with another number of shards are stored, because each device's readings must be
    /// stored in the order in which they were accepted. With the same number of shards, a device always belongs to
    /// the same writer.
    async fn wait_for_earlier(&self, earlier: &[Run], run: &Run) {
        let progress = self.resources.progress();
        let mut finished = progress.watch_finished();
        for before in earlier.iter().filter(|before| before.shards != run.shards) {
            let is_done = |_: &u64| progress.is_run_done(before.sequence);
            // The sender cannot be dropped, because `self` holds the progress.
            drop(finished.wait_for(is_done).await);
        }
    }
}
