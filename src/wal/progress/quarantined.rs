//! The readings that went into quarantine recently. A client that waits for a commit gets their number.
//!
//! The writers report every reading that they set aside, even if no client waits yet, because a client may begin
//! to wait after the commit. Only the latest are kept.

use std::collections::BTreeMap;

use crate::wal::append::Stretch;
use crate::wal::frame::Position;

/// How many stretches are kept, over all shards. Why 16,384: they take about 1 MiB. Contradicting readings are
/// usually consecutive in a request, so each frame needs only one stretch.
const STRETCHES_MAX: usize = 16_384;

/// Recently quarantined readings, by shard of the current run.
#[derive(Debug, Default)]
pub(super) struct Lately(Vec<OfShard>);

#[derive(Debug, Clone, Default)]
struct OfShard {
    /// Consecutive readings: the position of their frame and the index of the first, mapped to their number.
    stretches: BTreeMap<(Position, u32), u32>,
    /// Frames before this position are no longer known.
    known_from: Position,
}

impl Lately {
    pub(super) fn new(shards: u16) -> Self {
        Lately(vec![OfShard::default(); usize::from(shards)])
    }

    /// Adds the readings that a commit of a shard has set aside.
    pub(super) fn note(&mut self, shard: u16, mut origins: Vec<(Position, u32)>) {
        let most = (STRETCHES_MAX / self.0.len().max(1)).max(1);
        let Some(of_shard) = self.0.get_mut(usize::from(shard)) else {
            return;
        };
        origins.sort_unstable();
        let mut last: Option<(Position, u32, u32)> = None;
        for (at, index) in origins {
            match &mut last {
                Some((same, first, readings)) if *same == at && *first + *readings == index => {
                    *readings += 1;
                }
                _ => {
                    of_shard.add(last.replace((at, index, 1)), most);
                }
            }
        }
        of_shard.add(last, most);
    }

    /// Forgets the readings of a shard before a position.
    pub(super) fn forget_before(&mut self, shard: u16, place: Position) {
        if let Some(of_shard) = self.0.get_mut(usize::from(shard)) {
            of_shard.known_from = of_shard.known_from.max(place);
            of_shard.stretches = of_shard.stretches.split_off(&(place, 0));
        }
    }

    /// How many readings at these positions are in quarantine. `None` if that is unknown for any position.
    pub(super) fn count(&self, places: &[Stretch]) -> Option<u64> {
        places.iter().try_fold(0, |sum, place| {
            let of_shard = self.0.get(usize::from(place.shard))?;
            (place.at >= of_shard.known_from).then(|| sum + of_shard.count(place))
        })
    }
}

impl OfShard {
    fn add(&mut self, stretch: Option<(Position, u32, u32)>, most: usize) {
        let Some((at, first, readings)) = stretch else {
            return;
        };
        self.stretches.insert((at, first), readings);
        while self.stretches.len() > most {
            if let Some(((oldest, _), _)) = self.stretches.pop_first() {
                self.known_from = self.known_from.max(oldest.plus(1));
            }
        }
    }

    fn count(&self, place: &Stretch) -> u64 {
        let end = place.first + place.readings;
        let in_frame = (self.stretches).range((place.at, 0)..(place.at, end));
        let common = in_frame.map(|((_, first), readings)| {
            let to = (first + readings).min(end);
            u64::from(to.saturating_sub((*first).max(place.first)))
        });
        common.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(at: u32, first: u32, readings: u32) -> Stretch {
        let at = Position::new(0, at);
        Stretch {
            shard: 1,
            at,
            first,
            readings,
        }
    }

    fn origins(at: u32, indexes: impl IntoIterator<Item = u32>) -> Vec<(Position, u32)> {
        let indexes = indexes.into_iter();
        indexes.map(|i| (Position::new(0, at), i)).collect()
    }

    #[test]
    fn the_readings_of_a_request_are_counted_and_no_others() {
        let mut lately = Lately::new(2);
        lately.note(1, origins(100, [7, 5, 6, 3, 20]));
        lately.note(0, origins(100, 0..50));
        assert_eq!(lately.count(&[place(100, 0, 3)]), Some(0));
        assert_eq!(lately.count(&[place(100, 3, 3)]), Some(2));
        assert_eq!(lately.count(&[place(100, 6, 100)]), Some(3));
        assert_eq!(
            lately.count(&[place(100, 0, 30), place(200, 0, 30)]),
            Some(5)
        );
    }

    #[test]
    fn an_unknown_number_in_quarantine_is_never_zero() {
        let mut lately = Lately::new(2);
        lately.note(1, origins(100, [1]));
        lately.forget_before(1, Position::new(0, 101));
        assert_eq!(lately.count(&[place(100, 0, 3)]), None);
        assert_eq!(lately.count(&[place(101, 0, 3)]), Some(0));
        let every_second = (0..2 * STRETCHES_MAX as u32).step_by(2);
        lately.note(1, origins(300, every_second));
        assert_eq!(lately.count(&[place(300, 0, 3)]), None);
        lately.note(1, origins(400, [2]));
        assert_eq!(lately.count(&[place(400, 0, 3)]), Some(1));
        assert!(lately.0[1].stretches.len() <= STRETCHES_MAX / 2);
    }
}
