//! Waits until the last hours are rolled up, before the fleet's efficiency is evaluated.
//!
//! Without rollups, a report on the fleet reads every reading of a day in one snapshot. For a large fleet that takes
//! many seconds. Meanwhile no page of live status can be pruned, and each upsert costs twice as much.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::AlertError;
use crate::energy::interval::Interval;
use crate::postgres::migrations::stored_retention;
use crate::postgres::partitions;
use crate::postgres::partitions::{Partitions, Range};
use crate::reading::{HOUR_MICROS, Stream, Timestamp};

/// How long a search waits in all. Not for ever: a roller that keeps yielding to the writers, or stops at the
/// retention, may delay alerts but must not prevent them.
const PATIENCE: Duration = Duration::from_secs(30 * 60);
/// The newest hours of a window, which are always read from history: the current one, and the one before, whose late
/// readings may still come.
const RAW_MICROS: i64 = 2 * HOUR_MICROS;

/// Since when the search has waited. It outlives a search that failed, so that a failure now and then does not
/// make the wait endless.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<Option<Instant>>);

impl Waiting {
    /// Whether the window can be searched: its hours are rolled up, or the wait was long enough.
    pub(super) async fn is_over(
        &self,
        client: &Client,
        window: Interval,
        now: Timestamp,
    ) -> Result<bool, AlertError> {
        let row = client.query_one(sql!("hours_progress"), &[]).await?;
        let built: Option<(Timestamp, Timestamp)> = Option::zip(row.try_get(1)?, row.try_get(2)?);
        let floor = partitions::oldest_rolled_up(now, stored_retention(client).await?);
        let both = partitions::load_both(client)
            .await?
            .map(Partitions::into_ranges);
        let ranges = Stream::ALL.into_iter().flat_map(|stream| &both[stream]);
        let expected = expected(window, floor, ranges.copied());
        Ok(self.decide(is_rolled_up(expected, built), Instant::now()))
    }

    fn decide(&self, is_rolled_up: bool, now: Instant) -> bool {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if is_rolled_up {
            *since = None;
            return true;
        }
        now.duration_since(*since.get_or_insert(now)) >= PATIENCE
    }
}

/// The hours of a window that the roller should have rolled up. It does not reach its newest hours, hours below the
/// retention's floor, and partitions without a beginning. Before all partitions there are no readings.
///
/// Shape:  `None` means that there are none
fn expected(
    window: Interval,
    floor: Timestamp,
    partitions: impl Iterator<Item = Range>,
) -> Option<(Timestamp, Timestamp)> {
    let within = partitions.filter(|range| range.to > window.start() && !range.is_open_below());
    let oldest = within.map(|range| range.from).min()?;
    let from = window
        .start()
        .max(oldest)
        .max(floor)
        .plus_micros(HOUR_MICROS);
    let to = window.end().plus_micros(-RAW_MICROS);
    (from < to).then_some((from, to))
}

fn is_rolled_up(
    expected: Option<(Timestamp, Timestamp)>,
    built: Option<(Timestamp, Timestamp)>,
) -> bool {
    expected.is_none_or(|(from, to)| {
        built.is_some_and(|(built_from, built_to)| built_from <= from && to <= built_to)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hour(n: i64) -> Timestamp {
        Timestamp::from_micros(n * HOUR_MICROS)
    }

    #[test]
    fn a_window_is_rolled_up_where_there_may_be_readings() {
        let window = Interval::new(hour(100), hour(124)).unwrap();
        let open_below = i64::MIN;
        let after = |floor: i64, built: Option<(i64, i64)>, partitions: &[(i64, i64)]| {
            let built = built.map(|(from, to)| (hour(from), hour(to)));
            let ranges = partitions.iter().map(|(from, to)| Range {
                from: match *from == open_below {
                    true => Timestamp::from_micros(i64::MIN),
                    false => hour(*from),
                },
                to: hour(*to),
            });
            is_rolled_up(expected(window, hour(floor), ranges), built)
        };
        let rolled_up = |built, partitions: &[(i64, i64)]| after(0, built, partitions);
        let month = [(0, 720)];
        assert!(rolled_up(Some((100, 123)), &month));
        // Half an hour may be missing at each end.
        assert!(rolled_up(Some((101, 122)), &month));
        assert!(!rolled_up(Some((102, 123)), &month));
        assert!(!rolled_up(Some((100, 121)), &month));
        assert!(!rolled_up(None, &month));
        // The first month began within the window: no hour before it is ever rolled up.
        assert!(rolled_up(Some((110, 123)), &[(110, 720), (720, 1440)]));
        assert!(!rolled_up(Some((112, 123)), &[(110, 720), (720, 1440)]));
        // A partition that begins after all those hours, or ended before the window, or no partition at all.
        assert!(rolled_up(None, &[(122, 720)]));
        assert!(rolled_up(None, &[(0, 100)]) && rolled_up(None, &[]));
        // Hours of a partition without a beginning are never rolled up.
        assert!(rolled_up(None, &[(open_below, 720)]));
        assert!(rolled_up(
            Some((110, 123)),
            &[(open_below, 110), (110, 720)]
        ));
        // Nor are those that the retention is about to drop.
        assert!(after(110, Some((110, 123)), &month));
        assert!(!after(110, Some((112, 123)), &month));
        assert!(after(130, None, &month));
    }

    #[test]
    fn a_search_waits_for_the_roller_but_not_for_ever() {
        let began = Instant::now();
        let waiting = Waiting::default();
        let minutes = |n: u64| began + Duration::from_secs(n * 60);
        assert!(!waiting.decide(false, minutes(0)));
        assert!(!waiting.decide(false, minutes(29)));
        assert!(waiting.decide(false, minutes(30)));
        assert!(waiting.decide(false, minutes(90)));
        assert!(waiting.decide(true, minutes(91)));
        assert!(!waiting.decide(false, minutes(92)));
    }
}
