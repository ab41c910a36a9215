//! The sums of the log at one moment, and the age of what waits in it.

use std::time::{Duration, Instant};

use super::{Progress, Tally, waiting_of};
use crate::reading::StreamCounts;
use crate::wal::frame::Position;

/// The sums of invariant 10, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Readings that became durable since the start, and those found waiting at the start.
    pub accepted: StreamCounts,
    /// What became of them since the start.
    pub tally: Tally,
    /// What waits in the log, by shard and stream.
    pub waiting: Vec<StreamCounts>,
    /// Readings that the database has lost and that the log no longer held, so they could not be stored again.
    pub gap: u64,
}

impl Snapshot {
    /// What waits in the log, all shards and both streams together.
    pub fn waiting(&self) -> u64 {
        self.waiting.iter().map(|counts| counts.sum()).sum()
    }
}

impl Progress {
    /// The sums of invariant 10, at one moment.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        let mut waiting = vec![StreamCounts::ZERO; self.stored.len()];
        let mut gap = state
            .retired_gaps
            .iter()
            .map(|retired| retired.readings)
            .sum();
        for (key, entry) in &state.shards {
            gap += entry.stored.map_or(0, |stored| stored.gap.sum());
            // Runs with more shards than now are shown at the shard that will drain them.
            let shard = usize::from(key.shard) % waiting.len().max(1);
            waiting[shard] += waiting_of(entry);
        }
        Snapshot {
            accepted: state.accepted,
            tally: state.tally,
            waiting,
            gap,
        }
    }

    /// How long the oldest reading in the log has waited, to a fraction of a second; readings found at the start count
    /// from the start.
    pub fn oldest_waits(&self) -> Duration {
        let mut guard = self.lock();
        let state = &mut *guard;
        let mut passed: Option<Position> = None;
        let mut since: Option<Instant> = None;
        for (key, entry) in &state.shards {
            if waiting_of(entry).sum() == 0 {
                continue;
            }
            if key.run != self.run {
                return self.began.elapsed();
            }
            let here = entry.stored.map_or(Position::START, |s| s.position);
            passed = Some(passed.map_or(here, |p| p.min(here)));
            // If a shard had nothing to store, its checkpoint is far behind. Its backlog counts from its own first
            // reading.
            let of_shard = state.written_at.since(here).max(entry.waits_since);
            since = since.min(of_shard).or(since).or(of_shard);
        }
        if let Some(passed) = passed {
            state.written_at.trim(passed);
        }
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}
