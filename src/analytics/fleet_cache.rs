//! Surveys of the fleet: one is computed at a time, and kept for a minute for all who ask. One that
//! is asked for again is made anew before that minute is over.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::fleet::{Ranked, Surveyed};
use super::{Analyst, AskError};
use crate::energy::interval::Run;
use crate::postgres::{ReadError, ReadPool};
use crate::reading::Timestamp;

/// How old an answer may be: a ranking is looked at, not steered by.
const AGE_MICROS_MAX: i64 = 60_000_000;
/// From which age on an answer that is asked for is made anew, while the one that is there still
/// answers: who looks at a ranking all the time never waits for one.
const RENEW_MICROS: i64 = 25_000_000;
/// How many are kept, for pages that come later.
const KEPT_MAX: usize = 4;
/// The size of all that are kept, in bytes of printed answers; the newest is kept whatever its size.
const KEPT_BYTES_MAX: usize = 128 << 20;
/// How long one may be computed. It holds a snapshot meanwhile, which keeps the live tables from
/// being vacuumed: longer than a statement of the read path may, for once.
const COMPUTE_TIMEOUT: Duration = Duration::from_secs(90);
/// How long a request waits for one.
const WAIT_TIMEOUT: Duration = Duration::from_secs(30);
/// How many requests wait for one at once.
const WAITING_MAX: usize = 32;

/// A window as it was asked for: an answer is shared by those who asked for the same.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Asked {
    /// `from`, if it was given.
    pub from: Option<Timestamp>,
    /// `to`, if it was given.
    pub to: Option<Timestamp>,
    /// How the series is cut; empty: there is none.
    pub series: String,
    /// Of the moment that a page before was of.
    pub as_of: Option<Timestamp>,
}

/// A survey with the window that it is of.
#[derive(Debug)]
pub struct Kept {
    asked: Asked,
    /// W.
    pub window: Run,
    /// When it was begun.
    pub as_of: Timestamp,
    /// What was found.
    pub surveyed: Surveyed,
}

impl Kept {
    fn serves(&self, asked: &Asked, window: Run, now: Timestamp) -> bool {
        let series = asked.series.is_empty() || asked.series == self.asked.series;
        series
            && match asked.as_of {
                Some(at) => self.as_of == at && self.window == window,
                None => {
                    let same = asked.from == self.asked.from && asked.to == self.asked.to;
                    same && (0..AGE_MICROS_MAX).contains(&self.age_micros(now))
                }
            }
    }

    fn age_micros(&self, now: Timestamp) -> i64 {
        now.as_micros() - self.as_of.as_micros()
    }

    fn bytes(&self) -> usize {
        let each = self.surveyed.vehicles.iter();
        each.map(Ranked::bytes).sum()
    }
}

/// What is kept, and who computes.
#[derive(Debug, Clone)]
pub(super) struct Surveys {
    kept: Arc<Mutex<VecDeque<Arc<Kept>>>>,
    computing: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Default for Surveys {
    fn default() -> Self {
        Surveys {
            kept: Arc::default(),
            computing: Arc::new(Semaphore::new(1)),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
        }
    }
}

impl Surveys {
    fn find(&self, asked: &Asked, window: Run, now: Timestamp) -> Option<Arc<Kept>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut newest_first = kept.iter().rev();
        newest_first.find(|k| k.serves(asked, window, now)).cloned()
    }

    fn keep(&self, one: Kept) -> Arc<Kept> {
        let one = Arc::new(one);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back(Arc::clone(&one));
        let too_large = |kept: &VecDeque<Arc<Kept>>| {
            kept.iter().map(|k| k.bytes()).sum::<usize>() > KEPT_BYTES_MAX
        };
        while kept.len() > 1 && (kept.len() > KEPT_MAX || too_large(&kept)) {
            kept.pop_front();
        }
        one
    }
}

impl Analyst {
    /// Gives a survey of the fleet: one that is kept and at most a minute old, or a new one.
    ///
    /// Blocks: until it is computed, at most 30 s; the computation goes on then, for who comes
    ///         again
    /// Cancel: safe; the computation goes on
    ///
    /// # Errors
    /// [`AskError`]; [`AskError::TooSlow`] where it is not there in time.
    pub async fn surveyed(
        &self,
        reads: &ReadPool,
        asked: Asked,
        window: Run,
        parts: Vec<Run>,
        now: Timestamp,
    ) -> Result<Arc<Kept>, AskError> {
        if let Some(kept) = self.surveys.find(&asked, window, now) {
            if asked.as_of.is_none() && kept.age_micros(now) >= RENEW_MICROS {
                self.renew(reads, asked, window, parts, now);
            }
            return Ok(kept);
        }
        let waiting = Arc::clone(&self.surveys.waiting);
        let place = waiting.try_acquire_owned().map_err(|_| AskError::Busy)?;
        let (analyst, reads) = (self.clone(), reads.clone());
        let computation = tokio::spawn(async move {
            let kept = analyst
                .survey_in_turn(&reads, asked, window, parts, now, false)
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

    /// Makes an answer anew beside the one that is kept, unless one is being made.
    fn renew(&self, reads: &ReadPool, asked: Asked, window: Run, parts: Vec<Run>, now: Timestamp) {
        let Ok(turn) = Arc::clone(&self.surveys.computing).try_acquire_owned() else {
            return;
        };
        let (analyst, reads) = (self.clone(), reads.clone());
        tokio::spawn(async move {
            let made = analyst.survey_now(&reads, asked, window, parts, now, true);
            if let Err(error) = made.await {
                tracing::debug!(%error, "the fleet's answer was not made anew");
            }
            drop(turn);
        });
    }

    /// Gives a survey to who can wait until it is computed: nobody looks at a clock meanwhile.
    ///
    /// Blocks: until it is this one's turn, and then at most 90 s
    /// Cancel: safe; what was computed so far is lost
    ///
    /// # Errors
    /// [`AskError`]; [`AskError::TooSlow`] where it takes longer than it may.
    pub async fn survey_in_turn(
        &self,
        reads: &ReadPool,
        asked: Asked,
        window: Run,
        parts: Vec<Run>,
        now: Timestamp,
        makes_way: bool,
    ) -> Result<Arc<Kept>, AskError> {
        let turn = self.surveys.computing.acquire().await;
        let _turn = turn.map_err(|_| AskError::Failed)?;
        // Another's may have come while this one waited.
        if let Some(kept) = self.surveys.find(&asked, window, now) {
            return Ok(kept);
        }
        self.survey_now(reads, asked, window, parts, now, makes_way)
            .await
    }

    async fn survey_now(
        &self,
        reads: &ReadPool,
        asked: Asked,
        window: Run,
        parts: Vec<Run>,
        now: Timestamp,
        makes_way: bool,
    ) -> Result<Arc<Kept>, AskError> {
        let survey = reads.ask_within(COMPUTE_TIMEOUT, async |client| {
            self.survey(client, window, parts, now, makes_way).await
        });
        let surveyed = survey.await.map_err(|error| match error {
            AskError::Read(ReadError::TooSlow) => AskError::TooSlow,
            AskError::Read(ReadError::AllBusy) => AskError::Busy,
            other => other,
        })?;
        Ok(self.surveys.keep(Kept {
            asked,
            window,
            as_of: now,
            surveyed,
        }))
    }
}
