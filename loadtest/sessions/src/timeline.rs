//! Merges the starts, readings and ends of many stays into one sequence, ordered by time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::iter::Peekable;
use std::sync::Arc;

use crate::curve::{self, Sample};
use crate::data::Stay;

/// One stay placed in the time of the replay.
#[derive(Debug, Clone, PartialEq)]
pub struct Booking {
    /// Its index among all bookings of this replay.
    pub number: usize,
    /// The recorded stay.
    pub stay: Arc<Stay>,
    /// The id under which its session is registered.
    pub session_id: String,
    /// The id of its vehicle.
    pub vehicle_id: String,
    /// By how much the stay is moved from its recorded time.
    pub shift_us: i64,
}

impl Booking {
    /// When the vehicle plugs in, microseconds since 1970 UTC, in the time of the replay.
    pub fn start_us(&self) -> i64 {
        self.stay.start_us + self.shift_us
    }

    /// When the vehicle leaves, microseconds since 1970 UTC, in the time of the replay.
    pub fn end_us(&self) -> i64 {
        self.stay.end_us + self.shift_us
    }
}

/// Something that happens at a moment of the replay.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A vehicle plugs in.
    Start(Arc<Booking>),
    /// The meter and the vehicle report. The sample's time is the recorded one.
    Reading(Arc<Booking>, Sample),
    /// The vehicle leaves.
    End(Arc<Booking>),
}

impl Event {
    /// When it happens, microseconds since 1970 UTC, in the time of the replay.
    pub fn at_us(&self) -> i64 {
        match self {
            Event::Start(booking) => booking.start_us(),
            Event::Reading(booking, sample) => sample.at_us + booking.shift_us,
            Event::End(booking) => booking.end_us(),
        }
    }
}

/// A stay under way, with its remaining samples.
struct Running {
    booking: Arc<Booking>,
    samples: std::vec::IntoIter<Sample>,
}

/// The sequence of all events, generated on demand so that only stays under way are in memory. The bookings may be
/// endless.
///
/// Order:  by time; at the same moment readings, then ends, then starts, so that a session ends before the next
///         one at the same station begins, even if they touch
pub struct Timeline<I: Iterator<Item = Arc<Booking>>> {
    bookings: Peekable<I>,
    efficiency: Option<f64>,
    /// When the next event of each running stay is due: (time, readings before ends, booking).
    due: BinaryHeap<Reverse<(i64, bool, usize)>>,
    running: std::collections::HashMap<usize, Running>,
}

impl<I: Iterator<Item = Arc<Booking>>> Timeline<I> {
    /// Makes the sequence from bookings that are sorted by start.
    pub fn new(bookings: I, efficiency: Option<f64>) -> Self {
        Timeline {
            bookings: bookings.peekable(),
            efficiency,
            due: BinaryHeap::new(),
            running: std::collections::HashMap::new(),
        }
    }

    fn begin(&mut self, booking: Arc<Booking>) -> Event {
        let samples = curve::trace(&booking.stay, self.efficiency).into_iter();
        let number = booking.number;
        let running = Running {
            booking: Arc::clone(&booking),
            samples,
        };
        self.schedule(number, &running);
        self.running.insert(number, running);
        Event::Start(booking)
    }

    fn schedule(&mut self, number: usize, running: &Running) {
        let entry = match running.samples.as_slice().first() {
            Some(sample) => (sample.at_us + running.booking.shift_us, false, number),
            None => (running.booking.end_us(), true, number),
        };
        self.due.push(Reverse(entry));
    }
}

impl<I: Iterator<Item = Arc<Booking>>> Iterator for Timeline<I> {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let start_us = self.bookings.peek().map(|booking| booking.start_us());
        let due_us = self.due.peek().map(|Reverse((at_us, ..))| *at_us);
        if let Some(start_us) = start_us
            && due_us.is_none_or(|due_us| start_us < due_us)
        {
            let booking = self.bookings.next()?;
            return Some(self.begin(booking));
        }
        let Reverse((_, ends, number)) = self.due.pop()?;
        let mut running = self.running.remove(&number)?;
        if ends {
            return Some(Event::End(running.booking));
        }
        let sample = running.samples.next()?;
        let booking = Arc::clone(&running.booking);
        self.schedule(number, &running);
        self.running.insert(number, running);
        Some(Event::Reading(booking, sample))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{parse, select};
    use crate::plan;

    fn events() -> Vec<Event> {
        let day = select(parse(crate::DAY_OF_JPL).unwrap()).stays;
        Timeline::new(plan::as_recorded(day), None).collect()
    }

    #[test]
    fn events_come_in_order_of_time() {
        let events = events();
        assert!(events.windows(2).all(|w| w[0].at_us() <= w[1].at_us()));
        assert_eq!(
            events
                .iter()
                .filter(|e| matches!(e, Event::Start(_)))
                .count(),
            86
        );
        assert_eq!(
            events.iter().filter(|e| matches!(e, Event::End(_))).count(),
            86
        );
    }

    #[test]
    fn readings_lie_within_their_session() {
        let mut open = std::collections::HashSet::new();
        let mut seen = std::collections::HashSet::new();
        for event in events() {
            let at_us = event.at_us();
            match event {
                Event::Start(booking) => assert!(open.insert(booking.number)),
                Event::End(booking) => assert!(open.remove(&booking.number)),
                Event::Reading(booking, _) => {
                    assert!(open.contains(&booking.number));
                    assert!(booking.start_us() < at_us && at_us <= booking.end_us());
                    assert!(seen.insert((booking.stay.station_id.clone(), at_us)));
                }
            }
        }
        assert!(open.is_empty());
    }
}
