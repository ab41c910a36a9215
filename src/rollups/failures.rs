//! What parts that fail have taught: a part that fails is tried again at half the size, down to one hour of one device.
//!
//! The roller is not the place for this: it ends with its session, and a part may fail by ending that.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use super::readings::Place;
use super::stored::Kind;
use crate::metrics;
use crate::reading::{Stream, Timestamp};

/// How often a part of one device-hour is tried. Why more than once: a server that is short of memory may have some again.
const TRIES: u32 = 3;
/// How long the roller rests after a failure, twice as long after each further one.
const REST_MIN: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(60);

/// Where a part begins.
type Spot = (Stream, Place);

/// What failed parts have taught. Shared by the rollers that follow each other.
#[derive(Debug, Default, Clone)]
pub(super) struct Failures {
    slices: Arc<[Mutex<OfKind>; 2]>,
    dirty: Arc<Mutex<OfKind>>,
}

impl Failures {
    /// Those of slices of a kind.
    pub(super) fn of(&self, kind: Kind) -> MutexGuard<'_, OfKind> {
        let [new, older] = &*self.slices;
        lock(match kind {
            Kind::New => new,
            Kind::Older => older,
        })
    }

    /// Those of passes over dirty hours. A part of them is counted in device-hours.
    pub(super) fn of_dirty(&self) -> MutexGuard<'_, OfKind> {
        lock(&self.dirty)
    }

    /// How long to rest before the next try.
    pub(super) fn rest(&self) -> Duration {
        let slices = self.slices.iter().map(|of| lock(of).rest());
        let longest = slices.max().unwrap_or_default();
        longest.max(self.of_dirty().rest())
    }
}

fn lock(of: &Mutex<OfKind>) -> MutexGuard<'_, OfKind> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What failed parts of one kind have taught.
#[derive(Debug, Default)]
pub(super) struct OfKind {
    /// How many parts in a row have failed.
    in_a_row: u32,
    /// How long the last of them worked.
    worked: Duration,
    /// How many readings a part may read; `None` means the usual number.
    most: Option<usize>,
    /// How many readings away the end of the part is that failed. Until then, parts do not grow.
    left: usize,
    /// Where the smallest part failed, and how often.
    smallest: Option<(Spot, u32)>,
}

impl OfKind {
    /// How many readings the next part may read.
    pub(super) fn most(&self, usual: usize) -> usize {
        self.most.unwrap_or(usual).min(usual)
    }

    /// Whether the device-hour at a place is passed over.
    pub(super) fn is_hopeless(&self, spot: Spot) -> bool {
        self.smallest
            .is_some_and(|(failed, tries)| failed == spot && tries >= TRIES)
    }

    /// Records that a part has failed.
    pub(super) fn fails(&mut self, spot: Spot, tried: usize, worked: Duration, error: &Error) {
        let is_its_fault = may_be_its_fault(error.code());
        self.records(spot, tried, worked, is_its_fault);
    }

    fn records(&mut self, spot: Spot, tried: usize, worked: Duration, is_its_fault: bool) {
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.worked = worked;
        if !is_its_fault {
            return;
        }
        if tried <= 1 {
            let before = self.smallest.filter(|(failed, _)| *failed == spot);
            self.smallest = Some((spot, before.map_or(1, |(_, tries)| tries + 1)));
        }
        self.most = Some((tried / 2).max(1));
        self.left = tried;
    }

    /// Records that a part is rolled up, or a device-hour passed over.
    pub(super) fn succeeds(&mut self, read: usize, usual: usize) {
        (self.in_a_row, self.smallest) = (0, None);
        self.left = self.left.saturating_sub(read.max(1));
        if self.left == 0 {
            let next = self.most.map(|most| most.saturating_mul(2));
            self.most = next.filter(|most| *most < usual);
        }
    }

    /// At least as long as the part that failed has worked, so that a part that always fails takes half of a session's
    /// time at most.
    fn rest(&self) -> Duration {
        let Some(before) = self.in_a_row.checked_sub(1) else {
            return Duration::ZERO;
        };
        let rest = REST_MIN.saturating_mul(2_u32.saturating_pow(before));
        rest.max(self.worked).min(REST_MAX)
    }
}

/// Reports hours of a device that were passed over.
pub(super) fn passed_over(stream: Stream, device: i32, from: Timestamp, to: Timestamp) {
    tracing::warn!(
        stream = stream.name(),
        device,
        %from,
        %to,
        "hours of a device cannot be rolled up; their readings are read one by one"
    );
    metrics::rollup_passed_over();
}

/// Whether a smaller part may succeed where a part has failed: it took too long or too much memory, a page cannot be read,
/// or the server's process died. All other failures are the environment's, and end with it: a full disk, a lock,
/// a missing right, a server that stops.
fn may_be_its_fault(code: Option<&SqlState>) -> bool {
    let Some(code) = code else {
        return true;
    };
    let class = code.code().get(..2);
    let limits = [
        SqlState::QUERY_CANCELED,
        SqlState::OUT_OF_MEMORY,
        SqlState::CONFIGURATION_LIMIT_EXCEEDED,
    ];
    matches!(class, Some("22" | "54" | "58" | "XX")) || limits.contains(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: usize = 1_000;

    fn spot(at: usize) -> Spot {
        let place = Place {
            device: at as i32,
            from: Timestamp::from_micros(0),
        };
        (Stream::Meter, place)
    }

    /// Rolls up single readings, of which some fail always. Returns those that were passed over, how many parts failed,
    /// and how many there were in all.
    fn all(readings: usize, bad: &[usize]) -> (Vec<usize>, usize, usize) {
        let mut of = OfKind::default();
        let (mut at, mut passed, mut failed, mut parts) = (0, Vec::new(), 0, 0);
        while at < readings {
            parts += 1;
            if of.is_hopeless(spot(at)) {
                passed.push(at);
                of.succeeds(1, USUAL);
                at += 1;
                continue;
            }
            let most = of.most(USUAL);
            if bad.iter().any(|bad| (at..at + most).contains(bad)) {
                failed += 1;
                of.records(spot(at), most, Duration::ZERO, true);
            } else {
                of.succeeds(most, USUAL);
                at += most;
            }
        }
        assert_eq!(of.in_a_row, 0);
        (passed, failed, parts)
    }

    #[test]
    fn a_device_hour_that_always_fails_is_found_by_halves() {
        assert_eq!(all(100_000, &[]), (vec![], 0, 100));
        for bad in [0, 1, 999, 1_000, 54_321] {
            let (passed, failed, parts) = all(100_000, &[bad]);
            assert_eq!(passed, [bad]);
            assert!(failed <= 13 && parts <= 160, "{failed} of {parts} failed");
        }
        let (passed, failed, _) = all(100_000, &[7, 8, 99_000]);
        assert_eq!(passed, [7, 8, 99_000]);
        assert!(failed <= 45, "{failed} failed");
    }

    #[test]
    fn a_failure_of_the_environment_makes_no_part_smaller() {
        for code in [
            SqlState::DISK_FULL,
            SqlState::ADMIN_SHUTDOWN,
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::READ_ONLY_SQL_TRANSACTION,
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::INSUFFICIENT_PRIVILEGE,
            SqlState::UNDEFINED_TABLE,
        ] {
            assert!(!may_be_its_fault(Some(&code)), "{code:?}");
        }
        for code in [
            SqlState::QUERY_CANCELED,
            SqlState::OUT_OF_MEMORY,
            SqlState::DATA_CORRUPTED,
            SqlState::IO_ERROR,
            SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
        ] {
            assert!(may_be_its_fault(Some(&code)), "{code:?}");
        }
        assert!(may_be_its_fault(None));
        let mut of = OfKind::default();
        for _ in 0..100 {
            of.records(spot(0), 1, Duration::ZERO, false);
        }
        assert!(!of.is_hopeless(spot(0)));
        assert_eq!(of.most(USUAL), USUAL);
    }

    #[test]
    fn the_rest_after_a_failure_grows_up_to_a_bound() {
        let mut of = OfKind::default();
        assert_eq!(of.rest(), Duration::ZERO);
        let mut rests = Vec::new();
        for _ in 0..8 {
            of.records(spot(0), 8, Duration::ZERO, true);
            rests.push(of.rest().as_secs());
        }
        assert_eq!(rests, [1, 2, 4, 8, 16, 32, 60, 60]);
        of.succeeds(1, USUAL);
        assert_eq!(of.rest(), Duration::ZERO);
        // A part that took long rests as long.
        of.records(spot(0), 8, Duration::from_secs(20), true);
        assert_eq!(of.rest(), Duration::from_secs(20));
    }
}
