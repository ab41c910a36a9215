//! A rate of readings, kept by one integer.
//!
//! Bodies hold one reading or ten thousand. A limiter that admits a request only if all its readings fit would never
//! admit a body larger than the burst. So a request is admitted unless the bucket is in debt, and charged in full. A
//! large body leaves a debt, which must be paid before the next is admitted. Over any period, the admitted readings are
//! at most the rate times the period, plus one second's worth, plus one body.
//!
//! Source: the virtual scheduling of the generic cell rate algorithm (ITU-T I.371, annex A)

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The burst after silence. Why a second: many devices report at the full minute. A second's worth evens that out, and
/// no key can use another's share for long.
const BURST_NANOS: u64 = 1_000_000_000;
/// The highest rate, in readings a second: more than one gateway accepts.
pub const RATE_MAX: u32 = 10_000_000;

/// A rate limit that many threads share.
#[derive(Debug)]
pub struct Bucket {
    origin: Instant,
    nanos_per_reading: u64,
    /// When the debt is paid, in nanoseconds since `origin`.
    paid_at: AtomicU64,
}

impl Bucket {
    /// Makes a full bucket.
    ///
    /// Units:  readings a second, 1 to [`RATE_MAX`]
    pub fn new(rate: u32) -> Self {
        Bucket {
            origin: Instant::now(),
            nanos_per_reading: 1_000_000_000 / u64::from(rate.clamp(1, RATE_MAX)),
            paid_at: AtomicU64::new(0),
        }
    }

    /// How long until the debt is paid. `None` means that there is no debt.
    ///
    /// Called before a body is read, so that a key over its rate costs little.
    ///
    /// Blocks: never
    pub fn debt(&self, now: Instant) -> Option<Duration> {
        let allowed = self.nanos(now).saturating_add(BURST_NANOS);
        let paid_at = self.paid_at.load(Ordering::Relaxed);
        (paid_at > allowed).then(|| Duration::from_nanos(paid_at - allowed))
    }

    /// Charges the readings of a request.
    ///
    /// Blocks: never
    ///
    /// # Errors
    /// How long until the debt is paid. Nothing was charged; refuse the request.
    pub fn charge(&self, now: Instant, readings: u64) -> Result<(), Duration> {
        let now = self.nanos(now);
        let allowed = now.saturating_add(BURST_NANOS);
        let cost = readings.saturating_mul(self.nanos_per_reading);
        let charged = self
            .paid_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |paid_at| {
                (paid_at <= allowed).then(|| paid_at.max(now).saturating_add(cost))
            });
        charged
            .map(drop)
            .map_err(|paid_at| Duration::from_nanos(paid_at - allowed))
    }

    fn nanos(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.origin);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_never_exceeds_its_rate_and_one_body() {
        for (rate, body) in [(10u32, 1u64), (100, 7), (1000, 5000), (300_000, 500)] {
            let bucket = Bucket::new(rate);
            let mut taken = 0;
            // Ten seconds of a client that tries every millisecond.
            for milli in 0..10_000 {
                let now = bucket.origin + Duration::from_millis(milli);
                if bucket.charge(now, body).is_ok() {
                    taken += body;
                }
            }
            let fair = u64::from(rate) * 10;
            let most = fair + u64::from(rate) + body;
            assert!(
                taken <= most + fair / 1000 && taken >= fair * 9 / 10,
                "{rate}: {taken}"
            );
        }
    }

    #[test]
    fn a_debt_ends_when_it_is_expected_to() {
        let bucket = Bucket::new(10);
        let start = bucket.origin;
        assert_eq!(bucket.debt(start), None);
        bucket.charge(start, 50).unwrap();
        let wait = bucket.debt(start).unwrap();
        assert_eq!(wait, Duration::from_secs(4));
        assert_eq!(bucket.charge(start, 1), Err(wait));
        assert!(
            bucket
                .charge(start + wait - Duration::from_nanos(1), 1)
                .is_err()
        );
        assert!(bucket.charge(start + wait, 1).is_ok());
    }

    #[test]
    fn an_idle_key_saves_up_one_second_of_its_rate() {
        let bucket = Bucket::new(100);
        let later = bucket.origin + Duration::from_secs(3600);
        let taken = (0..1000)
            .filter(|_| bucket.charge(later, 1).is_ok())
            .count();
        assert_eq!(taken, 101);
    }
}
