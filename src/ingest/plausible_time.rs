//! Which times of readings are plausible, on a machine whose clock may jump.
//!
//! After a clock is set back by hours, every reading seems to come from the future; after it is set forward, every
//! reading seems old. Devices may not resend refused readings. So the system clock is compared with a steady
//! clock, which cannot jump and was started at the same time. If the two differ, both are accepted for a few
//! hours. By then the system clock has been corrected, or the jump itself was the correction.

use std::cell::Cell;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::reading::Timestamp;

/// Smaller differences are not jumps: the clock is being slewed, or was read late.
const DRIFT_MICROS: u64 = 60_000_000;
/// How long both clocks are accepted. A wrong clock is usually corrected within hours, and readings from a device
/// with a wrong clock must not be accepted for longer.
const IN_DOUBT: Duration = Duration::from_secs(6 * 3600);

/// How long a thread reuses the times that it read. Why 10 ms: that is long compared with a request, and short
/// compared with the minutes by which a reading may be ahead.
const REUSED: Duration = Duration::from_millis(10);

/// The earliest and the latest time that it may be at `steady`. The clocks were read then, or up to [`REUSED`]
/// earlier.
///
/// Blocks: for a moment, on a mutex
pub(crate) fn at(steady: Instant) -> (Timestamp, Timestamp) {
    thread_local! {
        static LAST: Cell<Option<(Instant, (Timestamp, Timestamp))>> = const { Cell::new(None) };
    }
    if let Some((read, span)) = LAST.get()
        && steady.saturating_duration_since(read) < REUSED
    {
        return span;
    }
    let span = now();
    LAST.set(Some((steady, span)));
    span
}

fn now() -> (Timestamp, Timestamp) {
    static CLOCK: LazyLock<Mutex<Clock>> =
        LazyLock::new(|| Mutex::new(Clock::begin(Timestamp::now(), Instant::now())));
    let (system, steady) = (Timestamp::now(), Instant::now());
    let mut clock = CLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    clock.span(system, steady)
}

struct Clock {
    /// One moment, by the system clock and by the steady clock.
    anchor: (Timestamp, Instant),
    /// When the clocks began to differ.
    in_doubt: Option<Instant>,
}

impl Clock {
    fn begin(system: Timestamp, steady: Instant) -> Self {
        Clock {
            anchor: (system, steady),
            in_doubt: None,
        }
    }

    fn span(&mut self, system: Timestamp, steady: Instant) -> (Timestamp, Timestamp) {
        let (then, began) = self.anchor;
        let passed = steady.saturating_duration_since(began).as_micros();
        let expected = then.plus_micros(i64::try_from(passed).unwrap_or(i64::MAX));
        let differ = system.as_micros().abs_diff(expected.as_micros()) > DRIFT_MICROS;
        let since = *self.in_doubt.get_or_insert(steady);
        if differ && steady.saturating_duration_since(since) < IN_DOUBT {
            return (system.min(expected), system.max(expected));
        }
        *self = Clock::begin(system, steady);
        (system, system)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(hours: i64) -> Timestamp {
        Timestamp::Y2000.plus_micros(hours * 3_600_000_000)
    }

    #[test]
    fn a_clock_that_jumps_is_doubted_for_hours() {
        let began = Instant::now();
        for jump in [-5, 5, 9000] {
            let mut clock = Clock::begin(at(0), began);
            let mut span = |system, passed| clock.span(at(system), began + passed * HOUR);
            assert_eq!(span(1, 1), (at(1), at(1)));
            let both = |n: i64| (at(n).min(at(n + jump)), at(n).max(at(n + jump)));
            assert_eq!(span(2 + jump, 2), both(2));
            assert_eq!(span(7 + jump, 7), both(7));
            assert_eq!(span(8 + jump, 8), (at(8 + jump), at(8 + jump)));
            assert_eq!(span(9 + jump, 9), (at(9 + jump), at(9 + jump)));
        }
    }

    #[test]
    fn a_clock_that_is_corrected_in_time_leaves_no_doubt() {
        let began = Instant::now();
        let mut clock = Clock::begin(at(0), began);
        let mut span = |system, passed| clock.span(at(system), began + passed * HOUR);
        assert_eq!(span(-4, 1), (at(-4), at(1)));
        assert_eq!(span(2, 2), (at(2), at(2)));
        // A second jump starts its own hours of doubt.
        assert_eq!(span(-4, 7), (at(-4), at(7)));
        assert_eq!(span(1, 12), (at(1), at(12)));
    }

    #[test]
    fn a_clock_that_is_slewed_is_followed() {
        let began = Instant::now();
        let mut clock = Clock::begin(at(0), began);
        for hour in 1..100 {
            let system = at(hour).plus_micros(hour * 30_000_000);
            let passed = u32::try_from(hour).unwrap() * HOUR;
            assert_eq!(clock.span(system, began + passed), (system, system));
        }
    }
}
