//! How many readings all queries together may hold in memory.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use super::AskError;

/// The most readings in memory for all queries together, about 200 MB. Why 2 million: a vehicle and its meter over
/// the longest window, with one reading per minute each, are 1.2 million.
const READINGS_MAX: usize = 2_000_000;

/// How many readings are reserved at once.
const STEP: u32 = 4096;

/// The budget of readings that all queries share.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    free: Arc<Semaphore>,
    most: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Budget::new(READINGS_MAX)
    }
}

impl Budget {
    pub(super) fn new(most: usize) -> Self {
        Budget {
            free: Arc::new(Semaphore::new(most)),
            most,
        }
    }
}

/// The readings that one query has reserved; released when dropped.
#[derive(Debug)]
pub(super) struct Lease {
    budget: Budget,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    permit: Option<OwnedSemaphorePermit>,
    used: usize,
}

impl Lease {
    pub(super) fn new(budget: &Budget) -> Self {
        Lease {
            budget: budget.clone(),
            held: Mutex::default(),
        }
    }

    /// How many readings have been counted.
    pub(super) fn used(&self) -> usize {
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .used
    }

    /// Counts one more reading. It never waits, because two queries that each hold half of the budget would
    /// deadlock.
    pub(super) fn one_more(&self) -> Result<(), AskError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let most = held
            .permit
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        if held.used == most {
            if held.used + STEP as usize > self.budget.most {
                return Err(AskError::TooManyReadings);
            }
            match Arc::clone(&self.budget.free).try_acquire_many_owned(STEP) {
                Ok(more) => match &mut held.permit {
                    Some(permit) => permit.merge(more),
                    None => held.permit = Some(more),
                },
                Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => {
                    return Err(AskError::Busy);
                }
            }
        }
        held.used += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_share_one_bound_and_release_what_they_held() {
        let budget = Budget::default();
        let first = Lease::new(&budget);
        let counted = (0..).take_while(|_| first.one_more().is_ok()).count();
        assert!(counted > READINGS_MAX - STEP as usize && counted <= READINGS_MAX);
        assert!(matches!(first.one_more(), Err(AskError::TooManyReadings)));
        let second = Lease::new(&budget);
        assert!(matches!(second.one_more(), Err(AskError::Busy)));
        drop(first);
        assert!(second.one_more().is_ok());
    }
}
