//! How old a reading may be: within the configured age, and within the database's retention.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The greatest age at which readings are accepted.
///
/// Why both bounds: the retention is stored in the database, and another gateway or an operator may change it. A
/// reading past the retention would create a partition that is dropped at once.
#[derive(Debug)]
pub struct AgeLimit {
    configured: Option<Duration>,
    /// Seconds. [`FOR_EVER`] if the database keeps everything, or if its retention has not been read yet.
    kept: AtomicU64,
}

const FOR_EVER: u64 = u64::MAX;

impl AgeLimit {
    /// Makes a limit. `None` accepts everything since 2000.
    pub const fn new(configured: Option<Duration>) -> Self {
        AgeLimit {
            configured,
            kept: AtomicU64::new(FOR_EVER),
        }
    }

    /// Sets how long the database keeps readings. `None` means for ever.
    pub fn keep(&self, retention: Option<Duration>) {
        let seconds = retention.map_or(FOR_EVER, |retention| retention.as_secs());
        self.kept.store(seconds, Ordering::Relaxed);
    }

    /// The smaller of the two bounds. `None` means that neither is set.
    pub fn get(&self) -> Option<Duration> {
        let kept = self.kept.load(Ordering::Relaxed);
        let kept = (kept != FOR_EVER).then(|| Duration::from_secs(kept));
        self.configured.into_iter().chain(kept).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_of_both_ages_applies() {
        let [short, long] = [10, 20].map(Duration::from_secs);
        let limit = AgeLimit::new(None);
        assert_eq!(limit.get(), None);
        limit.keep(Some(long));
        assert_eq!(limit.get(), Some(long));
        limit.keep(None);
        assert_eq!(limit.get(), None);
        let limit = AgeLimit::new(Some(short));
        for (kept, accepted) in [
            (Some(long), short),
            (None, short),
            (Some(short / 2), short / 2),
        ] {
            limit.keep(kept);
            assert_eq!(limit.get(), Some(accepted));
        }
    }
}
