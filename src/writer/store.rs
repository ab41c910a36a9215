//! One batch, one transaction: checkpoint, history, quarantine and live status, or none of it.
//!
//! The quick way is COPY. Only where PostgreSQL says that a key is there already (23505), or that
//! data are refused, the batch is tried again in a slower way that finds out which.

use std::time::Instant;

use super::batch::{Arranged, arrange};
use super::insert::{bisect, copy, insert, probe, split};
use super::live::Newest;
use super::quarantine::{Quarantined, quarantine};
use super::rows::{HistoryRow, MeterRow, VehicleRow};
use super::session::{Claim, SessionError, WriterSession};
use super::strategy::{Strategy, next_strategy, verdict_of};
use crate::failpoint;
use crate::failpoint::Point;
use crate::metrics;
use crate::metrics::BatchStep;
use crate::postgres::partitions;
use crate::reading::{StreamCounts, Timestamp};
use crate::wal::frame::Position;
use crate::wal::progress::{Stored, Tally};

/// How often one batch is tried in the session at hand before it is begun anew from the
/// checkpoint: the ways are three steps long, and two gateways may send each other back a step.
const TRIES_MAX: u32 = 8;

/// Begins a batch. Why not as the session is set: each statement has to see what others have
/// committed before it. A snapshot from before the seal would leave no mark, and one from before
/// another gateway's insert would not find its row.
pub(super) const BEGIN: &str = "begin isolation level read committed";

/// A batch, arranged, with where it leads.
pub struct Work {
    /// The checkpoint after it.
    pub to: Position,
    /// Meter rows.
    pub meters: Arranged<MeterRow>,
    /// Vehicle rows.
    pub vehicles: Arranged<VehicleRow>,
    /// Whether live status is written with it.
    pub live_due: bool,
}

/// What a batch has come to.
#[derive(Debug)]
pub struct Committed {
    /// The checkpoint.
    pub stored: Stored,
    /// The readings that went into quarantine: their frame, their index in the shard's section of it.
    pub quarantined: Vec<(Position, u32)>,
}

/// Stores a batch, in whatever way it takes.
///
/// Shape:  the checkpoint that was committed, and which readings went into quarantine; the claim is
///         moved to the checkpoint
/// Blocks: until COMMIT is answered
/// Cancel: the transaction is given up with the session
///
/// # Errors
/// [`SessionError`]: whether it was committed is known only from the checkpoint, on the next
/// connect.
pub async fn store(
    session: &mut WriterSession,
    claim: &mut Claim,
    work: &Work,
    newest: &mut Newest,
    way: &mut Strategy,
) -> Result<Committed, SessionError> {
    let mut reloaded = false;
    for _ in 0..TRIES_MAX {
        // Twice the time of one answer: a batch is several statements.
        let within = session.answer_within * 2;
        let attempt = transaction(session, claim, work, newest, *way);
        let error = match session.answered_in(within, attempt).await {
            Ok(committed) => {
                claim.stored = committed.stored;
                session.newest_seen.meter.note(&work.meters.rows);
                session.newest_seen.vehicle.note(&work.vehicles.rows);
                if work.live_due {
                    newest.clear();
                }
                return Ok(committed);
            }
            Err(SessionError::Database(error)) => error,
            Err(other) => return Err(other),
        };
        if session.client().is_closed() {
            return Err(error.into());
        }
        let Some(next) = next_strategy(*way, verdict_of(&error), reloaded) else {
            return Err(error.into());
        };
        if next == *way {
            reloaded = true;
            session.partitions = Default::default();
        }
        metrics::batch_retried(error.code().map_or("connection", |c| c.code()));
        *way = next;
        session
            .answered(session.client().batch_execute("rollback"))
            .await?;
        ensure_partitions(session, &work.meters.rows).await?;
        ensure_partitions(session, &work.vehicles.rows).await?;
    }
    Err(SessionError::Restless)
}

/// Those of some rows that history holds, with the same values.
///
/// # Errors
/// [`SessionError`]
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

/// Makes the partitions that rows need and the session does not know.
///
/// # Errors
/// [`SessionError`]: what was made stays.
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
    newest: &mut Newest,
    way: Strategy,
) -> Result<Committed, SessionError> {
    let client = session.client();
    client.batch_execute(BEGIN).await?;
    let live_position = if work.live_due {
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
    // The first statement moves the checkpoint, or finds that it is no longer ours to move.
    let hoped = hoped(&work.meters).plus(&hoped(&work.vehicles));
    let first = if way == Strategy::Copy {
        after(hoped)
    } else {
        Stored {
            position: work.to,
            ..claim.stored
        }
    };
    move_checkpoint(session, claim, claim.stored.position, first).await?;
    let sealed_to = session.marks.sealed_to(client).await?;
    let marks = &session.marks;
    marks.mark(client, sealed_to, &work.meters.rows).await?;
    marks.mark(client, sealed_to, &work.vehicles.rows).await?;
    let step = Instant::now();
    let meters = store_rows(session, claim, &work.meters, way).await?;
    let vehicles = store_rows(session, claim, &work.vehicles, way).await?;
    metrics::batch_step(BatchStep::Copy, step.elapsed());
    failpoint::reach(Point::CopyEnd);
    let tally = meters.tally.plus(&vehicles.tally);
    let stored = after(tally);
    if stored != first {
        move_checkpoint(session, claim, work.to, stored).await?;
    }
    newest.fold(
        meters.kept.as_deref().unwrap_or(&work.meters.rows),
        vehicles.kept.as_deref().unwrap_or(&work.vehicles.rows),
    );
    if work.live_due {
        let step = Instant::now();
        newest.upsert(client, session.live_statements()).await?;
        metrics::batch_step(BatchStep::Live, step.elapsed());
    }
    let step = Instant::now();
    // Every statement before this one succeeded, so that COMMIT cannot be answered by ROLLBACK.
    failpoint::during(Point::CommitSent, client.batch_execute("commit")).await?;
    failpoint::reach(Point::CommitAnswered);
    metrics::batch_step(BatchStep::Commit, step.elapsed());
    let quarantined = [meters.quarantined, vehicles.quarantined].concat();
    Ok(Committed {
        stored,
        quarantined,
    })
}

/// What becomes of the rows of one stream where history holds none of them.
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

/// What became of the rows of one stream.
struct StoredRows<R> {
    tally: Tally,
    /// The rows that are new in history, where they are not simply all of them.
    kept: Option<Vec<R>>,
    /// Where those stand in the log that went into quarantine.
    quarantined: Vec<(Position, u32)>,
}

/// Stores the rows of one stream in the given way, and sets aside what contradicts.
async fn store_rows<R: HistoryRow>(
    session: &WriterSession,
    claim: &Claim,
    work: &Arranged<R>,
    way: Strategy,
) -> Result<StoredRows<R>, SessionError> {
    let (client, statements) = (session.client(), session.statements::<R>());
    let mut set_aside: Vec<Quarantined<R>> = work
        .conflicts
        .iter()
        .map(|row| Quarantined::contradiction(*row))
        .collect();
    let mut duplicates = work.duplicates;
    let kept = match way {
        Strategy::Copy => {
            copy(client, &statements.copy, &work.rows).await?;
            None
        }
        Strategy::Careful | Strategy::Probe | Strategy::Bisect => {
            let known = &session.partitions[R::STREAM];
            let suspects = match way {
                Strategy::Careful => session.newest_seen[R::STREAM].suspects(&work.rows),
                _ => work.rows.clone(),
            };
            let there = probe(client, &statements.probe, &suspects, known).await?;
            let new = split(&work.rows, &there, &mut duplicates, &mut set_aside);
            if way == Strategy::Bisect {
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
            // A later statement sees what the other transaction has committed.
            let there = probe(client, &statements.probe, &rest, known).await?;
            let missing = split(&rest, &there, &mut duplicates, &mut set_aside);
            if !missing.is_empty() {
                // Deleted between the two statements: take the whole batch again.
                return Err(SessionError::Fenced);
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
