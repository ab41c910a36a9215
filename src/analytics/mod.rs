//! Queries over windows: fetches everything that an answer depends on, in one snapshot.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `history` | readings with their neighbours, within constant bounds of time |
//! | `vehicles` | vehicles: their readings, their sessions, and which others are at a meter |
//! | `fetch` | what the answer for one vehicle depends on |
//! | `charges` | the energy of charging sessions |
//! | `bulk` | the readings of many devices, with few statements |
//! | `chunk` | a part of the fleet, with everything that its answers depend on |
//! | `reach` | how far beyond its window a query must fetch |
//! | `hours`, `hour_rows` | rolled-up hours in place of their readings |
//! | `fleet` | every vehicle over one window |
//! | `fleet_report` | the sums of a fleet's answers |
//! | `fleet_cache` | one report on the fleet at a time, shared by all requests for up to a minute |
//! | `budget` | how many readings all queries may hold in memory |
//!
//! # Rules
//!
//! - **No statement searches history without constant bounds of time.** With hundreds of partitions, planning
//!   alone would take longer than the answer.
//! - **An answer reaches beyond its window** (`reach`): a shared meter's amount is divided by the DC over the
//!   whole amount, and an attribution period continues to the meter's next reading. Nearly always both are within
//!   90 minutes, and one round trip fetches everything.
//! - **The fleet's answer is the sum of its vehicles' answers**: the same arithmetic, over readings fetched in
//!   chunks from one snapshot. A report that is requested again after five twelfths of its lifetime is
//!   renewed in the background.
//! - **Computing happens off the async workers**, at most one computation per core.

mod budget;
mod bulk;
mod charges;
mod chunk;
mod fetch;
mod fleet;
mod fleet_cache;
mod fleet_report;
mod history;
mod hour_rows;
mod hours;
mod reach;
mod vehicles;

use std::sync::Arc;

use deadpool_postgres::Client;
use tokio::sync::Semaphore;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use crate::energy::answer::{SplitHours, performance_and_parts};
use crate::energy::attribution::MeterKey;
use crate::energy::device::SUSPECT_WATTS_DEFAULT;
use crate::energy::interval::Interval;
use crate::energy::report::StatusBounds;
use crate::energy::tariff::Tariff;
use crate::energy::{Performance, Slice};
use crate::postgres::{QueryError, ReadError};
use crate::reading::{ExternalId, Timestamp};
use budget::{Budget, Lease};
pub use charges::{Charge, Patience, Uncharged};
use fetch::fetch;
use fleet_cache::Reports;
pub use fleet_cache::{KeptReport, ReportKey};
use fleet_report::ReportQuestion;
pub use fleet_report::{FleetReport, FleetSlice, Rank, Ranked};
use history::{History, snapshot};
use hour_rows::Hours;
use hours::ROUNDS_MAX;
use vehicles::Fetched;

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// An error of the driver.
    #[error(transparent)]
    Database(#[from] Error),
    /// The query did not reach the database, or failed there.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The query needs more readings than one query may hold. Request a shorter window.
    #[error("the window contains too many readings; request a shorter one")]
    TooManyReadings,
    /// Other queries use up the memory for readings. Try again later.
    #[error("too many queries are running; try again shortly")]
    Busy,
    /// The report on the fleet is still being computed. Try again, or request a shorter window.
    #[error(
        "the report on the fleet takes longer than a request may wait; retry, or request a shorter \
         window"
    )]
    TooSlow,
    /// A defect: the arithmetic panicked.
    #[error("the answer could not be computed")]
    Failed,
}

impl QueryError for AskError {
    fn is_of_server(&self) -> bool {
        match self {
            AskError::Database(error) => error.code() != Some(&SqlState::QUERY_CANCELED),
            AskError::Read(error) => error.is_of_server(),
            AskError::TooManyReadings | AskError::Busy | AskError::TooSlow | AskError::Failed => {
                false
            }
        }
    }
}

/// An answer, with the ids needed to print it.
#[derive(Debug)]
pub struct Answer {
    /// The exact numbers.
    pub performance: Performance,
    /// The external ids of its meters, in any order.
    pub meter_ids: Vec<String>,
    /// The energy in the requested parts of the window.
    pub parts: Vec<Slice>,
}

/// The time that a query covers.
#[derive(Debug, Clone)]
pub struct Timeframe {
    /// The window.
    pub window: Interval,
    /// Parts of the window whose energy is computed too; may be empty.
    pub parts: Vec<Interval>,
    /// Nothing after this moment is attributed.
    pub now: Timestamp,
}

/// How a report uses the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// A client waits for it.
    Normal,
    /// No client waits: it reads small chunks, and rests after each for as long as the chunk took.
    Yields,
}

/// What all queries share: memory and processor time.
#[derive(Debug, Clone)]
pub struct Analyst {
    budget: Budget,
    processors: Arc<Semaphore>,
    judgement: Judgement,
    tariff: Option<Tariff>,
    reports: Reports,
}

/// The bounds by which ratios are rated and readings count as suspect.
#[derive(Debug, Clone, Copy, Default)]
pub struct Judgement {
    /// The bounds of the ratings.
    pub bounds: StatusBounds,
    /// The implied power above which a reading is suspect.
    pub suspect_watts: SuspectWatts,
}

/// An implied power above which a reading is suspect.
#[derive(Debug, Clone, Copy)]
pub struct SuspectWatts(pub u64);

impl Default for SuspectWatts {
    fn default() -> Self {
        SuspectWatts(SUSPECT_WATTS_DEFAULT)
    }
}

impl Analyst {
    /// Makes an analyst that computes at most this many answers at once.
    pub fn new(processors: usize, judgement: Judgement) -> Self {
        Analyst {
            budget: Budget::default(),
            processors: Arc::new(Semaphore::new(processors.max(1))),
            judgement,
            tariff: None,
            reports: Reports::default(),
        }
    }

    /// Sets the tariff that converts lost energy into money.
    #[must_use]
    pub fn with_tariff(mut self, tariff: Option<Tariff>) -> Self {
        self.tariff = tariff;
        self
    }

    /// An analyst whose queries may not hold a single reading.
    #[cfg(test)]
    pub(crate) fn without_memory(mut self) -> Self {
        self.budget = Budget::new(0);
        self
    }

    /// The tariff, if one is configured.
    pub const fn tariff(&self) -> Option<&Tariff> {
        self.tariff.as_ref()
    }

    /// The bounds by which ratios are rated and readings count as suspect.
    pub const fn judgement(&self) -> Judgement {
        self.judgement
    }

    /// Answers for one vehicle over a window and its requested parts; `None` for an unknown vehicle.
    ///
    /// Blocks: for some statements, and for the arithmetic over at most 2 million readings
    /// Cancel: safe; the transaction is rolled back
    pub async fn performance(
        &self,
        client: &mut Client,
        vehicle: ExternalId<'_>,
        timeframe: Timeframe,
    ) -> Result<Option<Answer>, AskError> {
        let Timeframe { window, now, .. } = timeframe;
        let work = snapshot(client).await?;
        let hours = Hours::new(window, &timeframe.parts, self.judgement.suspect_watts.0);
        let mut history = History::new(&work, Lease::new(&self.budget)).with_hours(hours);
        let mut round = 0;
        let (performance, parts, mut meter_ids) = loop {
            round += 1;
            if round > ROUNDS_MAX {
                history.exclude_all();
            }
            let Some(mut fetched) = fetch(&mut history, vehicle, window, now).await? else {
                return Ok(None);
            };
            fetched.lease = Some(history.renew(Lease::new(&self.budget)));
            let meter_ids = std::mem::take(&mut fetched.meter_ids);
            match self.compute(fetched, timeframe.clone()).await? {
                Ok((performance, parts)) => break (performance, parts, meter_ids),
                Err(splits) => history.exclude(&splits),
            }
        };
        meter_ids.retain(|key, _| performance.meters.contains(&MeterKey(*key)));
        Ok(Some(Answer {
            performance,
            meter_ids: meter_ids.into_values().collect(),
            parts,
        }))
    }

    /// Computes the answers for every known vehicle over a window, and their sums.
    ///
    /// Blocks: for some statements per chunk of devices; a fleet of 10,000 over a day takes seconds
    /// Cancel: safe; the transaction is rolled back
    pub async fn compute_report(
        &self,
        client: &mut Client,
        timeframe: Timeframe,
        priority: Priority,
    ) -> Result<FleetReport, AskError> {
        let tariff = self.tariff.as_ref();
        let question = ReportQuestion {
            prices: tariff.map_or_else(Vec::new, |tariff| tariff.split(timeframe.window)),
            timeframe,
            bounds: self.judgement.bounds,
            suspect_watts: self.judgement.suspect_watts.0,
            priority,
        };
        // Reports have a budget of their own, because only one is computed at a time, chunk by chunk.
        fleet::report(client, &Budget::default(), question).await
    }

    async fn compute(&self, fetched: Fetched, timeframe: Timeframe) -> Result<Computed, AskError> {
        let Ok(processor) = Arc::clone(&self.processors).acquire_owned().await else {
            return Err(AskError::Failed);
        };
        let suspect_watts = self.judgement.suspect_watts.0;
        let computed = tokio::task::spawn_blocking(move || {
            let Timeframe { window, parts, now } = timeframe;
            let answer = fetched.asked(window, now, suspect_watts, |question| {
                performance_and_parts(question, &parts)
            });
            drop(processor);
            answer
        });
        computed.await.map_err(|_| AskError::Failed)
    }
}

/// An answer, or the rolled-up hours whose readings it needs.
type Computed = Result<(Performance, Vec<Slice>), SplitHours>;
