//! Stores one batch in one transaction: checkpoint, history, quarantine and live status, all or nothing.
//!
//! COPY comes first. If PostgreSQL reports a duplicate key (23505) or refuses data, the batch is tried again with
//! a slower strategy that finds the rows at fault.

use std::time::Instant;

use super::batch::{Arranged, arrange};
use super::dirty_hours::{Marked, Watermark};
use super::insert::{bisect, copy, insert, probe, split};
use super::live::Newest;
use super::newest_seen::NewestSeen;
use super::quarantine::{Quarantined, quarantine};
use super::rows::{HistoryRow, MeterRow, VehicleRow};
use super::session::{Claim, SessionError, WriterSession};
use super::strategy::{Reload, Strategy, next_strategy, verdict_of};
use crate::failpoint;
use crate::failpoint::Point;
use crate::metrics;
use crate::metrics::BatchStep;
use crate::postgres::partitions;
use crate::reading::{PerStream, StreamCounts, Timestamp};
use crate::wal::frame::Position;
use crate::wal::progress::{Stored, Tally};

/// How often one batch is tried in a session before the writer starts over from the checkpoint. A batch may go
/// through several strategies, and a race with another gateway may send it back a step.
const TRIES_MAX: u32 = 8;

/// Begins a batch. Why read committed whatever the session's default is: each statement must see what others
/// committed before it. With a snapshot from before the watermark moved, no hour would become dirty. With one from
/// before another gateway's insert, its row would not be found.
pub(super) const BEGIN: &str = "begin isolation level read committed";

/// A batch that is ready to be stored.
pub struct Work {
    /// The checkpoint after it.
    pub to: Position,
    /// Meter rows.
    pub meters: Arranged<MeterRow>,
    /// Vehicle rows.
    pub vehicles: Arranged<VehicleRow>,
    /// When live status is written.
    pub live: LiveWrite,
    /// The most rows of a batch in which rows are looked up. One frame of the log may exceed it.
    pub looked_up_max: usize,
}

impl Work {
    /// Rows that would be in memory several times if they are looked up or set aside.
    fn rows(&self) -> usize {
        self.meters.rows.len() + self.vehicles.rows.len() + self.conflicts()
    }

    /// Rows that must be set aside in any case.
    fn conflicts(&self) -> usize {
        self.meters.conflicts.len() + self.vehicles.conflicts.len()
    }
}

/// When live status is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiveWrite {
    /// With this batch.
    Now,
    /// With a later one.
    Later,
}

/// The outcome of a batch.
#[derive(Debug)]
pub enum Outcome {
    /// It is stored.
    Committed(Committed),
    /// Some rows must be looked up or set aside, and the batch is too large for that. Nothing is stored. The
    /// strategy is now the one with which to store the same rows in smaller batches.
    TooLarge,
}

/// A batch that is stored.
#[derive(Debug)]
pub struct Committed {
    /// The checkpoint.
    pub stored: Stored,
    /// The readings that went into quarantine, by frame and index in the shard's section.
    pub quarantined: Vec<(Position, u32)>,
}

/// What a committed transaction did.
struct Attempt {
    committed: Committed,
    watermark: Watermark,
    marked: PerStream<Marked>,
    new: NewRows,
}

/// The rows of a batch that are new in history; `None` means all of them.
struct NewRows {
    meters: Option<Vec<MeterRow>>,
    vehicles: Option<Vec<VehicleRow>>,
}

impl NewRows {
    fn fold_into(&self, newest: &mut Newest, work: &Work, seen: &PerStream<NewestSeen>) {
        let meters = self.meters.as_deref().unwrap_or(&work.meters.rows);
        let vehicles = self.vehicles.as_deref().unwrap_or(&work.vehicles.rows);
        newest.fold(meters, &seen.meter);
        newest.fold(vehicles, &seen.vehicle);
    }
}

/// Stores a batch, with one strategy after another until one succeeds. Moves the claim to the new checkpoint.
///
/// A large batch is tried with COPY alone. If that fails, nothing is stored and the outcome is `TooLarge`.
///
/// Blocks: until COMMIT is answered
/// Cancel: the transaction is rolled back with the session
///
/// # Errors
/// [`SessionError`]: after the next connect, the checkpoint shows whether the batch was committed.
pub async fn store(
    session: &mut WriterSession,
    claim: &mut Claim,
    work: &Work,
    newest: &mut Newest,
    strategy: &mut Strategy,
) -> Result<Outcome, SessionError> {
    if *strategy == Strategy::Copy && work.conflicts() > work.looked_up_max {
        *strategy = Strategy::Careful;
        return Ok(Outcome::TooLarge);
    }
    let mut reload = Reload::NotYet;
    for _ in 0..TRIES_MAX {
        // Twice the time of one response, because a batch takes several statements.
        let within = session.answer_within * 2;
        let attempt = transaction(session, claim, work, newest, *strategy);
        let error = match session.answered_in(within, attempt).await {
            Ok(attempt) => {
                let Attempt { committed, new, .. } = attempt;
                claim.stored = committed.stored;
                session
                    .dirty_hours
                    .committed(attempt.watermark, attempt.marked);
                let (meters, vehicles) = (&work.meters.rows, &work.vehicles.rows);
                // Only after the commit, because rows that were rolled back must not reach live status with a
                // later batch.
                match work.live {
                    LiveWrite::Now => newest.clear(),
                    LiveWrite::Later => new.fold_into(newest, work, &session.newest_seen),
                }
                let seen = &mut session.newest_seen;
                seen.meter.note(meters, new.meters.as_deref());
                seen.vehicle.note(vehicles, new.vehicles.as_deref());
                return Ok(Outcome::Committed(committed));
            }
            Err(SessionError::Database(error)) => error,
            Err(other) => return Err(other),
        };
        if session.client().is_closed() {
            return Err(error.into());
        }
        let Some(next) = next_strategy(*strategy, verdict_of(&error), reload) else {
            return Err(error.into());
        };
        if next == *strategy {
            reload = Reload::Done;
            session.partitions = Default::default();
        }
        metrics::batch_retried(error.code().map_or("connection", |c| c.code()));
        session
            .answered(session.client().batch_execute("rollback"))
            .await?;
        let was = std::mem::replace(strategy, next);
        if was == Strategy::Copy && next != was && work.rows() > work.looked_up_max {
            return Ok(Outcome::TooLarge);
        }
        ensure_partitions(session, &work.meters.rows).await?;
        ensure_partitions(session, &work.vehicles.rows).await?;
    }
    Err(SessionError::Restless)
}

/// The rows that history holds with equal values.
pub(super) async fn in_history<R: HistoryRow>(
    session: &WriterSession,
    rows: Vec<R>,
) -> Result<Vec<R>, SessionError> {
    let known = &session.partitions[R::STREAM];
    let mut rows = arrange(rows, known).rows;
    let statement = &session.statements::<R>().probe;
    let probing = probe(session.client(), statement, &rows, known);
    let there = session.answered(probing).await?;
    rows.retain(|row| there.get(&row.key()).is_some_and(|r| r.same_values(row)));
    Ok(rows)
}

/// Creates the partitions that the rows need and the session does not know.
///
/// # Errors
/// [`SessionError`]: partitions created so far stay.
pub async fn ensure_partitions<R: HistoryRow>(
    session: &mut WriterSession,
    rows: &[R],
) -> Result<(), SessionError> {
    let stream = R::STREAM;
    let known = &session.partitions[stream];
    let missing: Vec<Timestamp> = rows
        .iter()
        .map(|r| r.key().1)
        .filter(|at| known.find(*at).is_none())
        .collect();
    if !missing.is_empty() {
        let making = partitions::ensure(session.client(), stream, session.width, &missing);
        session.partitions[stream] = session.answered(making).await?;
    }
    Ok(())
}

/// One try, in one transaction.
async fn transaction(
    session: &WriterSession,
    claim: &Claim,
    work: &Work,
    newest: &Newest,
    strategy: Strategy,
) -> Result<Attempt, SessionError> {
    let client = session.client();
    client.batch_execute(BEGIN).await?;
    let live_position = if work.live == LiveWrite::Now {
        work.to
    } else {
        claim.stored.live_position
    };
    let after = |tally: Tally| Stored {
        position: work.to,
        live_position,
        tally: claim.stored.tally.plus(&tally),
        gap: claim.stored.gap,
    };
    // The first statement moves the checkpoint. It fails if another session has claimed it.
    let hoped = hoped(&work.meters).plus(&hoped(&work.vehicles));
    let first = if strategy == Strategy::Copy {
        after(hoped)
    } else {
        Stored {
            position: work.to,
            ..claim.stored
        }
    };
    move_checkpoint(session, claim, claim.stored.position, first).await?;
    let dirty = &session.dirty_hours;
    let watermark = dirty.watermark(client).await?;
    let marked = PerStream {
        meter: dirty.add(client, watermark, &work.meters.rows).await?,
        vehicle: dirty.add(client, watermark, &work.vehicles.rows).await?,
    };
    let step = Instant::now();
    let meters = store_rows(session, claim, &work.meters, strategy).await?;
    let vehicles = store_rows(session, claim, &work.vehicles, strategy).await?;
    metrics::batch_step(BatchStep::Copy, step.elapsed());
    failpoint::reach(Point::CopyEnd);
    let tally = meters.tally.plus(&vehicles.tally);
    let stored = after(tally);
    if stored != first {
        move_checkpoint(session, claim, work.to, stored).await?;
    }
    let new = NewRows {
        meters: meters.kept,
        vehicles: vehicles.kept,
    };
    if work.live == LiveWrite::Now {
        let step = Instant::now();
        let mut of_batch = Newest::default();
        new.fold_into(&mut of_batch, work, &session.newest_seen);
        newest
            .upsert_with(&of_batch, client, session.live_statements())
            .await?;
        metrics::batch_step(BatchStep::Live, step.elapsed());
    }
    let step = Instant::now();
    // Every statement before this one succeeded, so COMMIT cannot turn into a ROLLBACK.
    failpoint::during(Point::CommitSent, client.batch_execute("commit")).await?;
    failpoint::reach(Point::CommitAnswered);
    metrics::batch_step(BatchStep::Commit, step.elapsed());
    let quarantined = [meters.quarantined, vehicles.quarantined].concat();
    let committed = Committed {
        stored,
        quarantined,
    };
    Ok(Attempt {
        committed,
        watermark,
        marked,
        new,
    })
}

/// The outcome for one stream's rows if history holds none of them yet.
fn hoped<R: HistoryRow>(work: &Arranged<R>) -> Tally {
    Tally {
        stored: StreamCounts::of(R::STREAM, work.rows.len() as u64),
        duplicates: StreamCounts::of(R::STREAM, work.duplicates),
        quarantined: StreamCounts::of(R::STREAM, work.conflicts.len() as u64),
    }
}

async fn move_checkpoint(
    session: &WriterSession,
    claim: &Claim,
    from: Position,
    to: Stored,
) -> Result<(), SessionError> {
    let [stored, duplicates, quarantined] =
        [to.tally.stored, to.tally.duplicates, to.tally.quarantined]
            .map(|counts| counts.map(|n| n as i64));
    let moved = session
        .client()
        .execute(
            &session.checkpoint_move,
            &[
                &claim.run_id,
                &claim.shard,
                &claim.epoch,
                &from.to_i64(),
                &to.position.to_i64(),
                &to.live_position.to_i64(),
                &stored.meter,
                &duplicates.meter,
                &quarantined.meter,
                &stored.vehicle,
                &duplicates.vehicle,
                &quarantined.vehicle,
            ],
        )
        .await?;
    if moved == 1 {
        Ok(())
    } else {
        Err(SessionError::Fenced)
    }
}

/// The outcome of the rows of one stream.
struct StoredRows<R> {
    tally: Tally,
    /// The rows that are new in history; `None` means all of them.
    kept: Option<Vec<R>>,
    /// The log positions of the rows that went into quarantine.
    quarantined: Vec<(Position, u32)>,
}

/// Stores the rows of one stream with a strategy, and sets contradictions aside.
async fn store_rows<R: HistoryRow>(
    session: &WriterSession,
    claim: &Claim,
    work: &Arranged<R>,
    strategy: Strategy,
) -> Result<StoredRows<R>, SessionError> {
    let (client, statements) = (session.client(), session.statements::<R>());
    let mut set_aside: Vec<Quarantined<R>> = work
        .conflicts
        .iter()
        .map(|row| Quarantined::contradiction(*row))
        .collect();
    let mut duplicates = work.duplicates;
    let kept = match strategy {
        Strategy::Copy => {
            copy(client, &statements.copy, &work.rows).await?;
            None
        }
        Strategy::Careful | Strategy::Probe | Strategy::Bisect => {
            let known = &session.partitions[R::STREAM];
            let suspects = match strategy {
                Strategy::Careful => session.newest_seen[R::STREAM].suspects(&work.rows),
                _ => work.rows.clone(),
            };
            let there = probe(client, &statements.probe, &suspects, known).await?;
            let new = split(&work.rows, &there, &mut duplicates, &mut set_aside);
            if strategy == Strategy::Bisect {
                Some(bisect(client, statements, &new, &mut set_aside).await?)
            } else {
                copy(client, &statements.copy, &new).await?;
                Some(new)
            }
        }
        Strategy::Insert => {
            let new = insert(client, &statements.insert, &work.rows).await?;
            let rest: Vec<R> = work
                .rows
                .iter()
                .filter(|r| !new.contains(&r.key()))
                .copied()
                .collect();
            let known = &session.partitions[R::STREAM];
            // This later statement sees what the other transaction has committed.
            let there = probe(client, &statements.probe, &rest, known).await?;
            let missing = split(&rest, &there, &mut duplicates, &mut set_aside);
            if !missing.is_empty() {
                // A row was deleted between the two statements: store the whole batch again.
                return Err(SessionError::RowsDeleted);
            }
            Some(
                work.rows
                    .iter()
                    .filter(|r| new.contains(&r.key()))
                    .copied()
                    .collect(),
            )
        }
    };
    quarantine(client, claim, &set_aside).await?;
    let stored = kept.as_ref().map_or(work.rows.len(), Vec::len) as u64;
    let tally = Tally {
        stored: StreamCounts::of(R::STREAM, stored),
        duplicates: StreamCounts::of(R::STREAM, duplicates),
        quarantined: StreamCounts::of(R::STREAM, set_aside.len() as u64),
    };
    let origins = set_aside.iter().map(Quarantined::origin);
    Ok(StoredRows {
        tally,
        kept,
        quarantined: origins.map(|at| (at.position, at.index)).collect(),
    })
}
