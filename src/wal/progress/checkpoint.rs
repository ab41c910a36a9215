//! The checkpoint of a shard of a run.

use uuid::Uuid;

use crate::reading::StreamCounts;
use crate::wal::frame::Position;

/// What happened to readings that have left the log, by stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Stored in history.
    pub stored: StreamCounts,
    /// Already stored, with equal values.
    pub duplicates: StreamCounts,
    /// Set aside in quarantine.
    pub quarantined: StreamCounts,
}

impl Tally {
    /// The sum of all outcomes, by stream.
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
    /// Everything before this position is in history.
    pub position: Position,
    /// Everything before this position is in live status.
    pub live_position: Position,
    /// The outcomes of the readings before `position`, cumulative over the run.
    pub tally: Tally,
    /// Readings before `position` that were no longer in the log when they should have been stored.
    pub gap: StreamCounts,
}

impl Stored {
    /// The checkpoint of a shard from which nothing is stored yet.
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

    /// Readings that no longer wait, by stream: stored, duplicates, quarantined or lost.
    pub fn settled(&self) -> StreamCounts {
        self.tally.readings() + self.gap
    }
}

/// A shard of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunShard {
    /// The run's number in the order of runs.
    pub run: u64,
    /// The shard.
    pub shard: u16,
}

/// Readings of a shard that are neither in the database nor in the log any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The run.
    pub run: Uuid,
    /// The shard.
    pub shard: u16,
    /// How many, both streams together.
    pub readings: u64,
}
