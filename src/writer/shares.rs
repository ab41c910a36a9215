//! One writer's share of memory totals that do not grow with the number of shards.
//!
//! Each device belongs to one shard, so a share holds what its shards need. What is not divided is small: a
//! writer's connection, and 64 KiB of a COPY.

use super::WriterOptions;
use super::live::DEVICES_PER_STATEMENT;

/// Bytes of cached ids of all writers: enough for some 1,200,000 devices with ids of 16 bytes.
const IDS_BYTES: usize = 64 << 20;
/// Devices of each stream whose newest time is remembered, over all writers; some 30 bytes each.
const SEEN_DEVICES: usize = 400_000;
/// Dirty marks of each stream that are remembered, over all writers; some 50 bytes each.
const STANDING_MARKS: usize = 400_000;
/// Devices with live status waiting for the next upsert, over all writers; some 120 bytes each.
const LIVE_DEVICES: usize = 400_000;
/// With this many devices waiting, a writer's upsert is due at once. Until then, a device that reports repeatedly
/// is written once.
const LIVE_DEVICES_EACH: usize = DEVICES_PER_STATEMENT;
/// Rows of all batches in memory, unless the configured batch is larger than half of this. A row takes 64 or 80
/// bytes, and 16 more while it is sorted.
const BATCH_ROWS: usize = 800_000;
/// The same bound in batches, for small configured sizes: an operator chooses them to save memory.
const BATCHES: usize = 8;
/// Reads of the log at the same time: 2 MiB each.
pub(super) const READS_AT_ONCE: usize = 8;

/// One writer's share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shares {
    /// Bytes of cached ids.
    pub(super) ids_bytes: usize,
    /// Devices of each stream whose newest time it remembers.
    pub(super) seen_devices: usize,
    /// Dirty marks of each stream that it remembers.
    pub(super) standing_marks: usize,
    /// Devices whose live status may wait for the next upsert.
    pub(super) live_devices: usize,
    /// Rows of its largest batch.
    pub(super) batch_rows: usize,
    /// The most rows of the first batches, and of batches in which rows are looked up.
    pub(super) moderate_rows: usize,
}

impl Shares {
    /// Divides the totals among this many writers. With few writers, the largest batch is as configured.
    pub(super) fn new(writers: u16, options: &WriterOptions) -> Self {
        let writers = usize::from(writers).max(1);
        let batch_rows_max = options.batch_rows_max.max(1);
        let rows = batch_rows_max.saturating_mul(2).max(BATCH_ROWS);
        let rows = rows.min(batch_rows_max.saturating_mul(BATCHES));
        let batch_rows = (rows / writers).clamp(1, batch_rows_max);
        Shares {
            ids_bytes: IDS_BYTES / writers,
            seen_devices: SEEN_DEVICES / writers,
            standing_marks: STANDING_MARKS / writers,
            live_devices: (LIVE_DEVICES / writers).min(LIVE_DEVICES_EACH),
            batch_rows,
            moderate_rows: options.moderate_rows.clamp(1, batch_rows),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn shares(writers: u16, batch_rows_max: usize) -> Shares {
        let options = WriterOptions {
            batch_rows_max,
            moderate_rows: WriterOptions::MODERATE_ROWS,
            linger: Duration::ZERO,
            live_interval: Duration::ZERO,
            live_at_once_devices: WriterOptions::LIVE_AT_ONCE_DEVICES,
            answer_within: WriterOptions::ANSWER_WITHIN,
        };
        Shares::new(writers, &options)
    }

    #[test]
    fn what_all_writers_hold_does_not_grow_with_them() {
        for writers in 1..=64 {
            let share = shares(writers, 400_000);
            let all = usize::from(writers);
            assert!(share.ids_bytes * all <= IDS_BYTES);
            assert!(share.seen_devices * all <= SEEN_DEVICES);
            assert!(share.standing_marks * all <= STANDING_MARKS);
            assert!(share.live_devices * all <= LIVE_DEVICES);
            assert!(share.batch_rows * all <= BATCH_ROWS);
        }
        // With few writers, batches are as large as configured.
        assert_eq!(shares(2, 400_000).batch_rows, 400_000);
        assert_eq!(shares(2, 1_000_000).batch_rows, 1_000_000);
        assert_eq!(shares(8, 100_000).batch_rows, 100_000);
        assert_eq!(shares(64, 1).batch_rows, 1);
        assert_eq!(shares(64, 10_000).batch_rows, 1_250);
        assert_eq!(shares(64, 400_000).moderate_rows, 12_500);
        assert_eq!(shares(2, 400_000).moderate_rows, 100_000);
    }
}
