//! How long a writer lingers for more readings, and how long it backs off after a failure.

use std::time::Duration;

/// With this many readings waiting, it pays to linger longer: a few thousand arrive per second.
const MANY_READINGS: u64 = 100;
/// How many times longer a batch lingers while many readings arrive. Why 8: in a transaction of 5,000 rows, each
/// row costs a third less than in one of 600, and the commit still follows well within a second.
const LINGER_OF_MANY: u32 = 8;
/// The first pause after a failure. Each further failure doubles it.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// The longest pause.
pub(super) const BACKOFF_MOST: Duration = Duration::from_secs(5);

/// How long a batch lingers while this many readings wait.
pub(super) fn linger(little: Duration, waiting: u64) -> Duration {
    if waiting < MANY_READINGS {
        return little;
    }
    little.saturating_mul(LINGER_OF_MANY)
}

/// The pause before the next try. It doubles with each failure and is scaled by a random fraction of 0 to 1, so
/// that the writers do not all retry at once.
pub(super) fn backoff(failures: u32, fraction: f64) -> Duration {
    let most = BACKOFF_FIRST
        .saturating_mul(1 << failures.min(16))
        .min(BACKOFF_MOST);
    most.mul_f64(0.5 + fraction.clamp(0.0, 1.0) / 2.0)
}

/// A fraction of 0 to 1 for [`backoff`].
pub(super) fn random_fraction() -> f64 {
    // Without the system's random numbers, the pauses of different writers are less spread out.
    getrandom::u32().map_or(0.5, |n| f64::from(n) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_are_spread() {
        assert_eq!(backoff(0, 1.0), BACKOFF_FIRST);
        assert_eq!(backoff(0, 0.0), BACKOFF_FIRST / 2);
        for failures in 0..100 {
            assert!(backoff(failures, 1.0) <= BACKOFF_MOST);
            assert!(backoff(failures + 1, 0.5) >= backoff(failures, 0.5));
        }
        assert_eq!(backoff(50, 1.0), BACKOFF_MOST);
    }

    #[test]
    fn a_batch_waits_longer_only_while_many_readings_come() {
        let little = Duration::from_millis(25);
        assert_eq!(linger(little, 1), little);
        assert_eq!(linger(little, MANY_READINGS - 1), little);
        assert_eq!(linger(little, MANY_READINGS), Duration::from_millis(200));
        assert_eq!(linger(Duration::ZERO, u64::MAX), Duration::ZERO);
    }
}
