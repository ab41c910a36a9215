//! Clients that wait for a commit. While there are any, the shard's writer does not linger.

use std::sync::atomic::{AtomicU32, Ordering};

use super::Progress;
use crate::wal::append::Stretch;

impl Progress {
    /// Waits until the readings at these positions of the current run are stored.
    ///
    /// In each shard it waits only for the last frame with readings of the request: if the shard then has nothing
    /// more to store, its checkpoint stays there. All readings must be stored at one moment, because the database
    /// may move to another server while the wait for a later shard continues.
    ///
    /// Cancel: safe
    pub async fn wait_stored(&self, places: &[Stretch]) {
        let _waiting = Waiting::new(self, places);
        // A writer looks for waiting clients when it wakes. Wake one that already lingers.
        self.synced.send_modify(|_| {});
        loop {
            for place in places {
                if let Some(sender) = self.stored.get(usize::from(place.shard)) {
                    let mut stored = sender.subscribe();
                    // It can fail only if the sender is dropped, and `self` owns the sender.
                    drop(stored.wait_for(|stored| *stored > place.at).await);
                }
            }
            if places.len() <= 1 || self.are_stored(places) {
                return;
            }
        }
    }

    /// Whether the readings at all of these positions are stored now.
    fn are_stored(&self, places: &[Stretch]) -> bool {
        let _unchanged = self.lock();
        places.iter().all(|place| {
            let sender = self.stored.get(usize::from(place.shard));
            sender.is_none_or(|stored| *stored.borrow() > place.at)
        })
    }

    /// How many of the readings at these positions are in quarantine, once all of them are stored. `None` means
    /// unknown: the response of their commit was lost, or too many other readings were quarantined since.
    pub fn quarantined_at(&self, places: &[Stretch]) -> Option<u64> {
        self.lock().quarantined.count(places)
    }

    /// Whether a client waits for a commit of this shard.
    pub fn is_urgent(&self, shard: u16) -> bool {
        self.waiters
            .get(usize::from(shard))
            .is_some_and(|n| n.load(Ordering::Acquire) > 0)
    }
}

/// Counts a waiting client in each of its positions' shards, until it is dropped.
struct Waiting<'a> {
    progress: &'a Progress,
    places: &'a [Stretch],
}

impl<'a> Waiting<'a> {
    fn new(progress: &'a Progress, places: &'a [Stretch]) -> Self {
        let waiting = Waiting { progress, places };
        waiting.each(|n| {
            n.fetch_add(1, Ordering::AcqRel);
        });
        waiting
    }

    fn each(&self, change: impl Fn(&AtomicU32)) {
        for place in self.places {
            if let Some(n) = self.progress.waiters.get(usize::from(place.shard)) {
                change(n);
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.each(|n| {
            n.fetch_sub(1, Ordering::AcqRel);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::reading::{Stream, StreamCounts};
    use crate::wal::frame::Position;
    use crate::wal::progress::{RunShard, Stored, Tally};

    fn poll(waits: &mut Pin<&mut impl Future>) -> Poll<()> {
        let mut cx = Context::from_waker(Waker::noop());
        waits.as_mut().poll(&mut cx).map(drop)
    }

    /// A position after the first segment's header.
    fn at(offset: u32) -> Position {
        Position::START.plus(offset)
    }

    fn meters(readings: u64) -> StreamCounts {
        StreamCounts::of(Stream::Meter, readings)
    }

    fn shard_of_run(shard: u16) -> RunShard {
        RunShard { run: 1, shard }
    }

    /// A checkpoint after which this many readings of the first stream are settled.
    fn stored(offset: u32, readings: u64) -> Stored {
        let tally = Tally {
            stored: meters(readings),
            ..Tally::default()
        };
        Stored {
            position: at(offset),
            live_position: at(offset),
            tally,
            gap: StreamCounts::ZERO,
        }
    }

    /// An idle shard's checkpoint may lag far behind, but its new backlog is young.
    #[test]
    fn the_age_of_a_shards_backlog_is_its_own() {
        let progress = Progress::new(1, 2);
        let long = Duration::from_millis(500);
        progress.appended(&[meters(1), meters(0)], at(100));
        let began = Instant::now();
        while progress.oldest_waits() < long {
            assert!(began.elapsed() < 20 * long, "it is never old");
            std::thread::yield_now();
        }
        progress.committed(shard_of_run(0), stored(100, 1), Vec::new());
        assert_eq!(progress.oldest_waits(), Duration::ZERO);
        let before = Instant::now();
        progress.appended(&[meters(0), meters(1)], at(200));
        assert!(progress.oldest_waits() <= before.elapsed());
    }

    #[tokio::test]
    async fn each_shard_is_waited_for_up_to_its_own_readings() {
        let progress = Progress::new(1, 2);
        let place = |shard, offset| Stretch {
            shard,
            at: at(offset),
            first: 0,
            readings: 1,
        };
        let places = [place(0, 100), place(1, 200)];
        let mut waits = std::pin::pin!(progress.wait_stored(&places));
        assert!(poll(&mut waits).is_pending());
        progress.committed(shard_of_run(1), stored(300, 1), vec![(at(200), 0)]);
        assert!(poll(&mut waits).is_pending());
        // The first shard has nothing to store after its own frame, so its checkpoint stays there.
        progress.committed(shard_of_run(0), stored(200, 1), Vec::new());
        assert!(poll(&mut waits).is_ready());
        assert_eq!(progress.quarantined_at(&places), Some(1));
    }

    /// A commit on the old server must not be combined with one on the new server.
    #[tokio::test]
    async fn a_request_is_stored_when_one_server_has_all_of_it() {
        let progress = Progress::new(1, 2);
        let place = |shard| Stretch {
            shard,
            at: at(100),
            first: 0,
            readings: 1,
        };
        let places = [place(0), place(1)];
        let mut waits = std::pin::pin!(progress.wait_stored(&places));
        assert!(poll(&mut waits).is_pending());
        let commit = |shard| progress.committed(shard_of_run(shard), stored(200, 1), Vec::new());
        commit(0);
        assert!(poll(&mut waits).is_pending());
        assert_eq!(progress.passed(1), Some(Position::START));
        progress.moved_server();
        assert_eq!(progress.passed(1), None);
        commit(1);
        assert!(poll(&mut waits).is_pending());
        // The new server lacks what the old one had committed.
        progress.stored(shard_of_run(0), stored(0, 0));
        assert!(poll(&mut waits).is_pending());
        assert_eq!(progress.passed(1), Some(at(0)));
        commit(0);
        assert!(poll(&mut waits).is_ready());
        // A single position on the old server does not count either.
        progress.moved_server();
        let mut waits = std::pin::pin!(progress.wait_stored(&places[..1]));
        assert!(poll(&mut waits).is_pending());
        progress.stored(shard_of_run(0), stored(200, 1));
        assert!(poll(&mut waits).is_ready());
    }
}
