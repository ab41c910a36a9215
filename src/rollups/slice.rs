//! Slices: the hours that are rolled up in one go, of the devices that have readings in their partitions.
//!
//! Each stream is read device by device, in the order of the partitions' key. So a slice costs what its readings cost,
//! and two looks at the index for each device in the partitions, however many hours and registered devices there are.
//! A device whose clock was wrong creates partitions for distant months, each of them a slice with a single device.

use std::ops::Range as Span;

use super::readings::Place;
use crate::postgres::partitions::Range;
use crate::reading::{HOUR_MICROS, PerStream, Stream, Timestamp};

/// How much history of a stream a slice reads, about: some million readings. The pages of one
/// hour lie side by side, and those of one device apart, so they should stay in memory for as long as a slice takes:
/// half of PostgreSQL's default `shared_buffers`.
pub(super) const BYTES_MAX: i64 = 64 << 20;
/// The most hours of a slice: a year.
pub(super) const HOURS_MAX: i64 = 366 * 24;
/// The least instant of PostgreSQL.
pub(super) const LEAST: Timestamp =
    Timestamp::from_micros(946_684_800_000_000 - 211_813_488_000_000_000);
/// All instants that a statement can name.
const EVER: Span<Timestamp> = LEAST..Timestamp::from_micros(i64::MAX);

/// Hours that are being rolled up.
#[derive(Debug, Clone)]
pub(super) struct Slice {
    pub(super) hours: Span<Timestamp>,
    /// Where each stream goes on; `None` means that it is done.
    pub(super) next: PerStream<Option<Place>>,
}

impl Slice {
    pub(super) fn new(hours: Span<Timestamp>) -> Self {
        Slice {
            next: PerStream::from_fn(|_| Some(Place::first(&hours))),
            hours,
        }
    }

    /// Where it goes on: in the first stream that is not done. `None` means that it is done.
    pub(super) fn place(&self) -> Option<(Stream, Place)> {
        let mut streams = Stream::ALL.into_iter();
        streams.find_map(|stream| Some((stream, self.next[stream]?)))
    }

    /// Whether its last hour is the one from an instant on.
    pub(super) fn ends_with(&self, hour: Timestamp) -> bool {
        self.hours.end == hour.plus_micros(HOUR_MICROS)
    }

    /// Whether it may go on though the floor may have passed its first hours since it was chosen. A day after that, the
    /// retention drops them.
    pub(super) fn is_kept(&self, floor: Timestamp) -> bool {
        self.hours.start >= floor.hour().plus_micros(-12 * HOUR_MICROS)
    }
}

/// The hour before an instant that starts one.
pub(super) const fn before(hour: Timestamp) -> Timestamp {
    hour.plus_micros(-HOUR_MICROS)
}

/// The hours up to and including the hour that begins at `last`. They cross no edge of a partition.
pub(super) fn older(
    ranges: &[Range],
    floor: Timestamp,
    last: Timestamp,
    hours_max: i64,
) -> Span<Timestamp> {
    let end = last.plus_micros(HOUR_MICROS);
    let edge = edges(ranges).filter(|edge| *edge < end).max();
    let least = end.plus_micros(-hours_max * HOUR_MICROS);
    edge.unwrap_or(last).max(least).max(floor.hour())..end
}

/// The hours from `from` on, at most to `to`. They cross no edge of a partition.
pub(super) fn newer(
    ranges: &[Range],
    from: Timestamp,
    to: Timestamp,
    hours_max: i64,
) -> Span<Timestamp> {
    let edge = edges(ranges).filter(|edge| *edge > from).min();
    let most = from.plus_micros(hours_max * HOUR_MICROS);
    from..to.min(most).min(edge.unwrap_or(to))
}

/// Where partitions begin and end. An hour that contains an edge belongs to the partition before it.
fn edges(ranges: &[Range]) -> impl Iterator<Item = Timestamp> {
    let ends = ranges.iter().flat_map(|range| [range.from, range.to]);
    ends.map(|end| end.hour().plus_micros(HOUR_MICROS))
}

/// Whether a partition with a beginning may have readings of some hours. A partition that begins exactly at their end
/// does not count: it can hold only one of their readings, and one reading has no rollup.
pub(super) fn is_within(range: &Range, hours: &Span<Timestamp>) -> bool {
    !range.is_open_below() && range.from < hours.end && range.to > hours.start
}

/// The time of some hours and of all partitions in which they lie. If only partitions without a beginning can hold
/// them, all of time: between two instants, such a partition would be searched entry by entry for the next device.
pub(super) fn around(ranges: &[Range], hours: &Span<Timestamp>) -> Span<Timestamp> {
    let both = ranges.iter().filter(|range| is_within(range, hours));
    let mut both = both.peekable();
    let mut open = ranges.iter().filter(|range| range.is_open_below());
    if both.peek().is_none() && open.any(|range| range.to > hours.start) {
        return EVER;
    }
    both.fold(hours.clone(), |around, range| {
        around.start.min(range.from)..around.end.max(range.to)
    })
}

/// The newest hour before `built_from` that history has a partition for. What a default partition holds between
/// two others is not rolled up.
pub(super) fn hour_before(
    ranges: &[Range],
    floor: Timestamp,
    built_from: Timestamp,
) -> Option<Timestamp> {
    // A reading at the start of a partition belongs to the hour that ends there.
    let before = ranges.iter().filter(|range| range.from <= built_from);
    let newest = before.map(|range| range.to.min(built_from)).max()?;
    (newest > floor).then(|| newest.hour())
}

/// How many hours are not rolled up yet.
pub(super) fn waiting_hours(
    ranges: &[Range],
    floor: Timestamp,
    built: Span<Timestamp>,
    watermark: Timestamp,
) -> u64 {
    let hours = |from: Timestamp, to: Timestamp| {
        let micros = to.as_micros().saturating_sub(from.as_micros());
        u64::try_from(micros.max(0))
            .unwrap_or(0)
            .div_ceil(HOUR_MICROS as u64)
    };
    let mut behind: Vec<Range> = ranges.to_vec();
    behind.sort_unstable();
    let mut counted_to = floor;
    let mut sum = hours(built.end, watermark);
    for range in behind {
        let from = range.from.max(counted_to);
        let to = range.to.min(built.start);
        if from < to {
            sum += hours(from, to);
            counted_to = to;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_micros(hour * HOUR_MICROS)
    }

    fn range(from: i64, to: i64) -> Range {
        Range {
            from: at(from),
            to: at(to),
        }
    }

    #[test]
    fn a_slice_ends_at_the_edges_of_partitions() {
        let low = Timestamp::from_micros(i64::MIN);
        // Months of one stream, days of the other.
        let ranges = [range(0, 720), range(240, 264), range(720, 1440)];
        let older = |floor, last, most| older(&ranges, floor, at(last), most);
        assert_eq!(older(low, 800, HOURS_MAX), at(720)..at(801));
        assert_eq!(older(low, 719, HOURS_MAX), at(264)..at(720));
        assert_eq!(older(low, 263, HOURS_MAX), at(240)..at(264));
        assert_eq!(older(low, 239, HOURS_MAX), at(0)..at(240));
        // The hour that ends where the first partition begins.
        assert_eq!(older(low, -1, 1), at(-1)..at(0));
        assert_eq!(older(low, 700, 10), at(691)..at(701));
        assert_eq!(older(at(500), 700, HOURS_MAX), at(499)..at(701));
        assert_eq!(older(at(701), 700, HOURS_MAX), at(700)..at(701));
        // Before all partitions.
        assert_eq!(older(low, -1, HOURS_MAX), at(-1)..at(0));
        let newer = |from, to, most| newer(&ranges, at(from), at(to), most);
        assert_eq!(newer(0, 1000, HOURS_MAX), at(0)..at(240));
        assert_eq!(newer(264, 1000, HOURS_MAX), at(264)..at(720));
        assert_eq!(newer(720, 1000, 2), at(720)..at(722));
        assert_eq!(newer(1440, 1441, HOURS_MAX), at(1440)..at(1441));
    }

    #[test]
    fn a_slice_that_takes_half_a_day_is_chosen_again_at_the_floor() {
        let ranges = [range(0, 720)];
        let slice = Slice::new(older(&ranges, at(99), at(719), HOURS_MAX));
        assert_eq!(slice.hours, at(98)..at(720));
        assert!(slice.is_kept(at(99)) && slice.is_kept(at(111)));
        assert!(!slice.is_kept(at(112)));
    }

    #[test]
    fn an_hour_with_an_edge_within_it_is_read_from_both_partitions() {
        let half = HOUR_MICROS / 2;
        let odd = Range {
            from: at(10).plus_micros(half),
            to: at(20),
        };
        let ranges = [
            Range {
                from: at(0),
                to: odd.from,
            },
            odd,
        ];
        let low = Timestamp::from_micros(i64::MIN);
        let upper = older(&ranges, low, at(19), HOURS_MAX);
        assert_eq!(upper, at(11)..at(20));
        assert_eq!(around(&ranges, &upper), odd.from..at(20));
        let lower = older(&ranges, low, at(10), HOURS_MAX);
        assert_eq!(lower, at(0)..at(11));
        assert_eq!(around(&ranges, &lower), at(0)..at(20));
        // Only the end of the last hour lies in the next partition.
        let ranges = [range(0, 10), range(10, 20)];
        assert_eq!(around(&ranges, &(at(0)..at(10))), at(0)..at(10));
        assert_eq!(around(&ranges, &(at(30)..at(31))), at(30)..at(31));
        // A default partition may hold them, or one without a beginning.
        let default = [Range::ALL, range(0, 10)];
        assert_eq!(around(&default, &(at(30)..at(31))), EVER);
        assert_eq!(around(&default, &(at(4)..at(5))), at(0)..at(10));
    }

    #[test]
    fn older_hours_are_rolled_up_backward_where_history_is() {
        let ranges = [range(0, 2), range(10, 20), range(10, 20)];
        let low = Timestamp::from_micros(i64::MIN);
        assert_eq!(hour_before(&ranges, low, at(15)), Some(at(14)));
        assert_eq!(waiting_hours(&ranges, low, at(15)..at(16), at(16)), 7);
        // A reading at the start of a partition ends the hour before it.
        assert_eq!(hour_before(&ranges, low, at(10)), Some(at(9)));
        assert_eq!(hour_before(&ranges, low, at(9)), Some(at(1)));
        assert_eq!(hour_before(&ranges, low, at(1)), Some(at(0)));
        assert_eq!(hour_before(&ranges, low, at(0)), Some(at(-1)));
        assert_eq!(hour_before(&ranges, low, at(-1)), None);
        assert_eq!(waiting_hours(&ranges, low, at(-1)..at(18), at(20)), 2);
        assert_eq!(hour_before(&ranges, at(14), at(15)), Some(at(14)));
        assert_eq!(hour_before(&ranges, at(14), at(14)), None);
    }
}
