//! State of the connection poll that serves a request: its time, and which wakes count.
//!
//! A request of one reading is received, decoded and answered within one poll of its connection, in some 10
//! microseconds. It would read the clock ten times. So a connection reads it once per poll, and whatever needs no
//! more than millisecond precision uses that time.

use std::cell::Cell;
use std::time::Instant;

thread_local! {
    static MOMENT: Cell<Option<Instant>> = const { Cell::new(None) };
    static WAKES: Cell<Wakes> = const { Cell::new(Wakes::Passed) };
}

/// What to do with wakes of the connection that this thread is polling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wakes {
    Passed,
    Withheld { any: bool },
}

/// Keeps the time of a poll until it is dropped.
pub(crate) struct Begun(());

/// Begins a poll. Until the result is dropped, [`moment`] returns the same time on this thread.
pub(crate) fn begin() -> Begun {
    MOMENT.set(Some(Instant::now()));
    Begun(())
}

impl Drop for Begun {
    fn drop(&mut self) {
        MOMENT.set(None);
    }
}

/// When the current poll of the connection began; outside a poll, the present time.
///
/// Units:  behind by at most the length of the poll, which is about a millisecond if it decodes a large body
pub(crate) fn moment() -> Instant {
    MOMENT.get().unwrap_or_else(Instant::now)
}

/// Withholds wakes of the connection that this thread is polling.
///
/// Shape:  the result of `work`, and whether a wake was withheld. If that wake is needed after all, the caller must
///         issue it
pub(crate) fn withhold_wakes<T>(work: impl FnOnce() -> T) -> (T, bool) {
    /// Passes wakes on again, even after a panic.
    struct PassAgain;
    impl Drop for PassAgain {
        fn drop(&mut self) {
            WAKES.set(Wakes::Passed);
        }
    }
    WAKES.set(Wakes::Withheld { any: false });
    let _again = PassAgain;
    let done = work();
    (done, WAKES.get() == Wakes::Withheld { any: true })
}

/// Whether to withhold a wake of the connection. Called for each wake, on any thread.
pub(crate) fn withholds_wake() -> bool {
    let withheld = WAKES.get() != Wakes::Passed;
    if withheld {
        WAKES.set(Wakes::Withheld { any: true });
    }
    withheld
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_has_one_moment() {
        let begun = begin();
        let first = moment();
        while Instant::now() == first {}
        assert_eq!(moment(), first);
        drop(begun);
        assert!(moment() > first);
    }

    #[test]
    fn a_withheld_wake_is_reported() {
        assert_eq!(withhold_wakes(|| ()), ((), false));
        assert_eq!(withhold_wakes(withholds_wake), (true, true));
        assert!(!withholds_wake());
    }
}
