//! How long a writer waits: for more readings, and before it tries again.

use std::time::Duration;

/// If this many readings wait, more are worth waiting for: a few thousand arrive per second.
const MANY_READINGS: u64 = 100;
/// How many times longer a batch waits while many arrive. Why 8: a transaction of 5,000 rows instead of 600
/// costs a third less for each, and it is still committed well within a second.
const LINGER_OF_MANY: u32 = 8;
/// The first pause after a failure; doubled each time.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// The longest pause.
pub(super) const BACKOFF_MOST: Duration = Duration::from_secs(5);

/// How long a batch waits for more readings, if this many wait already.
pub(super) fn linger(little: Duration, waiting: u64) -> Duration {
    if waiting < MANY_READINGS {
        return little;
    }
    little.saturating_mul(LINGER_OF_MANY)
}

/// The pause before the next try: doubled with each failure, and spread by a fraction of 0 to 1, so that many writers
/// do not try at once.
pub(super) fn backoff(failures: u32, fraction: f64) -> Duration {
    let most = BACKOFF_FIRST
        .saturating_mul(1 << failures.min(16))
        .min(BACKOFF_MOST);
    most.mul_f64(0.5 + fraction.clamp(0.0, 1.0) / 2.0)
}

/// A fraction of 0 to 1 for [`backoff`].
pub(super) fn random_fraction() -> f64 {
    // Without the system's random numbers the pauses are only less spread.
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
