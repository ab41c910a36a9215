//! What one writer may hold in memory: its share of totals that do not grow with the shards.
//!
//! Each device belongs to one shard, so a share holds what the shard needs. What is not divided is
//! small: a writer's connection, and 64 KiB of a COPY.

use super::live::DEVICES_PER_STATEMENT;

/// Cached ids of all writers: some 1,200,000 devices with ids of 16 bytes.
const IDS_BYTES: usize = 64 << 20;
/// Devices of each stream whose newest time the writers remember together; some 30 bytes each.
const SEEN_DEVICES: usize = 400_000;
/// Marks of dirty hours of each stream that the writers remember together; some 50 bytes each.
const STANDING_MARKS: usize = 400_000;
/// Devices whose live status the writers gather together between two upserts; some 120 bytes each.
const LIVE_DEVICES: usize = 400_000;
/// How many devices make an upsert due, whatever the interval. Until then, a device that reports again and again
/// is written once.
const LIVE_DEVICES_EACH: usize = DEVICES_PER_STATEMENT;
/// At most this many of the largest batches are in memory at once: a row takes 90 bytes, and
/// twice that while it is sorted.
const BATCHES: usize = 8;
/// Parts of the log that are read at once: 2 MiB each.
pub(super) const READS_AT_ONCE: usize = 8;

/// One writer's share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shares {
    /// Bytes of cached ids.
    pub(super) ids_bytes: usize,
    /// Devices of each stream of which it remembers the newest time.
    pub(super) seen_devices: usize,
    /// Marks of dirty hours of each stream that it remembers.
    pub(super) standing_marks: usize,
    /// Devices of which it gathers live status.
    pub(super) live_devices: usize,
    /// Rows of its largest batch.
    pub(super) batch_rows: usize,
}

impl Shares {
    /// Divides among this many writers; with few of them, the largest batch is as configured.
    pub(super) fn new(writers: u16, batch_rows_max: usize) -> Self {
        let writers = usize::from(writers).max(1);
        let batches = batch_rows_max.saturating_mul(BATCHES);
        Shares {
            ids_bytes: IDS_BYTES / writers,
            seen_devices: SEEN_DEVICES / writers,
            standing_marks: STANDING_MARKS / writers,
            live_devices: (LIVE_DEVICES / writers).min(LIVE_DEVICES_EACH),
            batch_rows: (batches / writers).clamp(1, batch_rows_max.max(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_writers_hold_does_not_grow_with_them() {
        for writers in 1..=64 {
            let share = Shares::new(writers, 100_000);
            let all = usize::from(writers);
            assert!(share.ids_bytes * all <= IDS_BYTES);
            assert!(share.seen_devices * all <= SEEN_DEVICES);
            assert!(share.standing_marks * all <= STANDING_MARKS);
            assert!(share.live_devices * all <= LIVE_DEVICES);
            assert!(share.batch_rows * all <= 100_000 * BATCHES);
        }
        // Few writers take batches as large as they are configured.
        assert_eq!(Shares::new(8, 100_000).batch_rows, 100_000);
        assert_eq!(Shares::new(64, 1).batch_rows, 1);
    }
}
