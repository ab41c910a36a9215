//! Shuffles the readings of a replay.

use wattgate_sessions::timeline::Event;

use crate::campaign::random::Random;

/// The same events, with the readings in random order between all starts and all ends, like readings of devices
/// that were offline.
///
/// Shape:  every event is in memory, some 60 bytes each, so the timeline must be finite
pub(crate) fn shuffled(
    events: impl Iterator<Item = Event>,
    seed: u64,
) -> impl Iterator<Item = Event> + Send {
    let (mut starts, mut readings, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for event in events {
        match event {
            Event::Start(_) => starts.push(event),
            Event::Reading(..) => readings.push(event),
            Event::End(_) => ends.push(event),
        }
    }
    let mut random = Random::new(seed);
    for last in (1..readings.len()).rev() {
        readings.swap(last, random.below(last as u64 + 1) as usize);
    }
    starts.into_iter().chain(readings).chain(ends)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wattgate_sessions::data::{parse, select};
    use wattgate_sessions::plan;
    use wattgate_sessions::timeline::Timeline;

    fn events() -> Vec<Event> {
        let day = select(parse(wattgate_sessions::DAY_OF_JPL).unwrap()).stays;
        Timeline::new(plan::as_recorded(day), None).collect()
    }

    #[test]
    fn a_shuffle_reorders_the_same_events_by_seed() {
        let key = |e: &Event| (e.at_us(), format!("{e:?}"));
        let in_order: Vec<_> = events().iter().map(key).collect();
        let shuffle = |seed| -> Vec<_> {
            shuffled(events().into_iter(), seed)
                .map(|e| key(&e))
                .collect()
        };
        let mut some = shuffle(7);
        assert_eq!(some, shuffle(7));
        assert_ne!(some, shuffle(8));
        let inner = &some[86..some.len() - 86];
        let later = inner.windows(2).filter(|w| w[0].0 < w[1].0).count();
        assert!((inner.len() * 2 / 5..inner.len() * 3 / 5).contains(&later));
        let mut sorted = in_order;
        sorted.sort_unstable();
        some.sort_unstable();
        assert_eq!(some, sorted);
    }
}
