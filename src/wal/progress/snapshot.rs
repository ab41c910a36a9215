//! The sums of the log at one moment, and the age of its backlog.

use std::time::{Duration, Instant};

use super::{Progress, Tally, waiting_of};
use crate::reading::StreamCounts;
use crate::wal::frame::Position;

/// The sums of invariant 10, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Readings that became durable since the start, and readings that already waited at the start.
    pub accepted: StreamCounts,
    /// The outcomes since the start.
    pub tally: Tally,
    /// The readings that wait in the log, by shard and stream.
    pub waiting: Vec<StreamCounts>,
    /// Readings that are neither in the database nor in the log any more.
    pub gap: u64,
}

impl Snapshot {
    /// The number of readings that wait in the log, over all shards and both streams.
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
            // A run with more shards than the current one counts towards the shard whose writer will drain it.
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

    /// How long the oldest reading in the log has waited, to a fraction of a second. Readings found at the start
    /// count from the start.
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
            // The checkpoint of a shard that had nothing to store lags far behind, so its backlog counts from its
            // own first reading.
            let of_shard = state.written_at.since(here).max(entry.waits_since);
            since = since.min(of_shard).or(since).or(of_shard);
        }
        if let Some(passed) = passed {
            state.written_at.trim(passed);
        }
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}
