//! One writer: it takes its shards of every run, oldest run first, from the checkpoint to the end.
//!
//! A writer has no queue of its own: the log is the buffer, and a database that is slow or away
//! is only a cursor that falls behind. Whatever goes wrong, it drops its session with everything
//! learned in it, connects again, and begins from the checkpoint in the database (invariant 3).

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::task::spawn_blocking;

use super::backoff;
use super::backoff::{backoff, linger, random_fraction};
use super::batch::{Batch, arrange};
use super::binding::Binding;
use super::live::Newest;
use super::pace::Pace;
use super::session::{Claim, SessionError, WriterSession};
use super::shares::Shares;
use super::store::{Committed, Work, ensure_partitions, in_history, store};
use super::strategy::Strategy;
use super::{ShardState, WriterOptions, restored};
use crate::failpoint::{Point, reach};
use crate::metrics;
use crate::postgres::Target;
use crate::postgres::registry;
use crate::postgres::registry::Registry;
use crate::reading::Timestamp;
use crate::wal::LogSource;
use crate::wal::catalog::Run;
use crate::wal::frame::Position;
use crate::wal::progress::{Lane, Progress};
use crate::wal::reader::{Next, Reader};

/// How many clean batches it takes to believe that no repeats come any more.
const CLEAN_BATCHES: u32 = 20;
/// How long a writer waits for its turn at most: as long as a batch waits for many readings.
const TURN_WAIT: Duration = Duration::from_millis(200);

/// One writer and what it works with.
pub(super) struct Writer {
    /// Its number; it takes the shards that leave this rest when divided by `writers`.
    pub(super) number: u16,
    pub(super) writers: u16,
    pub(super) source: LogSource,
    pub(super) target: Target,
    pub(super) binding: Arc<Binding>,
    pub(super) options: WriterOptions,
    pub(super) shares: Shares,
    pub(super) turns: Arc<Semaphore>,
    /// Who reads the log: a buffer each.
    pub(super) reads: Arc<Semaphore>,
    pub(super) state: watch::Sender<ShardState>,
}

impl Writer {
    /// Works until the log has ended and everything in it is stored.
    pub(super) async fn run(self) {
        let mut pace = Pace::new(self.shares.batch_rows);
        loop {
            let began = Instant::now();
            // A panic costs the session and not the writer: its shard would stand still for ever.
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
            let was_up = self
                .state
                .send_replace(ShardState::Down(text.clone()))
                .is_up();
            if was_up || pace.failures == 0 {
                tracing::warn!(
                    writer = self.number,
                    error = text,
                    "a writer has lost its way to \
                    the database; readings wait in the log"
                );
            }
            let pause = backoff(pace.failures, random_fraction());
            pace.failures += 1;
            tokio::time::sleep(pause).await;
        }
    }

    fn progress(&self) -> &Arc<Progress> {
        self.source.progress()
    }

    /// Connects, and drains every lane in order. Returns when the log has ended.
    async fn session(&self, pace: &mut Pace) -> Result<(), SessionError> {
        let name = format!("wattgate writer {}", self.number);
        let within = self.options.answer_within;
        let mut session = WriterSession::open(&self.target, &name, within).await?;
        session.bound(&self.shares);
        let binding = Arc::clone(&self.binding);
        let id = session.database_id;
        spawn_blocking(move || binding.check(id))
            .await
            .map_err(|_| SessionError::Panicked)??;
        if !self.state.send_replace(ShardState::Up).is_up() {
            tracing::info!(writer = self.number, "a writer has reached the database");
        }
        // Listed first: a run that goes in between is in both.
        let runs = self.source.runs();
        if self.number == 0 {
            restored::compare(&session, &self.source).await?;
        }
        for (at, run) in runs.iter().enumerate() {
            for shard in (self.number..run.shards).step_by(usize::from(self.writers)) {
                tokio::select! {
                    () = self.wait_for_earlier(&runs[..at], run) => {}
                    () = session.ended() => return Err(SessionError::Ended),
                }
                self.lane(&mut session, run, shard, pace).await?;
            }
        }
        Ok(())
    }

    /// Waits until earlier runs that were cut into shards in another way are stored: a device's
    /// readings must be taken in the order in which they were accepted. With the same number of
    /// shards a device is always this writer's own.
    async fn wait_for_earlier(&self, earlier: &[Run], run: &Run) {
        let mut finished = self.progress().watch_finished();
        for before in earlier.iter().filter(|before| before.shards != run.shards) {
            // The sender lives in the progress that self holds.
            drop(
                finished
                    .wait_for(|_| self.progress().is_run_done(before.sequence))
                    .await,
            );
        }
    }

    /// Stores one shard of one run from its checkpoint to the run's end.
    async fn lane(
        &self,
        session: &mut WriterSession,
        run: &Run,
        shard: u16,
        pace: &mut Pace,
    ) -> Result<(), SessionError> {
        let lane = Lane {
            run: run.sequence,
            shard,
        };
        let mut claim = session.answered(session.claim(run.id, shard)).await?;
        self.skip_what_is_gone(session, &mut claim, run, shard)
            .await?;
        self.progress().stored(lane, claim.stored);
        if self.progress().is_done(lane) {
            return Ok(());
        }
        let from = claim.stored.position.min(claim.stored.live_position);
        let mut cursor = LaneCursor {
            reader: Some(
                self.source
                    .reader(run, shard, from.max(run.first_position())),
            ),
            newest: Newest::default(),
            strategy: Strategy::Copy,
            clean: 0,
            live_at: Instant::now(),
        };
        self.catch_live_up(session, &claim, &mut cursor, pace)
            .await?;
        while !self.progress().is_done(lane) {
            // An idle writer too must notice that its session is gone: the database may come back
            // in an older state, and has to be given what it lost.
            tokio::select! {
                () = self.wait_for_work(lane, &claim, &cursor) => {}
                () = session.ended() => return Err(SessionError::Ended),
            }
            let from = claim.stored.position;
            let batch = self
                .gather(session, &mut cursor, from, None, pace.rows_max())
                .await?;
            pace.tries(batch.rows());
            self.store(session, &mut claim, &mut cursor, batch, lane)
                .await?;
            if claim.stored.position > from {
                pace.stored();
            }
        }
        Ok(())
    }

    /// Gathers again what is in history but was not yet in live status, for that alone.
    ///
    /// History is asked for it: of what the log holds, some was a repeat of, or in contradiction
    /// with, what another gateway had stored, and some was refused.
    async fn catch_live_up(
        &self,
        session: &mut WriterSession,
        claim: &Claim,
        cursor: &mut LaneCursor,
        pace: &mut Pace,
    ) -> Result<(), SessionError> {
        let until = claim.stored.position;
        let mut behind = claim.stored.live_position < until;
        while behind {
            let from = cursor.position();
            let batch = self
                .gather(session, cursor, from, Some(until), pace.rows_max())
                .await?;
            pace.tries(batch.rows());
            behind = batch.to < until && batch.rows() > 0;
            let meters = in_history(session, batch.meters).await?;
            let vehicles = in_history(session, batch.vehicles).await?;
            cursor.newest.fold(&meters, &vehicles);
        }
        Ok(())
    }

    /// Notices where the checkpoint has gone back behind what the log still has.
    async fn skip_what_is_gone(
        &self,
        session: &WriterSession,
        claim: &mut Claim,
        run: &Run,
        shard: u16,
    ) -> Result<(), SessionError> {
        // The run as it is now: segments may have gone since the list was made.
        let runs = self.source.runs();
        let Some(run) = runs.iter().find(|r| r.sequence == run.sequence) else {
            // It has gone since this session has looked at those that had.
            return restored::compare(session, &self.source).await;
        };
        let first = run.first_position();
        if claim.stored.position >= first {
            return Ok(());
        }
        let mut reader = self.source.reader(run, shard, first);
        let appended = run
            .appended
            .get(usize::from(shard))
            .copied()
            .unwrap_or_default();
        let before = spawn_blocking(move || match reader.next_frame() {
            Ok(Next::Frame(item)) => Ok(item.section.before),
            Ok(_) => Ok(appended),
            Err(error) => Err(error),
        })
        .await
        .map_err(|_| SessionError::Panicked)??;
        let lost = before.saturating_sub(claim.stored.settled());
        // A shard without readings in what has gone has lost nothing.
        if lost.sum() > 0 {
            tracing::error!(
                run = %run.id, shard, readings = lost.sum(),
                "the database has gone back further than the log is retained: readings are lost"
            );
        }
        session.answered(session.skip_gap(claim, first, lost)).await
    }

    /// Waits until there is something to store, or live status is due.
    async fn wait_for_work(&self, lane: Lane, claim: &Claim, cursor: &LaneCursor) {
        if lane.run != self.progress().current_run() {
            return;
        }
        let mut synced = self.progress().watch_synced();
        let at = cursor.position();
        let live_waits = claim.stored.live_position < claim.stored.position;
        let live_due = tokio::time::Instant::from_std(cursor.live_at + self.options.live_interval);
        let more = async {
            drop(
                synced
                    .wait_for(|synced| *synced > at || self.has_ended())
                    .await,
            );
        };
        tokio::select! {
            () = more => {}
            () = tokio::time::sleep_until(live_due), if live_waits => return,
        }
        // While there is little to store, a moment's wait makes one transaction of many.
        let mut lingered = Duration::ZERO;
        loop {
            let most = linger(self.options.linger, self.progress().waiting(lane));
            let Some(longer) = most.checked_sub(lingered).filter(|left| !left.is_zero()) else {
                return;
            };
            tokio::select! {
                _ = synced.wait_for(|_| self.is_hurried(lane)) => return,
                () = tokio::time::sleep(longer) => lingered += longer,
            }
        }
    }

    /// Whether a writer has no time to wait: a quarter of the largest batch waits, a client waits
    /// for the commit, or nothing more comes.
    fn is_hurried(&self, lane: Lane) -> bool {
        let enough = (self.shares.batch_rows / 4).max(1) as u64;
        lane.run != self.progress().current_run()
            || self.has_ended()
            || self.progress().is_urgent(lane.shard)
            || self.progress().waiting(lane) >= enough
    }

    /// Waits for this writer's turn, unless it is hurried; none where it goes without one. COPYs that
    /// come all at once would keep every processor of a machine from those who wait for an answer.
    async fn turn(&self, lane: Lane) -> Option<SemaphorePermit<'_>> {
        let mut synced = self.progress().watch_synced();
        tokio::select! {
            biased;
            _ = synced.wait_for(|_| self.is_hurried(lane)) => None,
            turn = self.turns.acquire() => turn.ok(),
            // Whoever has it is stuck, and shards fail alone.
            () = tokio::time::sleep(TURN_WAIT) => None,
        }
    }

    /// Whether nothing more is appended.
    fn has_ended(&self) -> bool {
        self.source.current_has_ended()
    }

    /// Reads a batch off the async workers, and gives every device its id.
    async fn gather(
        &self,
        session: &mut WriterSession,
        cursor: &mut LaneCursor,
        from: Position,
        until: Option<Position>,
        rows_max: usize,
    ) -> Result<Batch, SessionError> {
        let mut reader = cursor.reader.take().ok_or(SessionError::Panicked)?;
        let ids = std::mem::replace(&mut session.ids, registry::IdCache::new(0));
        let reading = self.reads.acquire().await;
        let (result, reader, ids) = spawn_blocking(move || {
            let mut batch = Batch::new(from);
            let result = batch
                .fill(&mut reader, &ids, rows_max, until)
                .map(|()| batch);
            reader.give_back();
            (result, reader, ids)
        })
        .await
        .map_err(|_| SessionError::Panicked)?;
        drop(reading);
        cursor.reader = Some(reader);
        session.ids = ids;
        let mut batch = result?;
        for registry in Registry::ALL {
            let texts = batch.take_unknown(registry);
            if !texts.is_empty() {
                let mut ids = std::mem::replace(&mut session.ids, registry::IdCache::new(0));
                let resolving = registry::resolve(session.client(), &mut ids, registry, &texts);
                let found = session.answered(resolving).await;
                session.ids = ids;
                batch.put_ids(registry, &found?);
                reach(Point::Registered);
            }
        }
        Ok(batch)
    }

    /// Stores a batch with its checkpoint, or only moves the checkpoint where that is worth it.
    async fn store(
        &self,
        session: &mut WriterSession,
        claim: &mut Claim,
        cursor: &mut LaneCursor,
        batch: Batch,
        lane: Lane,
    ) -> Result<(), SessionError> {
        let stored = claim.stored;
        let (rows, received) = (batch.rows(), batch.oldest_received);
        let (run_ended, to) = (batch.run_ended, batch.to);
        // Before the rows are sorted: by partition is their order for every gateway.
        ensure_partitions(session, &batch.meters).await?;
        ensure_partitions(session, &batch.vehicles).await?;
        let partitions = session.partitions.clone();
        let (meters, vehicles) = (batch.meters, batch.vehicles);
        let (meters, vehicles) = spawn_blocking(move || {
            let meters = arrange(meters, &partitions.meter);
            (meters, arrange(vehicles, &partitions.vehicle))
        })
        .await
        .map_err(|_| SessionError::Panicked)?;
        let live_elapsed = cursor.live_at.elapsed() >= self.options.live_interval;
        let live_waits = stored.live_position < stored.position || rows > 0;
        let devices = cursor.newest.devices() + meters.devices() + vehicles.devices();
        // While there is little, live status rides on every batch: what a client was told is
        // committed, it finds there.
        let few = rows > 0 && devices <= self.options.live_at_once_devices;
        let live_due =
            run_ended || devices >= self.shares.live_devices || few || (live_elapsed && live_waits);
        let moves = run_ended || to.segment() > stored.position.segment();
        if rows == 0 && !moves && !live_due {
            return Ok(());
        }
        let work = Work {
            to,
            meters,
            vehicles,
            live_due,
        };
        let way_before = cursor.strategy;
        let _turn = match rows {
            0 => None,
            _ => self.turn(lane).await,
        };
        let storing = store(
            session,
            claim,
            &work,
            &mut cursor.newest,
            &mut cursor.strategy,
        );
        let Committed {
            stored: now,
            quarantined,
        } = storing.await?;
        if live_due {
            cursor.live_at = Instant::now();
        }
        let repeats = now.tally.duplicates != stored.tally.duplicates
            || now.tally.quarantined != stored.tally.quarantined;
        cursor.settle_strategy(way_before, repeats);
        self.progress().committed(lane, now, quarantined);
        reach(Point::CursorMoved);
        metrics::batch_rows(rows);
        if let Some(received) = received {
            let lag = Timestamp::now().as_micros() - received.as_micros();
            metrics::store_lag(Duration::from_micros(lag.max(0) as u64));
        }
        Ok(())
    }
}

/// Where a writer is in a lane, and what it has learned on the way.
struct LaneCursor {
    /// None only while a batch is being read, or if that has panicked.
    reader: Option<Reader>,
    newest: Newest,
    strategy: Strategy,
    clean: u32,
    live_at: Instant,
}

impl LaneCursor {
    fn position(&self) -> Position {
        self.reader.as_ref().map_or(Position::START, Reader::cursor)
    }

    /// Stays careful until enough batches in a row were clean.
    fn settle_strategy(&mut self, before: Strategy, repeats: bool) {
        if repeats || self.strategy != before {
            self.clean = 0;
        } else {
            self.clean += 1;
        }
        self.strategy = match self.strategy {
            Strategy::Copy => Strategy::Copy,
            _ if self.clean >= CLEAN_BATCHES => Strategy::Copy,
            _ => Strategy::Careful,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_repeat_it_looks_first_until_twenty_batches_are_clean() {
        let mut cursor = LaneCursor {
            reader: None,
            newest: Newest::default(),
            strategy: Strategy::Copy,
            clean: 0,
            live_at: Instant::now(),
        };
        cursor.strategy = Strategy::Probe;
        cursor.settle_strategy(Strategy::Copy, true);
        for _ in 0..CLEAN_BATCHES - 1 {
            assert_eq!(cursor.strategy, Strategy::Careful);
            cursor.settle_strategy(Strategy::Careful, false);
        }
        assert_eq!(cursor.strategy, Strategy::Careful);
        cursor.settle_strategy(Strategy::Careful, false);
        assert_eq!(cursor.strategy, Strategy::Copy);
    }
}
