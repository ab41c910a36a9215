//! What parts that fail have taught: a part that fails is tried again at half the size, down to one hour of one device.
//!
//! The roller is not the place for this: it ends with its session, and a part may fail by ending that.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use super::readings::{Place, Reach};
use super::stored::Kind;
use crate::metrics;
use crate::reading::{HOUR_MICROS, Stream, Timestamp};

/// How often a part of one device-hour is tried. Why more than once: a server that is short of memory may have some
/// again.
const TRIES: u32 = 3;
/// How long the roller rests after a failure, twice as long after each further one.
const REST_MIN: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(60);
/// The same for new hours, because all others wait for them.
const REST_MAX_NEW: Duration = Duration::from_secs(5);

/// Where a part begins.
type Spot = (Stream, Place);

/// What failed parts have taught. Shared by the rollers that follow each other.
#[derive(Debug, Default, Clone)]
pub(super) struct Failures {
    slices: Arc<[Mutex<OfKind>; 2]>,
    dirty: Arc<Mutex<OfKind>>,
    /// The partitions whose sample has begun and not succeeded.
    not_sampled: Arc<Mutex<HashSet<u32>>>,
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

    /// How long to rest before the next try of anything.
    pub(super) fn rest(&self) -> Duration {
        let new = self.of(Kind::New).rest().min(REST_MAX_NEW);
        let older = self.of(Kind::Older).rest();
        new.max(older).max(self.of_dirty().rest())
    }

    /// Whether a partition's sample has not failed yet. It counts as failed until it succeeds: it may end the session.
    pub(super) fn may_sample(&self, table: u32) -> bool {
        lock(&self.not_sampled).insert(table)
    }

    /// Records that a partition was sampled.
    pub(super) fn was_sampled(&self, table: u32) {
        lock(&self.not_sampled).remove(&table);
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
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
    /// Where the last part failed.
    failed: Option<Spot>,
    /// Whether parts are one registered device each, because the next device with readings cannot be found.
    is_alone: bool,
    /// The last device of which hours were passed over.
    passed: Option<(Stream, i32)>,
}

impl OfKind {
    /// How many readings the next part may read.
    pub(super) fn most(&self, usual: usize) -> usize {
        self.most.unwrap_or(usual).min(usual)
    }

    /// How far the next part of a slice reaches. A device of which hours were passed over has parts of its own, of one
    /// hour each, so that it is not searched for by halves again.
    pub(super) fn reach(&self, (stream, place): Spot, usual: usize) -> Reach {
        let most = self.most(usual);
        let until = i32::MAX;
        match self.passed {
            _ if self.is_alone => Reach {
                until: place.device,
                most,
            },
            Some((of, device)) if of == stream && place.device < device => Reach {
                until: device - 1,
                most,
            },
            Some((of, device)) if of == stream && place.device == device => Reach {
                until: device,
                most: 1,
            },
            _ => Reach { until, most },
        }
    }

    /// Whether the next part is one registered device: because not even the time of the next reading can be read.
    pub(super) fn goes_alone(&mut self, spot: Spot) -> bool {
        if self.tries(spot) >= 2 * TRIES {
            self.goes_on_alone();
        }
        self.is_alone
    }

    /// Lets parts be one registered device each, until the one that fails is passed over.
    pub(super) fn goes_on_alone(&mut self) {
        (self.is_alone, self.smallest) = (true, None);
    }

    /// Records where the next part of a slice begins, and the device of which hours were passed over.
    pub(super) fn comes_to(
        &mut self,
        (stream, place): Spot,
        next: Option<Place>,
        passed: Option<i32>,
    ) {
        if passed.is_some() || next.is_none() {
            self.is_alone = false;
        }
        let is_done = next.is_none_or(|next| next.device > place.device);
        match passed {
            Some(device) => self.passed = Some((stream, device)),
            // It can be rolled up again.
            None if is_done && self.passed == Some((stream, place.device)) => self.passed = None,
            None => {}
        }
    }

    /// Whether a part that begins at a dirty hour lies before the one that failed last. It is to end there.
    pub(super) fn failed_after(&self, spot: Spot) -> Option<Spot> {
        self.failed.filter(|failed| key(*failed) > key(spot))
    }

    /// How often the smallest part has failed at a place.
    fn tries(&self, spot: Spot) -> u32 {
        let here = self.smallest.filter(|(failed, _)| *failed == spot);
        here.map_or(0, |(_, tries)| tries)
    }

    /// Whether the device-hour at a place is passed over.
    pub(super) fn is_hopeless(&self, spot: Spot) -> bool {
        self.tries(spot) >= TRIES
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
            self.smallest = Some((spot, self.tries(spot).saturating_add(1)));
        }
        self.failed = Some(spot);
        self.most = Some((tried / 2).max(1));
        self.left = tried;
    }

    /// Records that a part is rolled up, or a device-hour passed over.
    pub(super) fn succeeds(&mut self, spot: Spot, read: usize, usual: usize) {
        self.in_a_row = 0;
        self.smallest = self.smallest.filter(|(failed, _)| *failed != spot);
        self.left = self.left.saturating_sub(read.max(1));
        if self.left == 0 {
            let next = self.most.map(|most| most.saturating_mul(2));
            self.most = next.filter(|most| *most < usual);
        }
        if self.most.is_none() {
            self.failed = None;
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
pub(super) fn passed_over(stream: Stream, device: i32, hours: Range<Timestamp>) {
    let (from, to) = (hours.start, hours.end);
    tracing::warn!(
        stream = stream.name(),
        device,
        %from,
        %to,
        "hours of a device cannot be rolled up; their readings are read one by one"
    );
    let micros = to.as_micros().saturating_sub(from.as_micros());
    metrics::rollup_passed_over(u64::try_from(micros / HOUR_MICROS).unwrap_or(0));
}

/// The order of dirty hours in a pass.
const fn key((stream, place): Spot) -> (Stream, Timestamp, i32) {
    (stream, place.from, place.device)
}

/// Whether a smaller part may succeed where a part has failed: it took too long or too much memory, a page cannot be
/// read, or the server's process died. All other failures are the environment's, and end with it: a full disk, a lock,
/// a missing right, a server that stops.
pub(super) fn may_be_its_fault(code: Option<&SqlState>) -> bool {
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
                of.succeeds(spot(at), 1, USUAL);
                at += 1;
                continue;
            }
            let most = of.most(USUAL);
            if bad.iter().any(|bad| (at..at + most).contains(bad)) {
                failed += 1;
                of.records(spot(at), most, Duration::ZERO, true);
            } else {
                of.succeeds(spot(at), most, USUAL);
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
    fn a_device_that_was_passed_over_has_parts_of_its_own() {
        let mut of = OfKind::default();
        let reach = |of: &OfKind, at| {
            let reach = of.reach(spot(at), USUAL);
            (reach.until, reach.most)
        };
        assert_eq!(reach(&of, 0), (i32::MAX, USUAL));
        of.comes_to(spot(7), Some(spot(8).1), Some(7));
        assert_eq!(reach(&of, 0), (6, USUAL));
        assert_eq!(reach(&of, 7), (7, 1));
        assert_eq!(reach(&of, 8), (i32::MAX, USUAL));
        of.comes_to(spot(0), Some(spot(7).1), None);
        assert_eq!(reach(&of, 7), (7, 1));
        of.comes_to(spot(7), Some(spot(8).1), None);
        assert_eq!(reach(&of, 0), (i32::MAX, USUAL));
    }

    /// It ends the session, and what finds the next device does so, too.
    #[test]
    fn a_device_that_cannot_be_found_is_found_by_its_registration() {
        let mut of = OfKind::default();
        for _ in 0..2 * TRIES {
            assert!(!of.goes_alone(spot(3)));
            of.records(spot(3), 1, Duration::ZERO, true);
        }
        assert!(of.goes_alone(spot(3)) && !of.is_hopeless(spot(3)));
        of.succeeds(spot(3), 1, USUAL);
        of.comes_to(spot(3), Some(spot(4).1), None);
        for _ in 0..TRIES {
            assert!(of.goes_alone(spot(4)) && !of.is_hopeless(spot(4)));
            of.records(spot(4), 1, Duration::ZERO, true);
        }
        assert!(of.goes_alone(spot(4)) && of.is_hopeless(spot(4)));
        of.succeeds(spot(4), 1, USUAL);
        of.comes_to(spot(4), Some(spot(5).1), Some(4));
        assert!(!of.goes_alone(spot(5)));
    }

    #[test]
    fn successes_elsewhere_do_not_take_back_tries() {
        let mut of = OfKind::default();
        for _ in 0..TRIES {
            of.records(spot(3), 1, Duration::ZERO, true);
            of.succeeds(spot(0), 1, USUAL);
        }
        assert!(of.is_hopeless(spot(3)));
        assert_eq!(of.failed_after(spot(2)), Some(spot(3)));
        assert_eq!(of.failed_after(spot(3)), None);
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
        of.succeeds(spot(0), 1, USUAL);
        assert_eq!(of.rest(), Duration::ZERO);
        // A part that took long rests as long.
        of.records(spot(0), 8, Duration::from_secs(20), true);
        assert_eq!(of.rest(), Duration::from_secs(20));
    }
}
