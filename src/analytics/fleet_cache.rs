//! Reports on the fleet. Only one is computed at a time, and all requests share the result for up to a minute, or
//! for less if it is quick to compute. A report that is still in demand is renewed before it expires.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::fleet_report::{FleetReport, Ranked};
use super::{Analyst, AskError, Priority, Timeframe};
use crate::energy::interval::Interval;
use crate::postgres::{Provenance, ReadError, Reads, Written};
use crate::reading::Timestamp;

/// How long a report is served, as a multiple of the time that it took to compute. A report in constant demand
/// then costs less than a hundredth of the time, and a small fleet shows new readings within seconds. The upper
/// bound of a minute is short enough for people who look at a ranking.
const AGE_PER_COMPUTATION: i64 = 600;
const AGE_MICROS: std::ops::RangeInclusive<i64> = 1_000_000..=60_000_000;
/// Beyond this number of reports, those older than a minute are dropped.
const KEPT_MAX: usize = 4;
/// How many reports are kept at most, so that later pages of a ranking come from the same report.
const KEPT_YOUNG_MAX: usize = 64;
/// The most bytes of printed answers in all kept reports. The newest report is kept whatever its size.
const KEPT_BYTES_MAX: usize = 128 << 20;
/// How long a computation may take. That is longer than any other query, and meanwhile its snapshot keeps the live
/// tables from being vacuumed.
const COMPUTE_TIMEOUT: Duration = Duration::from_secs(90);
/// How long a request waits for a computation.
const WAIT_TIMEOUT: Duration = Duration::from_secs(30);
/// How many requests may wait for a computation at once.
const WAITING_MAX: usize = 32;

/// A window as it was requested. Equal requests share one report.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReportKey {
    /// `from`, if it was given.
    pub from: Option<Timestamp>,
    /// `to`, if it was given.
    pub to: Option<Timestamp>,
    /// The length of the series' parts; empty means no series.
    pub series: String,
    /// For a later page, the `as_of` of the report that the earlier page came from.
    pub as_of: Option<Timestamp>,
}

/// A report, and the window that it covers.
#[derive(Debug)]
pub struct KeptReport {
    key: ReportKey,
    /// The window.
    pub window: Interval,
    /// When its computation began.
    pub as_of: Timestamp,
    age_micros_max: i64,
    /// The report.
    pub report: FleetReport,
    provenance: Provenance,
}

impl KeptReport {
    fn serves(&self, key: &ReportKey, timeframe: &Timeframe, written: Option<Written>) -> bool {
        let series = key.series.is_empty() || key.series == self.key.series;
        series
            && match key.as_of {
                // A later page is of the report of the first page, whatever was written meanwhile.
                Some(at) => self.as_of == at && self.window == timeframe.window,
                None => {
                    let same = key.from == self.key.from && key.to == self.key.to;
                    let age = self.age_micros(timeframe.now);
                    same && (0..self.age_micros_max).contains(&age)
                        && self.provenance.holds(written)
                }
            }
    }

    fn age_micros(&self, now: Timestamp) -> i64 {
        now.as_micros() - self.as_of.as_micros()
    }

    /// Whether to renew it in the background while it is still served. Without that, an open dashboard would wait
    /// for each long computation.
    fn is_old(&self, now: Timestamp) -> bool {
        self.age_micros(now) >= self.age_micros_max / 12 * 5
    }

    fn bytes(&self) -> usize {
        let each = self.report.vehicles.iter();
        each.map(Ranked::bytes).sum()
    }
}

/// How long to serve a report whose computation took this long.
fn age_micros_max(took: Duration) -> i64 {
    let took = i64::try_from(took.as_micros()).unwrap_or(i64::MAX);
    let age = took.saturating_mul(AGE_PER_COMPUTATION);
    age.clamp(*AGE_MICROS.start(), *AGE_MICROS.end())
}

/// The kept reports, and the permits to compute a report or wait for one.
#[derive(Debug, Clone)]
pub(super) struct Reports {
    kept: Arc<Mutex<VecDeque<Arc<KeptReport>>>>,
    computing: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Default for Reports {
    fn default() -> Self {
        Reports {
            kept: Arc::default(),
            computing: Arc::new(Semaphore::new(1)),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
        }
    }
}

impl Reports {
    fn find(
        &self,
        key: &ReportKey,
        timeframe: &Timeframe,
        written: Option<Written>,
    ) -> Option<Arc<KeptReport>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut newest_first = kept.iter().rev();
        newest_first
            .find(|k| k.serves(key, timeframe, written))
            .cloned()
    }

    fn keep(&self, one: KeptReport) -> Arc<KeptReport> {
        let one = Arc::new(one);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back(Arc::clone(&one));
        let too_large = |kept: &VecDeque<Arc<KeptReport>>| {
            kept.iter().map(|k| k.bytes()).sum::<usize>() > KEPT_BYTES_MAX
        };
        let now = one.as_of;
        let too_many = |kept: &VecDeque<Arc<KeptReport>>| {
            let is_old = |k: &Arc<KeptReport>| k.age_micros(now) >= *AGE_MICROS.end();
            kept.len() > KEPT_YOUNG_MAX
                || (kept.len() > KEPT_MAX && kept.front().is_some_and(is_old))
        };
        while kept.len() > 1 && (too_many(&kept) || too_large(&kept)) {
            kept.pop_front();
        }
        one
    }
}

impl Analyst {
    /// Returns a report on the fleet: a kept one that has not expired and holds what the client has written, or a
    /// new one.
    ///
    /// Blocks: until it is computed, for at most 30 s; the computation then continues for later requests
    /// Cancel: safe; the computation continues
    ///
    /// # Errors
    /// [`AskError`]; [`AskError::TooSlow`] if it was not computed in time.
    pub async fn fleet_report(
        &self,
        reads: &Reads,
        key: ReportKey,
        timeframe: Timeframe,
    ) -> Result<Arc<KeptReport>, AskError> {
        let kept = self.kept_or_new(reads, key, timeframe).await?;
        reads.add(kept.provenance);
        Ok(kept)
    }

    async fn kept_or_new(
        &self,
        reads: &Reads,
        key: ReportKey,
        timeframe: Timeframe,
    ) -> Result<Arc<KeptReport>, AskError> {
        if let Some(kept) = self.reports.find(&key, &timeframe, reads.at_least()) {
            if key.as_of.is_none() && kept.is_old(timeframe.now) {
                self.renew(reads, key, timeframe);
            }
            return Ok(kept);
        }
        let waiting = Arc::clone(&self.reports.waiting);
        let place = waiting.try_acquire_owned().map_err(|_| AskError::Busy)?;
        let (analyst, reads) = (self.clone(), reads.apart());
        let computation = tokio::spawn(async move {
            let kept = analyst
                .fleet_report_unhurried(&reads, key, timeframe, Priority::Normal)
                .await;
            drop(place);
            kept
        });
        match timeout(WAIT_TIMEOUT, computation).await {
            Ok(Ok(kept)) => kept,
            Ok(Err(_)) => Err(AskError::Failed),
            Err(_) => Err(AskError::TooSlow),
        }
    }

    /// Computes a report again in the background, unless another computation is running.
    fn renew(&self, reads: &Reads, key: ReportKey, timeframe: Timeframe) {
        let Ok(permit) = Arc::clone(&self.reports.computing).try_acquire_owned() else {
            return;
        };
        let (analyst, reads) = (self.clone(), reads.apart());
        tokio::spawn(async move {
            let renewed = analyst.compute_and_keep(&reads, key, timeframe, Priority::Yields);
            if let Err(error) = renewed.await {
                tracing::debug!(%error, "cannot refresh the fleet report");
            }
            drop(permit);
        });
    }

    /// Returns a report on the fleet to a caller that can wait for the whole computation.
    ///
    /// Blocks: until no other report is being computed, and then for at most 90 s
    /// Cancel: safe; what was computed so far is lost
    ///
    /// # Errors
    /// [`AskError`]; [`AskError::TooSlow`] if it takes longer.
    pub async fn fleet_report_unhurried(
        &self,
        reads: &Reads,
        key: ReportKey,
        timeframe: Timeframe,
        priority: Priority,
    ) -> Result<Arc<KeptReport>, AskError> {
        let permit = self.reports.computing.acquire().await;
        let _permit = permit.map_err(|_| AskError::Failed)?;
        // Another caller may have computed the same report during the wait.
        if let Some(kept) = self.reports.find(&key, &timeframe, reads.at_least()) {
            return Ok(kept);
        }
        self.compute_and_keep(reads, key, timeframe, priority).await
    }

    async fn compute_and_keep(
        &self,
        reads: &Reads,
        key: ReportKey,
        timeframe: Timeframe,
        priority: Priority,
    ) -> Result<Arc<KeptReport>, AskError> {
        let (window, as_of) = (timeframe.window, timeframe.now);
        let reads = reads.apart();
        let computed = reads.ask_within(COMPUTE_TIMEOUT, async |client| {
            let began = Instant::now();
            let report = self.compute_report(client, timeframe, priority).await?;
            Ok::<_, AskError>((report, began.elapsed()))
        });
        let (report, took) = computed.await.map_err(|error| match error {
            AskError::Read(ReadError::TooSlow) => AskError::TooSlow,
            AskError::Read(ReadError::AllBusy) => AskError::Busy,
            other => other,
        })?;
        Ok(self.reports.keep(KeptReport {
            key,
            window,
            as_of,
            age_micros_max: age_micros_max(took),
            report,
            provenance: reads.provenance(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_kept_as_long_as_it_was_expensive() {
        let age_s = |took_ms| age_micros_max(Duration::from_millis(took_ms)) / 1_000_000;
        assert_eq!(age_s(0), 1);
        assert_eq!(age_s(10), 6);
        assert_eq!(age_s(100), 60);
        assert_eq!(age_s(5_000), 60);
        assert_eq!(age_micros_max(Duration::MAX), 60_000_000);
    }
}
