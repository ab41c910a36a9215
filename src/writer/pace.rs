//! How many readings a batch holds: fewer after a batch that missed its deadline, more again while batches
//! succeed.

use tokio_postgres::error::SqlState;

use super::session::SessionError;

/// How many batches succeed before the size is doubled beyond the last one that failed. Each new failure costs
/// a deadline.
const CALM_BATCHES: u32 = 20;

/// The batch size of a writer, from one session to the next.
#[derive(Debug)]
pub(super) struct Pace {
    /// Rows of a batch at most.
    rows_max: usize,
    /// What `rows_max` grows to.
    ceiling: usize,
    /// What the ceiling grows to: the configured size.
    largest: usize,
    /// Rows of the batch that is being stored.
    tried: usize,
    /// Batches that succeeded since the ceiling was moved.
    calm: u32,
    /// Sessions in a row that stored nothing and did not last.
    pub(super) failures: u32,
}

impl Pace {
    pub(super) fn new(largest: usize) -> Self {
        Pace {
            rows_max: largest,
            ceiling: largest,
            largest,
            tried: largest,
            calm: 0,
            failures: 0,
        }
    }

    /// Rows of the next batch; a batch may hold one frame of the log more.
    pub(super) fn rows_max(&self) -> usize {
        self.rows_max
    }

    /// Records the rows of a batch that is about to be stored.
    pub(super) fn tries(&mut self, rows: usize) {
        self.tried = rows;
    }

    /// Records that a batch was stored.
    pub(super) fn stored(&mut self) {
        self.failures = 0;
        self.calm += 1;
        if self.calm >= CALM_BATCHES {
            self.calm = 0;
            self.ceiling = (self.ceiling * 2).min(self.largest);
        }
        self.rows_max = (self.rows_max * 2).min(self.ceiling);
    }

    /// Records how a session ended: after a missed deadline the next batch is smaller, down to one frame.
    ///
    /// It is half of what was tried, not of what was allowed: a batch that was small anyway would come again
    /// unchanged.
    pub(super) fn failed(&mut self, error: &SessionError) {
        if !takes_too_long(error) {
            return;
        }
        self.rows_max = (self.rows_max.min(self.tried) / 2).max(1);
        self.ceiling = self.rows_max;
        self.calm = 0;
    }
}

/// Whether fewer rows may help: after the gateway's deadline, and the server's limits of time, memory and size.
/// Not after a lock timeout, because another session holds the lock, however few rows wait.
fn takes_too_long(error: &SessionError) -> bool {
    let of_size = [
        SqlState::QUERY_CANCELED,
        SqlState::OUT_OF_MEMORY,
        SqlState::PROGRAM_LIMIT_EXCEEDED,
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
    ];
    match error {
        SessionError::Timeout(_) => true,
        SessionError::Database(error) => error.code().is_some_and(|code| of_size.contains(code)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn timeout() -> SessionError {
        SessionError::Timeout(Duration::from_secs(1))
    }

    #[test]
    fn a_batch_that_took_too_long_is_never_tried_unchanged() {
        let mut pace = Pace::new(100_000);
        // It was far smaller than it might have been.
        pace.tries(700);
        pace.failed(&timeout());
        assert_eq!(pace.rows_max(), 350);
        for tried in [350, 175, 87, 43, 21, 10, 5, 2, 1, 1] {
            pace.tries(tried);
            pace.failed(&timeout());
            assert_eq!(pace.rows_max(), (tried / 2).max(1));
        }
        pace.failed(&SessionError::Fenced);
        assert_eq!(pace.rows_max(), 1);
    }

    #[test]
    fn batches_grow_again_but_rarely_beyond_what_failed() {
        let mut pace = Pace::new(1_000);
        pace.tries(1_000);
        pace.failed(&timeout());
        let mut tries_beyond = 0;
        for _ in 0..CALM_BATCHES * 3 {
            pace.stored();
            if pace.rows_max() > 500 {
                tries_beyond += 1;
                pace.tries(pace.rows_max());
                pace.failed(&timeout());
            }
        }
        assert!((1..=3).contains(&tries_beyond), "{tries_beyond}");
        for _ in 0..CALM_BATCHES * 3 {
            pace.stored();
        }
        assert_eq!(pace.rows_max(), 1_000);
    }
}
