//! The poll of a connection in which a request is served: its moment, and which of its wakes count.
//!
//! A request of one reading is read, decoded and answered within one poll of its connection, in some 10
//! microseconds. It would read the clock ten times. So a connection reads it once per poll, and what
//! needs no more than a millisecond's precision uses that moment.

use std::cell::Cell;
use std::time::Instant;

thread_local! {
    static MOMENT: Cell<Option<Instant>> = const { Cell::new(None) };
    static WAKES: Cell<Wakes> = const { Cell::new(Wakes::Passed) };
}

/// What happens to wakes that this thread sends to a connection that it is polling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wakes {
    Passed,
    Withheld { any: bool },
}

/// Keeps the moment of a poll until dropped.
pub(crate) struct Begun(());

/// Begins a poll: until it is dropped, [`moment`] is the same on this thread.
pub(crate) fn begin() -> Begun {
    MOMENT.set(Some(Instant::now()));
    Begun(())
}

impl Drop for Begun {
    fn drop(&mut self) {
        MOMENT.set(None);
    }
}

/// When the current poll of the connection began. Outside a poll, the time now.
///
/// Units:  at most as late as the poll has taken: a body is decoded for a millisecond at most
pub(crate) fn moment() -> Instant {
    MOMENT.get().unwrap_or_else(Instant::now)
}

/// Withholds the wakes of the connection that is being polled on this thread.
///
/// Shape:  the outcome, and whether a wake was withheld; if it matters, the caller wakes instead
pub(crate) fn withhold_wakes<T>(work: impl FnOnce() -> T) -> (T, bool) {
    /// Passes wakes again, even after a panic.
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

/// Whether a wake of the connection is withheld; called for each wake, from any thread.
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
