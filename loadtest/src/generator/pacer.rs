//! The clock of an open loop: wakes each connection at the moment its next request is due.
//!
//! The runtime's own timers tick in whole milliseconds, which would stand in every latency.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::stats::Shared;

/// How long it sleeps at least: requests that are due closer together are woken together.
const SLEEP_LEAST: Duration = Duration::from_micros(100);
/// And at most, so that a stop is seen.
const SLEEP_MOST: Duration = Duration::from_millis(100);

/// Wakes connections in turn, one every so often, on a thread of its own.
#[derive(Debug)]
pub(super) struct Pacer {
    thread: JoinHandle<()>,
}

impl Pacer {
    /// Begins: the first of `lanes` is due at `begin`, each next one `between` later.
    pub(super) fn start(
        lanes: Vec<Arc<Notify>>,
        begin: Instant,
        between: Duration,
        until: Instant,
        shared: Arc<Shared>,
    ) -> Self {
        let thread = std::thread::spawn(move || pace(&lanes, begin, between, until, &shared));
        Pacer { thread }
    }

    /// Waits for its end, at the end of the load.
    pub(super) fn join(self) {
        // It has nothing to tell.
        drop(self.thread.join());
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a thread of its own, whose sleep is what it is for"
)]
fn pace(lanes: &[Arc<Notify>], begin: Instant, between: Duration, until: Instant, shared: &Shared) {
    let count = lanes.len() as u128;
    let mut next = 0_u128;
    loop {
        let now = Instant::now();
        if now >= until || shared.is_stopped() {
            return;
        }
        let passed = now.saturating_duration_since(begin).as_nanos();
        let due = passed / between.as_nanos().max(1);
        // More than a round behind, every connection is woken once.
        next = next.max(due.saturating_sub(count));
        while next <= due {
            lanes[(next % count) as usize].notify_one();
            next += 1;
        }
        let at = between.as_nanos() * next;
        let left = Duration::from_nanos(u64::try_from(at - passed).unwrap_or(u64::MAX));
        std::thread::sleep(left.clamp(SLEEP_LEAST, SLEEP_MOST));
    }
}
