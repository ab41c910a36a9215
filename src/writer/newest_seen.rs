//! The newest reading of each device that a session has stored. A newer reading cannot be a repeat, and an older
//! one cannot change live status.
//!
//! For repeats this is only a hint about which rows to look up first. If another gateway has stored newer readings
//! of a device, the primary key refuses the batch, and then every row is looked up.
//!
//! For live status it is exact with any number of gateways: what this session wrote there, or is about to write,
//! is replaced only by newer readings.

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::rows::HistoryRow;
use crate::postgres::registry::Thinner;
use crate::reading::Timestamp;

/// How many devices are remembered by default.
const DEVICES_MAX: usize = 200_000;

/// The newest time of a device, and whether this session passed that reading on to live status. Both share one
/// number to save memory, because there may be many devices.
#[derive(Debug, Clone, Copy)]
struct Seen(i64);

impl Seen {
    /// Timestamps have four-digit years, so one bit is free.
    fn new(at: Timestamp, is_live: bool) -> Self {
        Seen((at.as_micros() << 1) | i64::from(is_live))
    }

    fn at(self) -> Timestamp {
        Timestamp::from_micros(self.0 >> 1)
    }

    fn is_live(self) -> bool {
        self.0 & 1 == 1
    }
}

/// The newest stored time of each device of one stream.
#[derive(Debug)]
pub struct NewestSeen {
    devices: HashMap<i32, Seen, RandomState>,
    devices_max: usize,
    thinner: Thinner,
}

impl Default for NewestSeen {
    fn default() -> Self {
        NewestSeen::new(DEVICES_MAX)
    }
}

impl NewestSeen {
    /// Makes a memory of at most this many devices.
    pub fn new(devices_max: usize) -> Self {
        NewestSeen {
            devices: HashMap::default(),
            devices_max: devices_max.max(1),
            thinner: Thinner::default(),
        }
    }

    /// Records rows that history holds. `new` are the rows that history did not hold before and that live status
    /// gets; `None` means all of them. A full memory evicts some devices, as the cache of ids does.
    ///
    /// Order:  sorted by device, with the newest row of each device last; `new` in the same order
    pub fn note<R: HistoryRow>(&mut self, rows: &[R], new: Option<&[R]>) {
        let mut new = new.map(|new| new.iter().map(R::key).peekable());
        for of_device in rows.chunk_by(|a, b| a.key().0 == b.key().0) {
            let mut last = None;
            for key in of_device.iter().map(R::key) {
                let is_new = new
                    .as_mut()
                    .is_none_or(|new| new.next_if_eq(&key).is_some());
                last = Some((key, is_new));
            }
            let Some(((device, at), is_new)) = last else {
                continue;
            };
            if self.devices.len() >= self.devices_max && !self.devices.contains_key(&device) {
                let thinning = self.thinner.next_round();
                self.devices.retain(|device, _| thinning.keeps(*device));
            }
            let seen = Seen::new(at, is_new);
            let newest = self.devices.entry(device).or_insert(seen);
            if at > newest.at() {
                *newest = seen;
            }
        }
    }

    /// Whether live status holds this reading of a device or a newer one, or will with the next upsert.
    pub(super) fn is_live(&self, device: i32, at: Timestamp) -> bool {
        let seen = self.devices.get(&device);
        seen.is_some_and(|seen| seen.is_live() && at <= seen.at())
    }

    /// The rows that may already be stored, in order.
    pub fn suspects<R: HistoryRow>(&self, rows: &[R]) -> Vec<R> {
        let known = |device: i32| self.devices.get(&device).map(|seen| seen.at());
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
        seen.note(&[row(1, 10), row(1, 20), row(2, 5)], None);
        seen.note(&[row(1, 15)], None);
        let rows = [row(1, 15), row(1, 20), row(1, 21), row(2, 6), row(3, 99)];
        assert_eq!(
            seen.suspects(&rows),
            [row(1, 15), row(1, 20), row(3, 99)],
            "a device that was never seen is suspect too"
        );
    }

    #[test]
    fn only_what_the_session_stored_itself_is_known_to_be_live() {
        let is_live = |seen: &NewestSeen, id, at| seen.is_live(id, Timestamp::from_micros(at));
        let mut seen = NewestSeen::default();
        // Times before 1970 work too.
        let rows = [row(1, -20), row(1, -10), row(2, 5), row(2, 6), row(3, 7)];
        seen.note(&rows, Some(&[row(1, -10), row(2, 5), row(3, 7)]));
        assert!(is_live(&seen, 1, -10) && is_live(&seen, 1, -20) && !is_live(&seen, 1, -9));
        // Device 2's newest reading was a repeat or was refused. Another gateway may not have written it to live
        // status yet, or no gateway ever will.
        assert!(!is_live(&seen, 2, 6) && !is_live(&seen, 2, 5));
        assert!(is_live(&seen, 3, 7) && !is_live(&seen, 4, 0));
        seen.note(&[row(2, 8)], None);
        assert!(is_live(&seen, 2, 8) && is_live(&seen, 2, 5));
        seen.note(&[row(2, 7), row(3, 8)], Some(&[row(2, 7)]));
        assert!(is_live(&seen, 2, 8) && !is_live(&seen, 3, 7));
    }

    #[test]
    fn the_memory_of_devices_is_bounded_and_forgets_some() {
        let mut seen = NewestSeen::new(1_000);
        for id in 0..5_000 {
            seen.note(&[row(id, 1)], None);
            assert!(seen.devices.len() <= 1_000);
        }
        let rows: Vec<MeterRow> = (0..5_000).map(|id| row(id, 2)).collect();
        let suspects = seen.suspects(&rows).len();
        // Every device that is not remembered is a suspect, and 700 to 1,000 are remembered.
        assert!((4_000..4_300).contains(&suspects), "{suspects}");
    }
}
