//! Drains one shard of one run, batch by batch, from its checkpoint to the end of the run.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::backoff::linger;
use super::batch::{Arranged, Batch, Spare, arrange};
use super::live::Newest;
use super::pace::Pace;
use super::rows::{MeterRow, VehicleRow};
use super::session::{Claim, SessionError, WriterSession};
use super::shares::Shares;
use super::store::{Committed, LiveWrite, Outcome, Work, ensure_partitions, in_history, store};
use super::strategy::{Strategy, StrategyMemory};
use super::{WriterOptions, restored};
use crate::failpoint::{Point, reach};
use crate::metrics;
use crate::postgres::registry;
use crate::postgres::registry::{IdCache, Registry};
use crate::reading::Timestamp;
use crate::wal::LogSource;
use crate::wal::catalog::Run;
use crate::wal::frame::Position;
use crate::wal::progress::{Progress, RunShard};
use crate::wal::reader::{Next, Reader};

/// What a shard writer uses in every session.
pub(super) struct Resources {
    pub(super) source: LogSource,
    pub(super) options: WriterOptions,
    pub(super) shares: Shares,
    /// Permits to read the log, limited because each reader holds a buffer.
    pub(super) reads: Arc<Semaphore>,
}

impl Resources {
    pub(super) fn progress(&self) -> &Arc<Progress> {
        self.source.progress()
    }
}

/// One shard of one run, with its checkpoint claimed by this session.
pub(super) struct Drain<'a> {
    resources: &'a Resources,
    session: &'a mut WriterSession,
    shard: RunShard,
    claim: Claim,
    /// `None` while a batch is being read, and after a read has panicked.
    reader: Option<Reader>,
    newest: Newest,
    memory: StrategyMemory,
    live_at: Instant,
    /// The allocations of the last batch, kept while the writer is behind.
    spare: Spare,
}

impl<'a> Drain<'a> {
    /// Claims the checkpoint of a shard. Returns `None` if the shard is already stored to its end.
    ///
    /// # Errors
    /// [`SessionError`]: drop the session.
    pub(super) async fn begin(
        resources: &'a Resources,
        session: &'a mut WriterSession,
        run: &Run,
        shard: u16,
    ) -> Result<Option<Self>, SessionError> {
        let mut claim = session.answered(session.claim(run.id, shard)).await?;
        skip_retired(resources, session, &mut claim, (run, shard)).await?;
        let of_run = RunShard {
            run: run.sequence,
            shard,
        };
        session.acknowledge(|| resources.progress().stored(of_run, claim.stored))?;
        if resources.progress().is_done(of_run) {
            return Ok(None);
        }
        let from = claim.stored.position.min(claim.stored.live_position);
        let from = from.max(run.first_position());
        Ok(Some(Drain {
            reader: Some(resources.source.reader(run, shard, from)),
            resources,
            session,
            shard: of_run,
            claim,
            newest: Newest::default(),
            memory: StrategyMemory::default(),
            live_at: Instant::now(),
            spare: Spare::default(),
        }))
    }

    fn progress(&self) -> &Arc<Progress> {
        self.resources.progress()
    }

    fn cursor(&self) -> Position {
        self.reader.as_ref().map_or(Position::START, Reader::cursor)
    }

    /// Stores the shard to the end of its run.
    ///
    /// # Errors
    /// [`SessionError`]: drop the session.
    pub(super) async fn run(mut self, pace: &mut Pace) -> Result<(), SessionError> {
        self.catch_live_up(pace).await?;
        while !self.progress().is_done(self.shard) {
            if !self.has_work() {
                self.spare = Spare::default();
            }
            // An idle writer watches its connection too: if it ended, the database may have been restored and lack
            // readings.
            tokio::select! {
                () = self.wait_for_work() => {}
                () = self.session.ended() => return Err(SessionError::Ended),
            }
            let from = self.claim.stored.position;
            let batch = self.gather(from, None, self.rows_max(pace)).await?;
            pace.tries(batch.rows());
            let began = Instant::now();
            self.store(batch).await?;
            if self.claim.stored.position > from {
                pace.stored(began.elapsed());
            }
        }
        Ok(())
    }

    /// The most rows of the next batch. It is moderate while rows are looked up, because each is then in memory
    /// several times, and while a client waits for the commit.
    fn rows_max(&self, pace: &Pace) -> usize {
        let is_urgent = self.progress().is_urgent(self.shard.shard);
        match self.memory.strategy {
            Strategy::Copy if !is_urgent => pace.rows_max(),
            _ => self.moderate_max(pace),
        }
    }

    fn moderate_max(&self, pace: &Pace) -> usize {
        pace.rows_max().min(self.resources.shares.moderate_rows)
    }

    /// Finds the rows between the live position and the checkpoint that history holds, and adds them to live
    /// status.
    ///
    /// History must be consulted, because some readings in the log were repeats, contradicted a stored reading, or
    /// were refused.
    async fn catch_live_up(&mut self, pace: &mut Pace) -> Result<(), SessionError> {
        let until = self.claim.stored.position;
        let mut behind = self.claim.stored.live_position < until;
        while behind {
            let from = self.cursor();
            let rows_max = self.moderate_max(pace);
            let batch = self.gather(from, Some(until), rows_max).await?;
            pace.tries(batch.rows());
            behind = batch.to < until && batch.rows() > 0;
            let meters = in_history(self.session, batch.meters).await?;
            let vehicles = in_history(self.session, batch.vehicles).await?;
            let seen = &self.session.newest_seen;
            self.newest.fold(&meters, &seen.meter);
            self.newest.fold(&vehicles, &seen.vehicle);
        }
        Ok(())
    }

    /// Whether the log holds more of the shard than has been read.
    fn has_work(&self) -> bool {
        self.shard.run != self.progress().current_run()
            || *self.progress().watch_synced().borrow() > self.cursor()
    }

    /// Waits until there is something to store or live status is due.
    async fn wait_for_work(&self) {
        if self.shard.run != self.progress().current_run() {
            return;
        }
        let options = &self.resources.options;
        let mut synced = self.progress().watch_synced();
        let at = self.cursor();
        let live_waits = self.claim.stored.live_position < self.claim.stored.position;
        let live_due = tokio::time::Instant::from_std(self.live_at + options.live_interval);
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
        // Under light load, a short wait combines many small transactions.
        let mut lingered = Duration::ZERO;
        loop {
            let most = linger(options.linger, self.progress().waiting(self.shard));
            let Some(longer) = most.checked_sub(lingered).filter(|left| !left.is_zero()) else {
                return;
            };
            tokio::select! {
                _ = synced.wait_for(|_| self.is_hurried()) => return,
                () = tokio::time::sleep(longer) => lingered += longer,
            }
        }
    }

    /// Whether to stop lingering: a quarter of a batch waits, a client waits for the commit, or the log has ended.
    fn is_hurried(&self) -> bool {
        let enough = (self.resources.shares.moderate_rows / 4).max(1) as u64;
        self.shard.run != self.progress().current_run()
            || self.has_ended()
            || self.progress().is_urgent(self.shard.shard)
            || self.progress().waiting(self.shard) >= enough
    }

    /// Whether nothing will be appended any more.
    fn has_ended(&self) -> bool {
        self.resources.source.current_has_ended()
    }

    /// Reads a batch on a blocking thread and resolves the id of every device.
    async fn gather(
        &mut self,
        from: Position,
        until: Option<Position>,
        rows_max: usize,
    ) -> Result<Batch, SessionError> {
        let mut reader = self.reader.take().ok_or(SessionError::Panicked)?;
        let ids = mem::replace(&mut self.session.ids, IdCache::new(0));
        let mut batch = Batch::new(from, mem::take(&mut self.spare));
        let permit = self.resources.reads.acquire().await;
        let (result, reader, ids) = spawn_blocking(move || {
            let result = batch
                .fill(&mut reader, &ids, rows_max, until)
                .map(|()| batch);
            reader.give_back();
            (result, reader, ids)
        })
        .await
        .map_err(|_| SessionError::Panicked)?;
        drop(permit);
        self.reader = Some(reader);
        self.session.ids = ids;
        let mut batch = result?;
        for registry in Registry::ALL {
            let texts = batch.take_unknown(registry);
            if !texts.is_empty() {
                let mut ids = mem::replace(&mut self.session.ids, IdCache::new(0));
                let client = self.session.client();
                let resolving = registry::resolve(client, &mut ids, registry, &texts);
                let found = self.session.answered(resolving).await;
                self.session.ids = ids;
                batch.put_ids(registry, &found?);
                reach(Point::Registered);
            }
        }
        Ok(batch)
    }

    /// Stores a batch with its checkpoint. A batch without rows moves the checkpoint only if that is worth a
    /// transaction.
    async fn store(&mut self, batch: Batch) -> Result<(), SessionError> {
        let before = self.claim.stored;
        let (rows, received) = (batch.rows(), batch.oldest_received);
        let (run_ended, from, to) = (batch.run_ended, batch.from, batch.to);
        // Before sorting, because the rows' order depends on their partitions.
        ensure_partitions(self.session, &batch.meters).await?;
        ensure_partitions(self.session, &batch.vehicles).await?;
        let partitions = self.session.partitions.clone();
        let (meters, vehicles) = (batch.meters, batch.vehicles);
        let (meters, vehicles) = spawn_blocking(move || {
            let meters = arrange(meters, &partitions.meter);
            (meters, arrange(vehicles, &partitions.vehicle))
        })
        .await
        .map_err(|_| SessionError::Panicked)?;
        let live = match run_ended || self.is_live_due(&meters, &vehicles, rows) {
            true => LiveWrite::Now,
            false => LiveWrite::Later,
        };
        let moves = run_ended || to.segment() > before.position.segment();
        if rows == 0 && !moves && live == LiveWrite::Later {
            return Ok(());
        }
        let work = Work {
            to,
            meters,
            vehicles,
            live,
            looked_up_max: self.resources.shares.moderate_rows,
        };
        let strategy_before = self.memory.strategy;
        let outcome = store(
            self.session,
            &mut self.claim,
            &work,
            &mut self.newest,
            &mut self.memory.strategy,
        );
        let Committed {
            stored,
            quarantined,
        } = match outcome.await? {
            Outcome::Committed(committed) => committed,
            Outcome::TooLarge => return self.take_less(from),
        };
        if rows >= work.looked_up_max {
            self.spare = Spare::of(work.meters.rows, work.vehicles.rows);
        }
        if live == LiveWrite::Now {
            self.live_at = Instant::now();
        }
        let is_clean = stored.tally.duplicates == before.tally.duplicates
            && stored.tally.quarantined == before.tally.quarantined;
        match is_clean {
            true => self.memory.note_clean(strategy_before),
            false => self.memory.note_repeats(),
        }
        let progress = Arc::clone(self.progress());
        self.session
            .acknowledge(|| progress.committed(self.shard, stored, quarantined))?;
        reach(Point::CursorMoved);
        metrics::batch_rows(rows);
        if let Some(received) = received {
            let lag = Timestamp::now().as_micros() - received.as_micros();
            metrics::store_lag(Duration::from_micros(lag.max(0) as u64));
        }
        Ok(())
    }

    /// Goes back to the start of a batch that was too large. Batches stay moderate from here until enough of them
    /// in a row were clean.
    fn take_less(&mut self, from: Position) -> Result<(), SessionError> {
        self.memory.note_repeats();
        let reader = self.reader.as_mut().ok_or(SessionError::Panicked)?;
        reader.rewind(from);
        Ok(())
    }

    /// Whether live status is written with a batch of this many rows.
    ///
    /// With few devices it is written with every batch, so that a client sees its reading there as soon as it is
    /// committed.
    fn is_live_due(
        &self,
        meters: &Arranged<MeterRow>,
        vehicles: &Arranged<VehicleRow>,
        rows: usize,
    ) -> bool {
        // An exact count is needed only if this estimate reaches the limit: the same devices report again and
        // again.
        let mut devices = self.newest.devices() + meters.devices() + vehicles.devices();
        if devices >= self.resources.shares.live_devices {
            devices = self.newest.devices_with(&meters.rows, &vehicles.rows);
        }
        let options = &self.resources.options;
        let stored = self.claim.stored;
        let waits = stored.live_position < stored.position || rows > 0;
        let few = rows > 0 && devices <= options.live_at_once_devices;
        let interval_over = self.live_at.elapsed() >= options.live_interval;
        devices >= self.resources.shares.live_devices || few || (interval_over && waits)
    }
}

/// Moves a checkpoint that is before the oldest segment, and counts the readings that are lost.
async fn skip_retired(
    resources: &Resources,
    session: &WriterSession,
    claim: &mut Claim,
    (run, shard): (&Run, u16),
) -> Result<(), SessionError> {
    // Read again, because segments may have been retired since the list was made.
    let runs = resources.source.runs();
    let Some(run) = runs.iter().find(|r| r.sequence == run.sequence) else {
        // The run itself was retired after this session compared the retired runs.
        return restored::compare(session, &resources.source).await;
    };
    let first = run.first_position();
    if claim.stored.position >= first {
        return Ok(());
    }
    let mut reader = resources.source.reader(run, shard, first);
    let appended = run.appended.get(usize::from(shard)).copied();
    let before = spawn_blocking(move || match reader.next_frame() {
        Ok(Next::Frame(item)) => Ok(item.section.before),
        Ok(_) => Ok(appended.unwrap_or_default()),
        Err(error) => Err(error),
    })
    .await
    .map_err(|_| SessionError::Panicked)??;
    let lost = before.saturating_sub(claim.stored.settled());
    // A shard without unstored readings in the retired segments has lost nothing.
    if lost.sum() > 0 {
        tracing::error!(
            run = %run.id, shard, readings = lost.sum(),
            "the database was restored to a state older than what the log retains: readings are lost"
        );
    }
    session.answered(session.skip_gap(claim, first, lost)).await
}
