//! Up to which moment a replica holds everything: the end of the primary's WAL, sampled at moments.
//!
//! `pg_last_xact_replay_timestamp()` does not show it. Without new transactions it stands still, so that an idle
//! primary would look like a replica that falls behind; and it is of the primary's clock. A replica that has
//! replayed what the primary's WAL held at a moment holds everything that was committed before that moment.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::super::lineage::Server;
use super::position::WalPosition;
use crate::reading::Timestamp;

/// The most samples. Why: two a second for the longest lag that may be allowed.
const SAMPLES_MAX: usize = 2 * 3600 + 16;

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// By the gateway's clock, for clients.
    pub(super) at: Timestamp,
    /// By a clock that does not jump.
    pub(super) instant: Instant,
}

impl Moment {
    pub(super) fn now() -> Self {
        Moment {
            at: Timestamp::now(),
            instant: Instant::now(),
        }
    }
}

/// Where the primary's WAL ended at moments, of one server.
#[derive(Debug, Default)]
pub(super) struct Samples {
    server: Option<Server>,
    /// Ascending by both.
    taken: VecDeque<(Moment, u64)>,
}

impl Samples {
    /// Adds a sample: at the moment, the WAL did not reach beyond the position.
    pub(super) fn add(&mut self, moment: Moment, end: WalPosition, keep: Duration) {
        if self.server != Some(end.server) {
            self.server = Some(end.server);
            self.taken.clear();
        }
        match self.taken.back_mut() {
            // Nothing was written since.
            Some((last, lsn)) if *lsn == end.lsn => *last = moment,
            // Two were taken at once.
            Some((_, lsn)) if *lsn > end.lsn => return,
            _ => self.taken.push_back((moment, end.lsn)),
        }
        let is_old = |(taken, _): &(Moment, u64)| moment.instant - taken.instant > keep;
        while self.taken.len() > SAMPLES_MAX || self.taken.front().is_some_and(is_old) {
            self.taken.pop_front();
        }
    }

    /// The last moment before which everything is contained in the WAL up to a position.
    pub(super) fn complete_to(&self, position: WalPosition) -> Option<Moment> {
        if self.server != Some(position.server) {
            return None;
        }
        let contained = self.taken.partition_point(|(_, lsn)| *lsn <= position.lsn);
        contained.checked_sub(1).map(|last| self.taken[last].0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Duration = Duration::from_secs(30);

    fn position(timeline: u32, lsn: u64) -> WalPosition {
        let server = Server {
            system: 1,
            timeline,
        };
        WalPosition { server, lsn }
    }

    fn after(start: Moment, seconds: u64) -> Moment {
        Moment {
            at: start.at.plus_micros(seconds as i64 * 1_000_000),
            instant: start.instant + Duration::from_secs(seconds),
        }
    }

    #[test]
    fn a_replica_is_complete_to_the_last_end_that_it_has_replayed() {
        let start = Moment::now();
        let mut samples = Samples::default();
        assert_eq!(samples.complete_to(position(1, 100)), None);
        for (seconds, lsn) in [(0, 100), (1, 200), (2, 200), (3, 300)] {
            samples.add(after(start, seconds), position(1, lsn), KEEP);
        }
        assert_eq!(samples.complete_to(position(1, 99)), None);
        assert_eq!(samples.complete_to(position(1, 199)), Some(start));
        // An idle primary does not make a replica late.
        assert_eq!(samples.complete_to(position(1, 200)), Some(after(start, 2)));
        assert_eq!(samples.complete_to(position(1, 900)), Some(after(start, 3)));
        assert_eq!(samples.complete_to(position(2, 900)), None);
    }

    #[test]
    fn samples_of_another_server_and_old_ones_are_dropped() {
        let start = Moment::now();
        let mut samples = Samples::default();
        samples.add(start, position(1, 100), KEEP);
        samples.add(after(start, 31), position(1, 200), KEEP);
        assert_eq!(samples.complete_to(position(1, 199)), None);
        samples.add(after(start, 32), position(2, 150), KEEP);
        assert_eq!(samples.complete_to(position(1, 900)), None);
        assert_eq!(
            samples.complete_to(position(2, 150)),
            Some(after(start, 32))
        );
        for n in 0..2 * SAMPLES_MAX as u64 {
            samples.add(after(start, 33), position(2, 200 + n), KEEP);
        }
        assert_eq!(samples.taken.len(), SAMPLES_MAX);
    }
}
