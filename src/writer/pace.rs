//! How many rows a batch may hold: fewer after a missed deadline, more again while batches succeed, and many while
//! the server stores them quickly.

use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::session::SessionError;
use super::shares::Shares;

/// How many batches must succeed before the ceiling, which a failure lowered, doubles. Each new failure costs a whole
/// deadline.
const CALM_BATCHES: u32 = 20;
/// A batch may grow beyond the moderate size only if the last one took no longer than this. Why 2 s: the next
/// batch takes twice as long, and another gateway that waits for the same keys must not reach its lock timeout of
/// 10 s.
const QUICK: Duration = Duration::from_secs(2);

/// The batch size of a writer, from one session to the next.
#[derive(Debug)]
pub(super) struct Pace {
    /// The most rows of a batch.
    rows_max: usize,
    /// The bound of `rows_max`.
    ceiling: usize,
    /// The bound of `ceiling`: the configured size.
    largest: usize,
    /// The most rows of a session's first batch, and of batches on a slow server.
    moderate: usize,
    /// Rows of the batch that is being stored.
    tried: usize,
    /// Batches that succeeded since the ceiling last moved.
    calm: u32,
    /// The number of successive sessions that stored nothing and ended early.
    pub(super) failures: u32,
}

impl Pace {
    pub(super) fn new(shares: &Shares) -> Self {
        let (largest, moderate) = (shares.batch_rows, shares.moderate_rows);
        Pace {
            rows_max: moderate,
            ceiling: largest,
            largest,
            moderate,
            tried: moderate,
            calm: 0,
            failures: 0,
        }
    }

    /// The most rows of the next batch, which may exceed it by one frame of the log.
    pub(super) fn rows_max(&self) -> usize {
        self.rows_max
    }

    /// Records the rows of a batch that is about to be stored.
    pub(super) fn tries(&mut self, rows: usize) {
        self.tried = rows;
    }

    /// Records that a batch was stored, and how long it took.
    ///
    /// Above the moderate size only full batches count. How long a few rows took says nothing about many, and a writer
    /// whose batches are not full is not behind.
    pub(super) fn stored(&mut self, took: Duration) {
        self.failures = 0;
        self.calm += 1;
        if self.calm >= CALM_BATCHES {
            self.calm = 0;
            self.ceiling = (self.ceiling * 2).min(self.largest);
        }
        let larger = (self.rows_max * 2).min(self.ceiling);
        self.rows_max = if self.rows_max < self.moderate {
            larger.min(self.moderate)
        } else if self.tried < self.rows_max {
            (self.rows_max / 2).max(self.moderate)
        } else if took <= QUICK {
            larger
        } else {
            let in_time = self.tried as f64 * (QUICK.as_secs_f64() / took.as_secs_f64());
            (in_time as usize).clamp(self.moderate, self.rows_max)
        };
    }

    /// Records how a session ended. After a missed deadline the next batch is smaller, down to one frame.
    ///
    /// It gets half of the rows that were tried, not of the rows that were allowed. Otherwise a batch below the
    /// limit would be retried unchanged.
    pub(super) fn failed(&mut self, error: &SessionError) {
        // The next session may reach another server, or a slower one.
        self.rows_max = self.rows_max.min(self.moderate);
        if !takes_too_long(error) {
            return;
        }
        self.rows_max = (self.rows_max.min(self.tried) / 2).max(1);
        self.ceiling = self.rows_max;
        self.calm = 0;
    }
}

/// Whether fewer rows may help: after the gateway's own deadline, and after the server's limits of time, memory
/// and size. After a lock timeout they do not, because another session holds the lock.
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
    use super::*;

    const MODERATE_ROWS: usize = 100_000;

    fn pace(largest: usize) -> Pace {
        Pace::new(&Shares {
            ids_bytes: 0,
            seen_devices: 0,
            live_devices: 0,
            standing_marks: 0,
            batch_rows: largest,
            moderate_rows: MODERATE_ROWS.min(largest),
        })
    }

    fn full(pace: &mut Pace, took: Duration) {
        pace.tries(pace.rows_max());
        pace.stored(took);
    }

    fn timeout() -> SessionError {
        SessionError::Timeout(Duration::from_secs(1))
    }

    #[test]
    fn a_batch_that_took_too_long_is_never_tried_unchanged() {
        let mut pace = pace(100_000);
        // The batch was far smaller than allowed.
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
        let mut pace = pace(1_000);
        pace.tries(1_000);
        pace.failed(&timeout());
        let mut tries_beyond = 0;
        for _ in 0..CALM_BATCHES * 3 {
            pace.stored(Duration::ZERO);
            if pace.rows_max() > 500 {
                tries_beyond += 1;
                pace.tries(pace.rows_max());
                pace.failed(&timeout());
            }
        }
        assert!((1..=3).contains(&tries_beyond), "{tries_beyond}");
        for _ in 0..CALM_BATCHES * 3 {
            pace.stored(Duration::ZERO);
        }
        assert_eq!(pace.rows_max(), 1_000);
    }

    #[test]
    fn only_a_server_that_stores_quickly_is_given_large_batches() {
        let mut pace = pace(350_000);
        assert_eq!(pace.rows_max(), MODERATE_ROWS);
        full(&mut pace, QUICK);
        assert_eq!(pace.rows_max(), 2 * MODERATE_ROWS);
        full(&mut pace, QUICK);
        assert_eq!(pace.rows_max(), 350_000);
        // A server that became slow gets only as many rows as it would have stored in time.
        full(&mut pace, QUICK * 7 / 4);
        assert_eq!(pace.rows_max(), 2 * MODERATE_ROWS);
        for _ in 0..CALM_BATCHES {
            full(&mut pace, QUICK * 10);
            assert_eq!(pace.rows_max(), MODERATE_ROWS);
        }
        full(&mut pace, QUICK);
        assert_eq!(pace.rows_max(), 2 * MODERATE_ROWS);
        // Any end of a session resets the size to moderate.
        pace.failed(&SessionError::Ended);
        assert_eq!(pace.rows_max(), MODERATE_ROWS);
        // Below the moderate size, a slow batch does not stop growth: a single row may take as long.
        pace.tries(10);
        pace.failed(&timeout());
        for _ in 0..CALM_BATCHES * 20 {
            pace.stored(QUICK * 10);
        }
        assert_eq!(pace.rows_max(), MODERATE_ROWS);
    }

    #[test]
    fn small_batches_are_no_reason_for_large_ones() {
        let mut pace = pace(400_000);
        for _ in 0..CALM_BATCHES * 3 {
            pace.tries(10);
            pace.stored(Duration::from_millis(1));
            assert_eq!(pace.rows_max(), MODERATE_ROWS);
        }
        full(&mut pace, QUICK);
        full(&mut pace, QUICK);
        assert_eq!(pace.rows_max(), 400_000);
        // The writer has caught up, so the size decays to moderate.
        for expected in [200_000, MODERATE_ROWS, MODERATE_ROWS] {
            pace.tries(10);
            pace.stored(Duration::from_millis(1));
            assert_eq!(pace.rows_max(), expected);
        }
    }
}
