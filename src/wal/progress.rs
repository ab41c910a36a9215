//! How far each shard of each run is: appended to the log, and stored in the database.
//!
//! The appender reports what is durable, the writers what is committed. The sums of invariant 10
//! (accepted = stored + duplicates + quarantined + still in the log) are kept here under one
//! lock, so that a scrape sees them at one moment. From it come the answers of `ack=committed`,
//! the segments that may go, and what waits.

mod pace;
mod quarantined;
mod waiting;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use uuid::Uuid;

use super::frame::Position;
use crate::reading::StreamCounts;
use pace::{DrainRate, Marks};
use quarantined::Lately;

/// What became of readings that left the log, by stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Stored in history.
    pub stored: StreamCounts,
    /// Found stored already, with equal values.
    pub duplicates: StreamCounts,
    /// Kept in quarantine.
    pub quarantined: StreamCounts,
}

impl Tally {
    /// All of them, by stream.
    pub fn readings(&self) -> StreamCounts {
        self.stored + self.duplicates + self.quarantined
    }

    /// The sum of two tallies.
    #[must_use]
    pub fn plus(&self, other: &Tally) -> Tally {
        Tally {
            stored: self.stored + other.stored,
            duplicates: self.duplicates + other.duplicates,
            quarantined: self.quarantined + other.quarantined,
        }
    }
}

/// A shard's checkpoint as the database holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Everything before this place is in history.
    pub position: Position,
    /// Everything before this place is in live status.
    pub live_position: Position,
    /// What became of the readings before `position`, cumulative over the run.
    pub tally: Tally,
    /// Readings before `position` that the log no longer had when they were to be stored.
    pub gap: StreamCounts,
}

impl Stored {
    /// The checkpoint of a shard of which nothing is stored yet.
    pub const NOTHING: Stored = Stored {
        position: Position::START,
        live_position: Position::START,
        tally: Tally {
            stored: StreamCounts::ZERO,
            duplicates: StreamCounts::ZERO,
            quarantined: StreamCounts::ZERO,
        },
        gap: StreamCounts::ZERO,
    };

    /// Readings that wait no more, by stream: stored in whatever way, or lost.
    pub fn settled(&self) -> StreamCounts {
        self.tally.readings() + self.gap
    }
}

/// A shard of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    /// The run's place in the order of runs.
    pub run: u64,
    /// The shard.
    pub shard: u16,
}

#[derive(Debug)]
struct LaneState {
    appended: StreamCounts,
    /// When the first reading was appended after the lane had nothing to store.
    waits_since: Option<Instant>,
    /// None until a writer has read the checkpoint of an older run.
    stored: Option<Stored>,
    /// Where the run ends; none while it is appended to.
    end: Option<Position>,
}

/// Readings of a shard that are neither in the database nor in the log any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The run.
    pub run: Uuid,
    /// The shard.
    pub shard: u16,
    /// How many, of both streams.
    pub readings: u64,
}

/// The sums of invariant 10, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Readings that became durable since the start, and those found waiting at the start.
    pub accepted: StreamCounts,
    /// What became of them since the start.
    pub tally: Tally,
    /// What waits in the log, by shard and stream.
    pub waiting: Vec<StreamCounts>,
    /// Readings that the database has lost and the log no longer had to store them again.
    pub gap: u64,
}

impl Snapshot {
    /// What waits in the log, all shards and both streams together.
    pub fn waiting(&self) -> u64 {
        self.waiting.iter().map(|counts| counts.sum()).sum()
    }
}

#[derive(Debug, Default)]
struct State {
    lanes: BTreeMap<Lane, LaneState>,
    accepted: StreamCounts,
    tally: Tally,
    drain: DrainRate,
    marks: Marks,
    /// Of runs that have gone.
    gone_gaps: Vec<Gap>,
    quarantined: Lately,
}

/// Shared by the appender, the writers, the edge and the metrics.
#[derive(Debug)]
pub struct Progress {
    run: u64,
    began: Instant,
    state: Mutex<State>,
    synced: watch::Sender<Position>,
    stored: Vec<watch::Sender<Position>>,
    /// Clients that wait for the commit of a shard: its writer must not linger.
    waiters: Vec<AtomicU32>,
    /// Moves whenever a lane of an ended run may have been finished.
    finished: watch::Sender<u64>,
    failed: watch::Sender<Option<String>>,
}

impl Progress {
    /// Begins with nothing, for the run with this place in the order and so many shards.
    pub fn new(run: u64, shards: u16) -> Self {
        let lanes = (0..shards)
            .map(|shard| {
                let state = LaneState {
                    appended: StreamCounts::ZERO,
                    waits_since: None,
                    stored: Some(Stored::NOTHING),
                    end: None,
                };
                (Lane { run, shard }, state)
            })
            .collect();
        Progress {
            run,
            began: Instant::now(),
            state: Mutex::new(State {
                lanes,
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

    /// The run that is appended to.
    pub fn current_run(&self) -> u64 {
        self.run
    }

    /// The shards of the run that is appended to.
    pub fn shards(&self) -> u16 {
        self.stored.len() as u16
    }

    /// Adds a shard of an older run, found at the start.
    pub fn add_ended(&self, lane: Lane, appended: StreamCounts, end: Position) {
        self.lock().lanes.insert(
            lane,
            LaneState {
                appended,
                waits_since: None,
                stored: None,
                end: Some(end),
            },
        );
    }

    /// Reports readings that have become durable, then moves what readers may read.
    ///
    /// Shape:  one entry a shard of the current run
    pub fn appended(&self, readings: &[StreamCounts], synced: Position) {
        {
            let mut state = self.lock();
            let now = Instant::now();
            state.marks.add(synced, now);
            for (shard, readings) in (0u16..).zip(readings) {
                state.accepted += *readings;
                if let Some(lane) = state.lanes.get_mut(&Lane {
                    run: self.run,
                    shard,
                }) {
                    if waiting_of(lane).sum() == 0 && readings.sum() > 0 {
                        lane.waits_since = Some(now);
                    }
                    lane.appended += *readings;
                }
            }
        }
        self.synced.send_replace(synced);
    }

    /// Ends the current run: nothing more will be appended.
    pub fn ended(&self, end: Position) {
        let mut state = self.lock();
        for (_, lane) in state.lanes.iter_mut().filter(|(l, _)| l.run == self.run) {
            lane.end = Some(end);
        }
        drop(state);
        self.synced.send_replace(end);
        self.finished.send_modify(|n| *n += 1);
    }

    /// Reports a shard's checkpoint as it was read on connecting.
    ///
    /// A checkpoint that is ahead of what was known settles a commit whose answer was lost; one
    /// that is behind (a failover, a restore) makes its readings wait, and count, again.
    pub fn stored(&self, lane: Lane, now: Stored) {
        self.moved(lane, now, None);
    }

    /// Reports a shard's checkpoint after a commit.
    ///
    /// Shape:  the readings of the commit that went into quarantine, as their frame and their index in
    ///         the shard's section of it, in any order
    pub fn committed(&self, lane: Lane, now: Stored, quarantined: Vec<(Position, u32)>) {
        self.moved(lane, now, Some(quarantined));
    }

    fn moved(&self, lane: Lane, now: Stored, quarantined: Option<Vec<(Position, u32)>>) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(entry) = state.lanes.get_mut(&lane) else {
            return;
        };
        let before = entry.stored.replace(now);
        // The first look at an older run: what waits in it has been accepted, before this start.
        let known = before.unwrap_or(now);
        // What is lost for good does not wait again.
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
            // What waits again counts as accepted again, and so does what a newer backup has brought back
            // of a gap; by commits alone this adds nothing.
            state.accepted += (grown.readings() + was).saturating_sub(is);
        }
        // The first look at an older run drains nothing: `was` and `is` are the same then.
        state
            .drain
            .add(is.saturating_sub(was).sum(), Instant::now());
        if lane.run == self.run {
            match quarantined {
                Some(origins) => state.quarantined.note(lane.shard, origins),
                None => state.quarantined.forget_before(lane.shard, now.position),
            }
        }
        drop(guard);
        if lane.run == self.run
            && let Some(sender) = self.stored.get(usize::from(lane.shard))
        {
            sender.send_replace(now.position);
        }
        self.finished.send_modify(|n| *n += 1);
    }

    /// Whether a shard of a run is stored to its end, live status too.
    pub fn is_done(&self, lane: Lane) -> bool {
        let state = self.lock();
        state
            .lanes
            .get(&lane)
            .is_none_or(|l| match (l.stored, l.end) {
                (Some(stored), Some(end)) => stored.position >= end && stored.live_position >= end,
                _ => false,
            })
    }

    /// Whether all shards of a run are stored to their end.
    pub fn is_run_done(&self, run: u64) -> bool {
        let lanes: Vec<Lane> = self
            .lock()
            .lanes
            .keys()
            .copied()
            .filter(|lane| lane.run == run)
            .collect();
        lanes.into_iter().all(|lane| self.is_done(lane))
    }

    /// The place before which every shard of a run is stored, live status too; none where a
    /// checkpoint is not known yet.
    pub fn passed(&self, run: u64) -> Option<Position> {
        let state = self.lock();
        let mut least = None;
        for (_, lane) in state.lanes.iter().filter(|(l, _)| l.run == run) {
            let stored = lane.stored?;
            let here = stored.position.min(stored.live_position);
            least = Some(least.map_or(here, |l: Position| l.min(here)));
        }
        least
    }

    /// Forgets a run whose segments are gone, but for what the database lacks of it.
    pub fn forget(&self, run: u64, id: Uuid) {
        let mut state = self.lock();
        let gaps = gaps_of(&state.lanes, run, id);
        state.gone_gaps.extend(gaps);
        state.lanes.retain(|lane, _| lane.run != run);
    }

    /// Reports what the database lacks of runs that have gone: all of it, as it was found now.
    pub fn set_gone_gaps(&self, gaps: Vec<Gap>) {
        self.lock().gone_gaps = gaps;
    }

    /// What the database lacks and the log cannot give it.
    ///
    /// Shape:  `runs` are those of the log, by place in the order and id
    pub fn gaps(&self, runs: impl Iterator<Item = (u64, Uuid)>) -> Vec<Gap> {
        let state = self.lock();
        let mut gaps = state.gone_gaps.clone();
        for (run, id) in runs {
            gaps.extend(gaps_of(&state.lanes, run, id));
        }
        gaps
    }

    /// What waits in one lane, both streams together; 0 where its checkpoint is not known yet.
    pub fn waiting(&self, lane: Lane) -> u64 {
        self.lock()
            .lanes
            .get(&lane)
            .map_or(0, |l| waiting_of(l).sum())
    }

    /// The sums of invariant 10, at one moment.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        let mut waiting = vec![StreamCounts::ZERO; self.stored.len()];
        let mut gap = state.gone_gaps.iter().map(|gone| gone.readings).sum();
        for (lane, entry) in &state.lanes {
            gap += entry.stored.map_or(0, |stored| stored.gap.sum());
            // Runs with more shards than now are shown at the shard that will drain them.
            let shard = usize::from(lane.shard) % waiting.len().max(1);
            waiting[shard] += waiting_of(entry);
        }
        Snapshot {
            accepted: state.accepted,
            tally: state.tally,
            waiting,
            gap,
        }
    }

    /// How long the oldest reading in the log has waited, to a fraction of a second; what was
    /// found at the start counts from then.
    pub fn oldest_waits(&self) -> Duration {
        let mut guard = self.lock();
        let state = &mut *guard;
        let mut passed: Option<Position> = None;
        let mut since: Option<Instant> = None;
        for (lane, entry) in &state.lanes {
            if waiting_of(entry).sum() == 0 {
                continue;
            }
            if lane.run != self.run {
                return self.began.elapsed();
            }
            let here = entry.stored.map_or(Position::START, |s| s.position);
            passed = Some(passed.map_or(here, |p| p.min(here)));
            // A lane that had nothing to store leaves its checkpoint behind what others append:
            // its age counts from its own first reading.
            let of_lane = state.marks.since(here).max(entry.waits_since);
            since = since.min(of_lane).or(since).or(of_lane);
        }
        if let Some(passed) = passed {
            state.marks.trim(passed);
        }
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// How many readings a second leave the log, as a moving average; 0 before the first second.
    pub fn drain_rate(&self) -> f64 {
        self.lock().drain.per_second
    }

    /// Follows the place up to which the current run may be read.
    pub fn watch_synced(&self) -> watch::Receiver<Position> {
        self.synced.subscribe()
    }

    /// The place up to which the current run may be read.
    pub fn synced(&self) -> Position {
        *self.synced.borrow()
    }

    /// Follows the lanes that are finished.
    pub fn watch_finished(&self) -> watch::Receiver<u64> {
        self.finished.subscribe()
    }

    /// Declares the log failed: no acknowledgement is given any more (invariant 11).
    pub fn fail(&self, reason: String) {
        self.failed.send_replace(Some(reason));
    }

    /// Whether the log has failed.
    pub fn has_failed(&self) -> bool {
        self.failed.borrow().is_some()
    }

    /// Follows the failure of the log.
    pub fn watch_failed(&self) -> watch::Receiver<Option<String>> {
        self.failed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn gaps_of(lanes: &BTreeMap<Lane, LaneState>, run: u64, id: Uuid) -> Vec<Gap> {
    let of_run = lanes.iter().filter(|(lane, _)| lane.run == run);
    let gaps = of_run.map(|(lane, entry)| Gap {
        run: id,
        shard: lane.shard,
        readings: entry.stored.map_or(0, |stored| stored.gap.sum()),
    });
    gaps.filter(|gap| gap.readings > 0).collect()
}

fn waiting_of(lane: &LaneState) -> StreamCounts {
    lane.stored.map_or(StreamCounts::ZERO, |stored| {
        lane.appended.saturating_sub(stored.settled())
    })
}
