//! Places stays in the time of the replay: as recorded, or moved so that the busiest moment is now.

use std::sync::Arc;

use crate::data::Stay;
use crate::timeline::Booking;

/// A day, in microseconds. The rounds of a live replay are whole days apart.
const DAY_US: i64 = 86_400_000_000;

/// How much history a live replay fills: the gateway's default window.
const HISTORY_US: i64 = DAY_US;

/// The stays at their own times and under their own ids. The vehicle's id is the session's.
///
/// Order:  that of the stays, which are sorted by start
pub fn as_recorded(stays: Vec<Stay>) -> impl Iterator<Item = Arc<Booking>> {
    stays.into_iter().enumerate().map(|(number, stay)| {
        Arc::new(Booking {
            number,
            session_id: stay.session_id.clone(),
            vehicle_id: stay.session_id.clone(),
            stay: Arc::new(stay),
            shift_us: 0,
        })
    })
}

/// The plan of a live replay: the stays over and over, a whole number of days apart.
///
/// Every round has its own sessions `ID@SECONDS`: the id in the data, and the moved start in seconds since 1970. A
/// vehicle has the id of its recorded session in each round, as if it came daily.
#[derive(Debug)]
pub struct Live {
    stays: Vec<Arc<Stay>>,
    /// The time between a stay and its repetition: whole days, at least the length of the recording, so that no
    /// two rounds overlap at a station.
    period_us: i64,
    /// By how much the present round is moved. It is the one that contains the busiest moment.
    shift_us: i64,
    /// Stays that end before this time are left out, because the dashboard does not show them.
    from_us: i64,
}

impl Live {
    /// Moves the stays so that their busiest moment is now.
    pub fn new(stays: Vec<Stay>, now_us: i64) -> Self {
        let stays: Vec<Arc<Stay>> = stays.into_iter().map(Arc::new).collect();
        let first_us = stays.iter().map(|stay| stay.start_us).min().unwrap_or(0);
        let last_us = stays.iter().map(|stay| stay.end_us).max().unwrap_or(0);
        let days = (last_us - first_us + DAY_US - 1).div_euclid(DAY_US).max(1);
        let shift_us = now_us - busiest_us(&stays);
        Live {
            stays,
            period_us: days * DAY_US,
            // Whole seconds, so that a session's id determines the exact shift.
            shift_us: shift_us - shift_us.rem_euclid(1_000_000),
            from_us: now_us - HISTORY_US,
        }
    }

    /// A vehicle that charges at the busiest moment. If there was an earlier live replay, it must have registered
    /// a session of this vehicle last.
    pub fn witness(&self) -> Option<&str> {
        let busiest_us = busiest_us(&self.stays);
        self.stays
            .iter()
            .find(|stay| stay.start_us < busiest_us && busiest_us <= stay.end_us)
            .map(|stay| stay.session_id.as_str())
    }

    /// Continues an earlier live replay with the same sessions at the same times. Then nothing overlaps, and
    /// readings that were already sent are repeats.
    ///
    /// Shape:  `session_id` is any session of the earlier replay; returns whether it really is one
    pub fn resume(&mut self, session_id: &str, now_us: i64) -> bool {
        let Some((id, seconds)) = session_id.rsplit_once('@') else {
            return false;
        };
        let (Ok(seconds), Some(stay)) = (
            seconds.parse::<i64>(),
            self.stays.iter().find(|stay| stay.session_id == id),
        ) else {
            return false;
        };
        let earlier_us = seconds * 1_000_000 - stay.start_us.div_euclid(1_000_000) * 1_000_000;
        // The present round is the latest that has begun.
        let first_us = self.stays.iter().map(|stay| stay.start_us).min();
        let since_us = now_us - (first_us.unwrap_or(0) + earlier_us);
        self.shift_us = earlier_us + since_us.div_euclid(self.period_us) * self.period_us;
        true
    }

    /// All bookings since a day ago, without end.
    ///
    /// Order:  by start
    pub fn bookings(self) -> impl Iterator<Item = Arc<Booking>> {
        let Live {
            stays,
            period_us,
            shift_us,
            from_us,
        } = self;
        // The round moved by `shift_us` is the present one. The previous round may reach into the window.
        (-1_i64..)
            .flat_map(move |round| {
                let shift_us = shift_us + round * period_us;
                let moved = move |stay: &Arc<Stay>| (Arc::clone(stay), shift_us);
                stays.iter().map(moved).collect::<Vec<_>>()
            })
            .filter(move |(stay, shift_us)| stay.end_us + shift_us > from_us)
            .enumerate()
            .map(|(number, (stay, shift_us))| {
                let start_s = (stay.start_us + shift_us).div_euclid(1_000_000);
                Arc::new(Booking {
                    number,
                    session_id: format!("{}@{start_s}", stay.session_id),
                    vehicle_id: stay.session_id.clone(),
                    stay,
                    shift_us,
                })
            })
    }
}

/// The moment with the most concurrent stays: the middle of the longest such period.
fn busiest_us(stays: &[Arc<Stay>]) -> i64 {
    let mut edges: Vec<(i64, i32)> = Vec::with_capacity(stays.len() * 2);
    for stay in stays {
        edges.push((stay.start_us, 1));
        edges.push((stay.end_us, -1));
    }
    edges.sort_unstable();
    let (mut level, mut best) = (0, (0, 0, 0));
    for pair in edges.windows(2) {
        level += pair[0].1;
        let length_us = pair[1].0 - pair[0].0;
        best = best.max((level, length_us, pair[0].0 + length_us / 2));
    }
    best.2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{parse, select};

    const NOW_US: i64 = 1_795_494_123_456_789;

    fn live() -> Live {
        Live::new(select(parse(crate::DAY_OF_JPL).unwrap()).stays, NOW_US)
    }

    #[test]
    fn a_live_replay_is_busy_now_and_fills_the_day_before() {
        let bookings: Vec<_> = live().bookings().take(400).collect();
        let running = |at_us: i64| {
            let runs = |b: &&Arc<Booking>| b.start_us() < at_us && at_us <= b.end_us();
            bookings.iter().filter(runs).count()
        };
        assert!(running(NOW_US) > 40, "{}", running(NOW_US));
        assert_eq!(running(NOW_US), running(NOW_US - DAY_US + 1_000_000));
        assert!(bookings.iter().all(|b| b.end_us() > NOW_US - DAY_US));
        // One stay lasts into tomorrow.
        assert!(bookings.iter().any(|b| b.start_us() > NOW_US + DAY_US));
    }

    #[test]
    fn no_two_rounds_overlap_at_a_station_or_share_a_session() {
        let mut until = std::collections::HashMap::new();
        let mut ids = std::collections::HashSet::new();
        for booking in live().bookings().take(500) {
            let before = until.insert(booking.stay.station_id.clone(), booking.end_us());
            assert!(before.is_none_or(|before| before <= booking.start_us()));
            assert!(ids.insert(booking.session_id.clone()));
            assert!(booking.session_id.len() <= 64);
        }
    }

    #[test]
    fn a_second_live_replay_continues_the_sessions_of_the_first() {
        let first: Vec<_> = live().bookings().take(300).collect();
        let witness = live().witness().unwrap().to_owned();
        let session = first.iter().find(|b| b.vehicle_id == witness).unwrap();
        for later_us in [60_000_000, DAY_US / 2, DAY_US - 1, 3 * DAY_US] {
            let now_us = NOW_US + later_us;
            let stays = select(parse(crate::DAY_OF_JPL).unwrap()).stays;
            let mut second = Live::new(stays, now_us);
            assert!(second.resume(&session.session_id, now_us));
            let second: Vec<_> = second.bookings().take(300).collect();
            let covers = |at_us: i64| {
                second
                    .iter()
                    .any(|b| b.start_us() < at_us && b.end_us() > at_us)
            };
            assert!(covers(now_us - DAY_US + 1) || second[0].start_us() < now_us - DAY_US / 2);
            if later_us < DAY_US {
                let known = |b: &&Arc<Booking>| first.iter().any(|f| f.session_id == b.session_id);
                assert!(second.iter().filter(known).count() > 80);
            }
        }
        assert!(!live().resume("someone else's", NOW_US));
    }
}
