//! The newest reading of each device that a session has stored: a newer one cannot be a repeat of it.
//!
//! This is only a hint about which rows to look up before they are stored. Another gateway may have stored newer
//! readings of a device. Then the primary key refuses the batch, and every row is looked up.

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::rows::HistoryRow;
use crate::postgres::registry::Thinner;
use crate::reading::Timestamp;

/// Devices remembered unless another bound is given.
const DEVICES_MAX: usize = 200_000;

/// The newest stored time of each device of one stream.
#[derive(Debug)]
pub struct NewestSeen {
    devices: HashMap<i32, Timestamp, RandomState>,
    devices_max: usize,
    thinner: Thinner,
}

impl Default for NewestSeen {
    fn default() -> Self {
        NewestSeen::new(DEVICES_MAX)
    }
}

impl NewestSeen {
    /// Makes one that remembers at most this many devices.
    pub fn new(devices_max: usize) -> Self {
        NewestSeen {
            devices: HashMap::default(),
            devices_max: devices_max.max(1),
            thinner: Thinner::default(),
        }
    }

    /// Records rows that are stored. A full memory drops some of its devices, as the cache of ids does.
    ///
    /// Order:  sorted by device, with the newest row of each device last
    pub fn note<R: HistoryRow>(&mut self, rows: &[R]) {
        for of_device in rows.chunk_by(|a, b| a.key().0 == b.key().0) {
            let Some((device, at)) = of_device.last().map(R::key) else {
                continue;
            };
            if self.devices.len() >= self.devices_max && !self.devices.contains_key(&device) {
                let thinning = self.thinner.next_round();
                self.devices.retain(|device, _| thinning.keeps(*device));
            }
            let newest = self.devices.entry(device).or_insert(at);
            *newest = at.max(*newest);
        }
    }

    /// The rows that may be stored already, in their order.
    pub fn suspects<R: HistoryRow>(&self, rows: &[R]) -> Vec<R> {
        let known = |device: i32| self.devices.get(&device).copied();
        rows.iter()
            .filter(|row| {
                let (device, at) = row.key();
                known(device).is_none_or(|newest| at <= newest)
            })
            .copied()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::writer::rows::MeterRow;

    fn row(id: i32, at: i64) -> MeterRow {
        MeterRow::for_test(id, Timestamp::from_micros(at), 1.0)
    }

    #[test]
    fn only_rows_newer_than_all_stored_are_not_suspects() {
        let mut seen = NewestSeen::default();
        seen.note(&[row(1, 10), row(1, 20), row(2, 5)]);
        seen.note(&[row(1, 15)]);
        let rows = [row(1, 15), row(1, 20), row(1, 21), row(2, 6), row(3, 99)];
        assert_eq!(
            seen.suspects(&rows),
            [row(1, 15), row(1, 20), row(3, 99)],
            "a device that was never seen is suspect too"
        );
    }

    #[test]
    fn the_memory_of_devices_is_bounded_and_forgets_some() {
        let mut seen = NewestSeen::new(1_000);
        for id in 0..5_000 {
            seen.note(&[row(id, 1)]);
            assert!(seen.devices.len() <= 1_000);
        }
        let rows: Vec<MeterRow> = (0..5_000).map(|id| row(id, 2)).collect();
        let suspects = seen.suspects(&rows).len();
        // Only the devices that it still remembers are not suspects, and it remembers most of its 1,000.
        assert!((4_000..4_300).contains(&suspects), "{suspects}");
    }
}
