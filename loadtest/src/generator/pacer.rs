//! The clock of an open loop: wakes each connection at the moment its next request is due.
//!
//! The runtime's own timers tick in whole milliseconds, which would stand in every latency.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// How long it sleeps at least: requests that are due closer together are woken together.
const SLEEP_LEAST: Duration = Duration::from_micros(100);
/// And at most, so that a stop is seen.
const SLEEP_MOST: Duration = Duration::from_millis(100);

/// Wakes connections in turn, one every so often, on a thread of its own.
#[derive(Debug)]
pub(super) struct Pacer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Pacer {
    /// Begins: the first of `lanes` is due at `begin`, each next one `between` later.
    pub(super) fn start(lanes: Vec<Arc<Notify>>, begin: Instant, between: Duration) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || pace(&lanes, begin, between, &stopped));
        Pacer { stop, thread }
    }

    /// Ends it.
    ///
    /// Blocks: for the longest sleep at most
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        // It has nothing to tell.
        drop(self.thread.join());
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a thread of its own, whose sleep is what it is for"
)]
fn pace(lanes: &[Arc<Notify>], begin: Instant, between: Duration, stop: &AtomicBool) {
    let count = lanes.len() as u128;
    let between = between.as_nanos().max(1);
    let mut next = 0_u128;
    while !stop.load(Ordering::Relaxed) {
        let passed = begin.elapsed().as_nanos();
        let due = passed / between;
        // More than a round behind, every connection is woken once.
        next = next.max(due.saturating_sub(count));
        while next <= due {
            lanes[(next % count) as usize].notify_one();
            next += 1;
        }
        let at = between * next;
        let left = Duration::from_nanos(u64::try_from(at - passed).unwrap_or(u64::MAX));
        std::thread::sleep(left.clamp(SLEEP_LEAST, SLEEP_MOST));
    }
}
