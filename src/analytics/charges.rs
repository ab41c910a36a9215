//! The energy of charging sessions: each the answer for its vehicle over its time.

use std::time::{Duration, Instant};

use deadpool_postgres::Client;

use super::{Analyst, AskError, Timeframe};
use crate::energy::Printed;
use crate::energy::answer::Slice;
use crate::energy::interval::Interval;
use crate::energy::power::{Power, quarters};
use crate::energy::tariff::{Costs, Priced};
use crate::reading::{ExternalId, Timestamp};

/// The energy of a session.
#[derive(Debug)]
pub struct Charge {
    /// The answer for its vehicle over its time.
    pub printed: Printed,
    /// The AC power.
    pub power: Power,
    /// What the energy has cost; `None` without a tariff.
    pub costs: Option<Costs>,
}

impl Analyst {
    /// Computes the energy of sessions, each the vehicle and its time, until a bound of time has passed.
    ///
    /// Shape:  at least one if there is one; fewer than the sessions if the time was over; `None` for an unknown
    ///         vehicle, and for a session of more readings than a question may hold
    /// Order:  that of the sessions
    /// Blocks: for some statements a session
    ///
    /// # Errors
    /// [`AskError`] of the first session. That of a later one ends the list.
    pub async fn charges(
        &self,
        client: &mut Client,
        sessions: &[(ExternalId<'_>, Interval)],
        now: Timestamp,
        within: Duration,
    ) -> Result<Vec<Option<Charge>>, AskError> {
        let until = Instant::now() + within;
        let mut charges = Vec::with_capacity(sessions.len());
        for &(vehicle, window) in sessions {
            if !charges.is_empty() && Instant::now() >= until {
                break;
            }
            match self.charge(client, vehicle, window, now).await {
                Ok(charge) => charges.push(charge),
                Err(AskError::TooManyReadings) => charges.push(None),
                Err(error) if charges.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(charges)
    }

    async fn charge(
        &self,
        client: &mut Client,
        vehicle: ExternalId<'_>,
        window: Interval,
        now: Timestamp,
    ) -> Result<Option<Charge>, AskError> {
        let peaks = quarters(window);
        let whole = std::slice::from_ref(&window);
        let parts = if peaks.is_empty() { whole } else { &peaks };
        let priced = Priced::new(self.tariff(), parts);
        let parts = priced.intervals();
        let timeframe = Timeframe { window, parts, now };
        let Some(answer) = self.performance(client, vehicle, timeframe).await? else {
            return Ok(None);
        };
        let mut costs = self.tariff().map(|_| Costs::default());
        let mut slices = Vec::with_capacity(peaks.len());
        for (bucket, parts, prices) in priced.by_bucket(&answer.parts) {
            let mut slice = Slice::empty(bucket);
            parts.iter().for_each(|part| slice.add(part));
            slices.push(slice);
            if let Some((costs, prices)) = costs.as_mut().zip(prices) {
                costs.add(&Costs::of(parts, prices.iter().copied()));
            }
        }
        if peaks.is_empty() {
            slices.clear();
        }
        let performance = &answer.performance;
        let bounds = self.judgement().bounds;
        Ok(Some(Charge {
            power: Power::new(&performance.consumed_ac, window, &slices),
            printed: Printed::new(performance, vehicle.as_str(), answer.meter_ids, &bounds),
            costs,
        }))
    }
}
