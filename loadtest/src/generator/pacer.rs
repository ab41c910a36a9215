//! The clock of an open loop. It wakes each connection exactly when its next request is due.
//!
//! The runtime's timers tick in whole milliseconds, which would distort every latency.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// The shortest sleep. Requests that are due closer together are sent together.
const SLEEP_LEAST: Duration = Duration::from_micros(100);
/// The longest sleep, so that a stop takes effect soon.
const SLEEP_MOST: Duration = Duration::from_millis(100);

/// Wakes connections in turn at a fixed interval, on its own thread.
#[derive(Debug)]
pub(super) struct Pacer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Pacer {
    /// Starts the clock. The first connection is due at `begin`, and each further one `between` later.
    pub(super) fn start(connections: Vec<Arc<Notify>>, begin: Instant, between: Duration) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || pace(&connections, begin, between, &stopped));
        Pacer { stop, thread }
    }

    /// Stops the clock.
    ///
    /// Blocks: at most for the longest sleep
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        // The thread returns nothing.
        drop(self.thread.join());
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a thread of its own, whose sleep is what it is for"
)]
fn pace(connections: &[Arc<Notify>], begin: Instant, between: Duration, stop: &AtomicBool) {
    let count = connections.len() as u128;
    let between = between.as_nanos().max(1);
    let mut next = 0_u128;
    while !stop.load(Ordering::Relaxed) {
        let passed = begin.elapsed().as_nanos();
        let due = passed / between;
        // If the clock is more than a round late, every connection is woken only once.
        next = next.max(due.saturating_sub(count));
        while next <= due {
            connections[(next % count) as usize].notify_one();
            next += 1;
        }
        let at = between * next;
        let left = Duration::from_nanos(u64::try_from(at - passed).unwrap_or(u64::MAX));
        std::thread::sleep(left.clamp(SLEEP_LEAST, SLEEP_MOST));
    }
}
