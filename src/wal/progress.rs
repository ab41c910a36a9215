//! How far each shard of each run is appended to the log and stored in the database.
//!
//! The appender reports what is durable, and the writers report what is committed. One lock guards the sums of
//! invariant 10 (accepted = stored + duplicates + quarantined + still in the log), so that a scrape sees them at
//! one moment. `ack=committed`, segment retirement and the backlog are all based on them.

mod checkpoint;
mod pace;
mod quarantined;
mod snapshot;
mod waiting;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::watch;
use uuid::Uuid;

use super::frame::Position;
use crate::reading::StreamCounts;
pub use checkpoint::{Gap, RunShard, Stored, Tally};
use pace::{DrainRate, WrittenAt};
use quarantined::Lately;
pub use snapshot::Snapshot;

#[derive(Debug)]
struct ShardProgress {
    appended: StreamCounts,
    /// When a reading was last appended while the shard had nothing to store. The age of its backlog counts from
    /// there.
    waits_since: Option<Instant>,
    /// `None` until a writer has read the checkpoint of a run from before this start.
    stored: Option<Stored>,
    /// Whether `stored` is from a server that is no longer the primary. The next claim replaces it.
    is_of_old_server: bool,
    /// Where the run ends; `None` while it is being appended to.
    end: Option<Position>,
}

#[derive(Debug, Default)]
struct State {
    shards: BTreeMap<RunShard, ShardProgress>,
    accepted: StreamCounts,
    tally: Tally,
    drain: DrainRate,
    written_at: WrittenAt,
    /// Gaps of retired runs.
    retired_gaps: Vec<Gap>,
    quarantined: Lately,
}

/// Shared by the appender, the writers, HTTP and the metrics.
#[derive(Debug)]
pub struct Progress {
    run: u64,
    began: Instant,
    state: Mutex<State>,
    synced: watch::Sender<Position>,
    stored: Vec<watch::Sender<Position>>,
    /// How many clients wait for a commit of each shard. While there are any, its writer does not linger.
    waiters: Vec<AtomicU32>,
    /// Changes whenever a shard of an ended run may have been finished.
    finished: watch::Sender<u64>,
    failed: watch::Sender<Option<String>>,
}

impl Progress {
    /// Starts the progress of the run with this number and this many shards.
    pub fn new(run: u64, shards: u16) -> Self {
        let by_key = (0..shards)
            .map(|shard| {
                let state = ShardProgress {
                    appended: StreamCounts::ZERO,
                    waits_since: None,
                    stored: Some(Stored::NOTHING),
                    is_of_old_server: false,
                    end: None,
                };
                (RunShard { run, shard }, state)
            })
            .collect();
        Progress {
            run,
            began: Instant::now(),
            state: Mutex::new(State {
                shards: by_key,
                quarantined: Lately::new(shards),
                ..State::default()
            }),
            synced: watch::Sender::new(Position::START),
            stored: (0..shards)
                .map(|_| watch::Sender::new(Position::START))
                .collect(),
            waiters: (0..shards).map(|_| AtomicU32::new(0)).collect(),
            finished: watch::Sender::new(0),
            failed: watch::Sender::new(None),
        }
    }

    /// The number of the run that is being appended to.
    pub fn current_run(&self) -> u64 {
        self.run
    }

    /// The number of shards of the run that is being appended to.
    pub fn shards(&self) -> u16 {
        self.stored.len() as u16
    }

    /// Adds a shard of an older run that was found at the start.
    pub fn add_ended(&self, key: RunShard, appended: StreamCounts, end: Position) {
        self.lock().shards.insert(
            key,
            ShardProgress {
                appended,
                waits_since: None,
                stored: None,
                is_of_old_server: false,
                end: Some(end),
            },
        );
    }

    /// Adds readings that have become durable, then moves the position that readers may reach.
    ///
    /// Shape:  one entry per shard of the current run
    pub fn appended(&self, readings: &[StreamCounts], synced: Position) {
        {
            let mut state = self.lock();
            let now = Instant::now();
            state.written_at.add(synced, now);
            for (shard, readings) in (0u16..).zip(readings) {
                state.accepted += *readings;
                if let Some(entry) = state.shards.get_mut(&RunShard {
                    run: self.run,
                    shard,
                }) {
                    if waiting_of(entry).sum() == 0 && readings.sum() > 0 {
                        entry.waits_since = Some(now);
                    }
                    entry.appended += *readings;
                }
            }
        }
        self.synced.send_replace(synced);
    }

    /// Marks the current run as ended: nothing more will be appended.
    pub fn ended(&self, end: Position) {
        let mut state = self.lock();
        for (_, entry) in state
            .shards
            .iter_mut()
            .filter(|(key, _)| key.run == self.run)
        {
            entry.end = Some(end);
        }
        drop(state);
        self.synced.send_replace(end);
        self.finished.send_modify(|n| *n += 1);
    }

    /// Sets a shard's checkpoint as it was read when a writer connected.
    ///
    /// A checkpoint ahead of the known one means that a commit succeeded although its response was lost. After a
    /// failover or a restore it may be behind the known one. The readings in between then wait, and count, again.
    pub fn stored(&self, key: RunShard, now: Stored) {
        self.moved(key, now, None);
    }

    /// Sets a shard's checkpoint after a commit.
    ///
    /// Shape:  `quarantined` are the readings of this commit that went into quarantine, by frame and index in the
    ///         shard's section, in any order
    pub fn committed(&self, key: RunShard, now: Stored, quarantined: Vec<(Position, u32)>) {
        self.moved(key, now, Some(quarantined));
    }

    fn moved(&self, key: RunShard, now: Stored, quarantined: Option<Vec<(Position, u32)>>) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(entry) = state.shards.get_mut(&key) else {
            return;
        };
        let before = entry.stored.replace(now);
        entry.is_of_old_server = false;
        // The first checkpoint of an older run: the readings that still wait in it were accepted before this
        // start.
        let known = before.unwrap_or(now);
        // Lost readings do not wait again.
        let (was, is) = (known.settled(), now.settled());
        if before.is_none() {
            state.accepted += entry.appended.saturating_sub(is);
        } else {
            let grown = Tally {
                stored: now.tally.stored.saturating_sub(known.tally.stored),
                duplicates: now.tally.duplicates.saturating_sub(known.tally.duplicates),
                quarantined: now
                    .tally
                    .quarantined
                    .saturating_sub(known.tally.quarantined),
            };
            state.tally = state.tally.plus(&grown);
            // Readings that wait again count as accepted again, as do readings of a gap that a newer backup turns
            // out to hold. After a commit this adds nothing.
            state.accepted += (grown.readings() + was).saturating_sub(is);
        }
        // The first checkpoint of an older run drains nothing, because `was` and `is` are equal.
        state
            .drain
            .add(is.saturating_sub(was).sum(), Instant::now());
        if key.run == self.run {
            match quarantined {
                Some(origins) => state.quarantined.note(key.shard, origins),
                None => state.quarantined.forget_before(key.shard, now.position),
            }
            // Sent under the lock, so that a request's positions can all be compared at one moment.
            if let Some(sender) = self.stored.get(usize::from(key.shard)) {
                sender.send_replace(now.position);
            }
        }
        drop(guard);
        self.finished.send_modify(|n| *n += 1);
    }

    /// Records that the database has moved to another server, which may hold less.
    ///
    /// Until a writer has claimed a shard there, waiting clients see nothing of the shard as stored, and no
    /// segment is retired. The sums stay as they are; the claim corrects them.
    pub fn moved_server(&self) {
        let mut state = self.lock();
        for entry in state.shards.values_mut() {
            entry.is_of_old_server = true;
        }
        for sender in &self.stored {
            sender.send_replace(Position::START);
        }
    }

    /// Whether a shard of a run is stored to its end, for live status too.
    pub fn is_done(&self, key: RunShard) -> bool {
        let state = self.lock();
        state
            .shards
            .get(&key)
            .is_none_or(|entry| match (entry.stored, entry.end) {
                (Some(stored), Some(end)) => stored.position >= end && stored.live_position >= end,
                _ => false,
            })
    }

    /// Whether all shards of a run are stored to their end.
    pub fn is_run_done(&self, run: u64) -> bool {
        let keys: Vec<RunShard> = self
            .lock()
            .shards
            .keys()
            .copied()
            .filter(|key| key.run == run)
            .collect();
        keys.into_iter().all(|key| self.is_done(key))
    }

    /// The position up to which every shard of a run is stored, for live status too.
    ///
    /// `None` means that some checkpoint on the current server is not known yet.
    pub fn passed(&self, run: u64) -> Option<Position> {
        let state = self.lock();
        let mut least = None;
        for (_, entry) in state.shards.iter().filter(|(key, _)| key.run == run) {
            let stored = entry.stored.filter(|_| !entry.is_of_old_server)?;
            let here = stored.position.min(stored.live_position);
            least = Some(least.map_or(here, |l: Position| l.min(here)));
        }
        least
    }

    /// Removes a run whose segments are retired, but keeps its gaps.
    pub fn forget(&self, run: u64, id: Uuid) {
        let mut state = self.lock();
        let gaps = gaps_of(&state.shards, run, id);
        state.retired_gaps.extend(gaps);
        state.shards.retain(|key, _| key.run != run);
    }

    /// Replaces the known gaps of retired runs.
    pub fn set_retired_gaps(&self, gaps: Vec<Gap>) {
        self.lock().retired_gaps = gaps;
    }

    /// The readings that are neither in the database nor in the log any more.
    ///
    /// Shape:  `runs` are those of the log, as number and id
    pub fn gaps(&self, runs: impl Iterator<Item = (u64, Uuid)>) -> Vec<Gap> {
        let state = self.lock();
        let mut gaps = state.retired_gaps.clone();
        for (run, id) in runs {
            gaps.extend(gaps_of(&state.shards, run, id));
        }
        gaps
    }

    /// How many readings wait in one shard, both streams together; 0 if its checkpoint is not known yet.
    pub fn waiting(&self, key: RunShard) -> u64 {
        self.lock()
            .shards
            .get(&key)
            .map_or(0, |entry| waiting_of(entry).sum())
    }

    /// How many readings leave the log per second, as a moving average; 0 before the first second.
    pub fn drain_rate(&self) -> f64 {
        self.lock().drain.per_second
    }

    /// Watches the position up to which the current run may be read.
    pub fn watch_synced(&self) -> watch::Receiver<Position> {
        self.synced.subscribe()
    }

    /// The position up to which the current run may be read.
    pub fn synced(&self) -> Position {
        *self.synced.borrow()
    }

    /// Notifies whenever a shard may have been finished.
    pub fn watch_finished(&self) -> watch::Receiver<u64> {
        self.finished.subscribe()
    }

    /// Marks the log as failed: nothing is acknowledged any more (invariant 11).
    pub fn fail(&self, reason: String) {
        self.failed.send_replace(Some(reason));
    }

    /// Whether the log has failed.
    pub fn has_failed(&self) -> bool {
        self.failed.borrow().is_some()
    }

    /// Watches the failure of the log.
    pub fn watch_failed(&self) -> watch::Receiver<Option<String>> {
        self.failed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn gaps_of(shards: &BTreeMap<RunShard, ShardProgress>, run: u64, id: Uuid) -> Vec<Gap> {
    let of_run = shards.iter().filter(|(key, _)| key.run == run);
    let gaps = of_run.map(|(key, entry)| Gap {
        run: id,
        shard: key.shard,
        readings: entry.stored.map_or(0, |stored| stored.gap.sum()),
    });
    gaps.filter(|gap| gap.readings > 0).collect()
}

fn waiting_of(entry: &ShardProgress) -> StreamCounts {
    entry.stored.map_or(StreamCounts::ZERO, |stored| {
        entry.appended.saturating_sub(stored.settled())
    })
}
