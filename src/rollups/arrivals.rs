//! Whether readings arrive, so that the rollup yields to them.

use std::time::{Duration, Instant};

use super::Waits;

/// How long after a reading was last seen waiting the roller still treats readings as arriving.
const RECENT: Duration = Duration::from_secs(1);
/// How often, and at what intervals, the roller checks whether readings arrive.
const LOOKS: u32 = 10;
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Whether readings arrive. Why one look is not enough: between two batches, no reading waits.
pub(super) struct Arrivals {
    waits: Waits,
    /// When a reading was last seen waiting.
    last: Option<Instant>,
}

impl Arrivals {
    pub(super) fn new(waits: Waits) -> Self {
        Arrivals { waits, last: None }
    }

    /// How long the oldest reading waits now.
    pub(super) fn wait(&mut self) -> Duration {
        let waits = (self.waits)();
        if !waits.is_zero() {
            self.last = Some(Instant::now());
        }
        waits
    }

    /// Whether a reading was seen waiting a moment ago.
    pub(super) fn were_recent(&self) -> bool {
        self.last.is_some_and(|last| last.elapsed() < RECENT)
    }

    /// Looks a few times. Returns whether a reading was waiting at any of them.
    pub(super) async fn go_on(&mut self) -> bool {
        for _ in 0..LOOKS {
            if !self.wait().is_zero() {
                return true;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        false
    }
}
