//! The age of the backlog, and how fast it is stored.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::wal::frame::Position;

/// When each position of the current run was written, roughly. It gives the age of the backlog.
#[derive(Debug, Default)]
pub(super) struct WrittenAt(VecDeque<(Position, Instant)>);

impl WrittenAt {
    /// The least time between two kept positions, and so the resolution of the age.
    const SPACING: Duration = Duration::from_millis(200);
    /// Beyond this number every second position is dropped. In a long outage, the age is coarser.
    const PLACES_MAX: usize = 20_000;

    pub(super) fn add(&mut self, end: Position, now: Instant) {
        if self
            .0
            .back()
            .is_some_and(|(_, at)| now.duration_since(*at) < Self::SPACING)
        {
            return;
        }
        self.0.push_back((end, now));
        if self.0.len() > Self::PLACES_MAX {
            let mut nth = 0;
            self.0.retain(|_| {
                nth += 1;
                nth % 2 == 1
            });
        }
    }

    /// When the first reading after a position was written.
    pub(super) fn since(&self, passed: Position) -> Option<Instant> {
        let behind = self.0.partition_point(|(end, _)| *end <= passed);
        self.0.get(behind.saturating_sub(1)).map(|(_, at)| *at)
    }

    /// Drops the entries that no later position needs.
    pub(super) fn trim(&mut self, passed: Position) {
        while self.0.len() > 1 && self.0[1].0 <= passed {
            self.0.pop_front();
        }
    }
}

/// How fast the writers empty the log, as a moving average over a few seconds.
#[derive(Debug, Default)]
pub(super) struct DrainRate {
    since: Option<Instant>,
    readings: u64,
    pub(super) per_second: f64,
}

impl DrainRate {
    pub(super) fn add(&mut self, readings: u64, now: Instant) {
        let since = *self.since.get_or_insert(now);
        self.readings += readings;
        let elapsed = now.duration_since(since).as_secs_f64();
        if elapsed >= 1.0 {
            let rate = self.readings as f64 / elapsed;
            self.per_second = if self.per_second == 0.0 {
                rate
            } else {
                0.7 * self.per_second + 0.3 * rate
            };
            self.since = Some(now);
            self.readings = 0;
        }
    }
}
