//! Compares retired runs with their checkpoints in the database.
//!
//! After a database was restored to an older state, the writers store again whatever the log still holds. Readings
//! of a retired run that the database lacks are lost, and must be reported.

use std::collections::HashMap;

use tokio_postgres::{Client, Error};
use uuid::Uuid;

use super::session::{SessionError, WriterSession};
use crate::reading::{PerStream, StreamCounts};
use crate::wal::LogSource;
use crate::wal::frame::Position;
use crate::wal::progress::{Gap, Stored, Tally};
use crate::wal::retired_runs::RetiredRun;

/// What the database lacks of one shard of a retired run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lacking {
    /// The run.
    pub run: Uuid,
    /// Where the run ended.
    pub end: Position,
    /// The shard.
    pub shard: u16,
    /// Missing readings that are not counted as lost yet.
    pub new: StreamCounts,
    /// Missing readings that the checkpoint already counts.
    pub counted: StreamCounts,
}

impl Lacking {
    fn readings(&self) -> u64 {
        (self.new + self.counted).sum()
    }
}

impl From<&Lacking> for Gap {
    fn from(lacking: &Lacking) -> Self {
        Gap {
            run: lacking.run,
            shard: lacking.shard,
            readings: lacking.readings(),
        }
    }
}

/// The gaps that are counted in the checkpoints of some runs.
pub async fn counted(client: &Client, runs: &[Uuid]) -> Result<Vec<Gap>, Error> {
    let found = checkpoints(client, runs).await?;
    let gaps = found.into_iter().map(|((run, shard), stored)| Gap {
        run,
        shard,
        readings: stored.gap.sum(),
    });
    Ok(gaps.filter(|gap| gap.readings > 0).collect())
}

/// Finds what a database lacks of retired runs. Shards without losses are left out.
pub async fn lacking(client: &Client, retired: &[RetiredRun]) -> Result<Vec<Lacking>, Error> {
    let ids: Vec<Uuid> = retired.iter().map(|run| run.id).collect();
    let stored = checkpoints(client, &ids).await?;
    let mut all = Vec::new();
    for run in retired {
        for (shard, appended) in (0u16..).zip(&run.appended) {
            let stored = stored.get(&(run.id, shard));
            let stored = stored.copied().unwrap_or(Stored::NOTHING);
            let lacking = Lacking {
                run: run.id,
                end: run.end,
                shard,
                new: missing(run.end, *appended, &stored),
                counted: stored.gap,
            };
            if lacking.readings() > 0 {
                all.push(lacking);
            }
        }
    }
    Ok(all)
}

/// What the database holds of these runs, by run and shard.
async fn checkpoints(
    client: &Client,
    runs: &[Uuid],
) -> Result<HashMap<(Uuid, u16), Stored>, Error> {
    let sql = sql!("checkpoints_of_runs");
    let mut all = HashMap::new();
    for row in client.query(sql, &[&runs]).await? {
        let counts = |at: usize| PerStream {
            meter: row.get::<_, i64>(at) as u64,
            vehicle: row.get::<_, i64>(at + 1) as u64,
        };
        let stored = Stored {
            position: Position::from_i64(row.get(2)),
            // A settled reading is not missing, whatever the outcome was.
            tally: Tally {
                stored: counts(3),
                ..Tally::default()
            },
            gap: counts(5),
            ..Stored::NOTHING
        };
        all.insert((row.get(0), row.get::<_, i32>(1) as u16), stored);
    }
    Ok(all)
}

/// How many readings of a shard a checkpoint does not count.
fn missing(end: Position, appended: StreamCounts, stored: &Stored) -> StreamCounts {
    if stored.position >= end {
        return StreamCounts::ZERO;
    }
    appended.saturating_sub(stored.settled())
}

/// Counts what the database lacks of retired runs and logs it. The checkpoints keep the count until an operator
/// accepts it.
///
/// # Errors
/// [`SessionError`]: what was counted so far is kept.
pub(super) async fn compare(
    session: &WriterSession,
    source: &LogSource,
) -> Result<(), SessionError> {
    let retired = source.retired_into(session.database_id);
    let mut gaps = Vec::new();
    if !retired.is_empty() {
        for lacking in session
            .answered(lacking(session.client(), &retired))
            .await?
        {
            let new: u64 = lacking.new.sum();
            if new > 0 {
                count(session, &lacking).await?;
                tracing::error!(
                    run = %lacking.run, shard = lacking.shard, readings = new,
                    "the database was restored to a state before a run that the log no longer holds: \
                     readings are lost"
                );
            }
            gaps.push(Gap::from(&lacking));
        }
    }
    source.progress().set_retired_gaps(gaps);
    Ok(())
}

async fn count(session: &WriterSession, lacking: &Lacking) -> Result<(), SessionError> {
    let mut claim = session
        .answered(session.claim(lacking.run, lacking.shard))
        .await?;
    // From here on, only this session can move the checkpoint.
    if claim.stored.position >= lacking.end {
        return Ok(());
    }
    session
        .answered(session.skip_gap(&mut claim, lacking.end, lacking.new))
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_checkpoint_before_the_end_does_not_know_of_is_missing() {
        let end = Position::new(3, 4096);
        let at = |position, stored, gap| Stored {
            position,
            tally: Tally {
                stored,
                ..Tally::default()
            },
            gap,
            ..Stored::NOTHING
        };
        let counts = |meter, vehicle| PerStream { meter, vehicle };
        let (appended, none) = (counts(100, 20), StreamCounts::ZERO);
        assert_eq!(missing(end, appended, &Stored::NOTHING), appended);
        let half = at(Position::new(1, 4096), counts(60, 20), counts(5, 0));
        assert_eq!(missing(end, appended, &half), counts(35, 0));
        let all = at(end, appended, none);
        assert_eq!(missing(end, appended, &all), none);
        // The checkpoint of an idle shard may be before the run's end.
        let idle = at(Position::new(2, 4096), appended, none);
        assert_eq!(missing(end, appended, &idle), none);
    }
}
