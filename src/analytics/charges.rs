//! The energy of charging sessions: for each, the answer for its vehicle during the session.

use std::time::{Duration, Instant};

use deadpool_postgres::Client;

use super::{Analyst, AskError, Timeframe};
use crate::energy::Printed;
use crate::energy::answer::Slice;
use crate::energy::interval::Interval;
use crate::energy::power::{Power, quarters};
use crate::energy::tariff::{Costs, Priced};
use crate::postgres::{ReadError, Reads};
use crate::reading::{ExternalId, HOUR_MICROS, Timestamp};

/// How far beyond the present a session is looked at. Readings are at most minutes ahead of it, and a session may end
/// in a thousand years, each hour of which would take time and memory.
const AHEAD_MICROS_MAX: i64 = 24 * HOUR_MICROS;

/// The energy of a session.
#[derive(Debug)]
pub struct Charge {
    /// The answer for its vehicle during the session.
    pub printed: Printed,
    /// The AC power.
    pub power: Power,
    /// The cost of the energy; `None` without a tariff.
    pub costs: Option<Costs>,
}

/// Why a session in a list has no energy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uncharged {
    /// The vehicle is not registered any more.
    Unknown,
    /// The session has more readings than one query may hold.
    TooManyReadings,
    /// Its energy takes longer to compute than one session in a list may take.
    TooSlow,
}

/// Time limits for the energy of a list of sessions.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// After this time no further session is begun.
    pub list: Duration,
    /// A session that takes longer is listed without its energy.
    pub session: Duration,
}

impl Analyst {
    /// Computes the energy of sessions, each given by its vehicle and time, until the time limit has passed.
    ///
    /// Shape:  at least one result, unless `charges` is empty; fewer results than sessions if time ran out
    /// Order:  that of the sessions
    /// Blocks: for some statements per session, each on its own connection from the pool
    ///
    /// # Errors
    /// [`AskError`] of the first session. An error in a later session ends the list.
    pub async fn charges(
        &self,
        reads: &Reads,
        sessions: &[(ExternalId<'_>, Interval)],
        now: Timestamp,
        patience: Patience,
    ) -> Result<Vec<Result<Charge, Uncharged>>, AskError> {
        let until = Instant::now() + patience.list;
        let mut charges = Vec::with_capacity(sessions.len());
        for &(vehicle, window) in sessions {
            if !charges.is_empty() && Instant::now() >= until {
                break;
            }
            let asked = reads.ask_within(patience.session, async |client| {
                self.charge(client, vehicle, window, now).await
            });
            charges.push(match asked.await {
                Ok(charge) => charge.ok_or(Uncharged::Unknown),
                Err(AskError::TooManyReadings) => Err(Uncharged::TooManyReadings),
                Err(AskError::Read(ReadError::TooSlow)) => Err(Uncharged::TooSlow),
                Err(error) if charges.is_empty() => return Err(error),
                Err(_) => break,
            });
        }
        Ok(charges)
    }

    /// Computes the energy of a session; `None` for an unknown vehicle. Time more than a day ahead does not count.
    ///
    /// Blocks: for some statements
    ///
    /// # Errors
    /// [`AskError`]
    pub async fn charge(
        &self,
        client: &mut Client,
        vehicle: ExternalId<'_>,
        window: Interval,
        now: Timestamp,
    ) -> Result<Option<Charge>, AskError> {
        let window = elapsed(window, now);
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

/// The part of a session that can have readings; a session that is wholly ahead counts as its first moment.
fn elapsed(window: Interval, now: Timestamp) -> Interval {
    let latest = now.plus_micros(AHEAD_MICROS_MAX);
    let end = window.end().min(latest).max(window.start().plus_micros(1));
    Interval::new(window.start(), end).unwrap_or(window)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_looked_at_up_to_a_day_ahead() {
        let at = |hours: i64| Timestamp::Y2000.plus_micros(hours * HOUR_MICROS);
        let of = |from, to| elapsed(Interval::new(at(from), at(to)).unwrap(), at(100));
        assert_eq!(of(1, 50), Interval::new(at(1), at(50)).unwrap());
        assert_eq!(of(1, 124), Interval::new(at(1), at(124)).unwrap());
        assert_eq!(of(1, 70_000_000), Interval::new(at(1), at(124)).unwrap());
        assert_eq!(of(200, 70_000_000).micros(), 1);
    }
}
