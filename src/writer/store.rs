//! One batch, one transaction: checkpoint, history, quarantine and live status, or none of it.
//!
//! The quick way is COPY. Only where PostgreSQL says that a key is there already (23505), or that
//! data are refused, the batch is tried again in a slower way that finds out which.

use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use futures_util::SinkExt;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Statement};

use super::batch::{Arranged, counts_of};
use super::classify::{Verdict, verdict};
use super::live::Newest;
use super::quarantine::{Quarantined, REPEAT_STATE, quarantine};
use super::rows::{Columns, HistoryRow, MeterRow, VehicleRow, from_system_time, to_system_time};
use super::session::{Claim, RowStatements, SessionError, WriterSession};
use crate::metrics::{self, BatchStep};
use crate::postgres::partitions::{self, Partitions};
use crate::reading::{Stream, Timestamp};
use crate::wal::frame::Position;
use crate::wal::progress::{Stored, Tally};

/// COPY is sent in pieces of this size.
const COPY_CHUNK_BYTES: usize = 64 << 10;
/// Rows in one statement with arrays.
const ROWS_PER_STATEMENT: usize = 10_000;
/// A batch that takes longer than this is given up with its session.
const BATCH_DEADLINE: Duration = Duration::from_secs(120);

const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// How a batch is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// COPY everything: right when nothing is repeated.
    Copy,
    /// Look up which keys are there, COPY the rest.
    Probe,
    /// Insert row by row where nothing is: another gateway stores the same keys at this moment.
    Insert,
    /// Look up, then halve until the rows are found that the database refuses.
    Bisect,
}

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

/// What a transaction did.
struct Outcome {
    tally: Tally,
}

/// Stores a batch, in whatever way it takes.
///
/// Shape:  the checkpoint that was committed; the claim is moved to it
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
    way: &mut Way,
) -> Result<Stored, SessionError> {
    ensure_partitions(session, work).await?;
    let mut reloaded = false;
    loop {
        let attempt = transaction(session, claim, work, newest, *way);
        let error = match tokio::time::timeout(BATCH_DEADLINE, attempt).await {
            Ok(Ok(stored)) => {
                claim.stored = stored;
                if work.live_due {
                    newest.clear();
                }
                return Ok(stored);
            }
            Ok(Err(SessionError::Database(error))) => error,
            Ok(Err(other)) => return Err(other),
            Err(_) => return Err(SessionError::Timeout(BATCH_DEADLINE)),
        };
        if session.client().is_closed() {
            return Err(error.into());
        }
        let next = match verdict(error.code()) {
            Verdict::Repeat if *way == Way::Copy => Way::Probe,
            Verdict::Repeat if *way != Way::Insert => Way::Insert,
            // A partition that is not there looks like a rule that is broken.
            Verdict::CheckViolation if !reloaded => {
                reloaded = true;
                session.partitions = Default::default();
                *way
            }
            Verdict::CheckViolation | Verdict::Data if *way != Way::Bisect => Way::Bisect,
            _ => return Err(error.into()),
        };
        metrics::batch_retried(error.code().map_or("connection", |c| c.code()));
        *way = next;
        session.client().batch_execute("rollback").await?;
        ensure_partitions(session, work).await?;
    }
}

/// Makes the partitions that the batch needs and the session does not know.
async fn ensure_partitions(session: &mut WriterSession, work: &Work) -> Result<(), SessionError> {
    async fn one<R: HistoryRow>(
        session: &mut WriterSession,
        rows: &[R],
    ) -> Result<(), SessionError> {
        let stream = R::STREAM;
        let known = &session.partitions[stream.index()];
        let missing: Vec<Timestamp> = rows
            .iter()
            .map(|r| r.key().1)
            .filter(|at| known.find(*at).is_none())
            .collect();
        if !missing.is_empty() {
            let now = partitions::ensure(session.client(), stream, session.width, &missing).await?;
            session.partitions[stream.index()] = now;
        }
        Ok(())
    }
    one(session, &work.meters.rows).await?;
    one(session, &work.vehicles.rows).await
}

/// One try, in one transaction.
async fn transaction(
    session: &WriterSession,
    claim: &Claim,
    work: &Work,
    newest: &mut Newest,
    way: Way,
) -> Result<Stored, SessionError> {
    let client = session.client();
    client.batch_execute("begin").await?;
    let clean = |meters: u64, vehicles: u64| Tally {
        stored: [meters, vehicles],
        duplicates: [work.meters.duplicates, work.vehicles.duplicates],
        quarantined: [
            work.meters.conflicts.len() as u64,
            work.vehicles.conflicts.len() as u64,
        ],
    };
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
    let hoped = clean(
        work.meters.rows.len() as u64,
        work.vehicles.rows.len() as u64,
    );
    let first = if way == Way::Copy {
        after(hoped)
    } else {
        Stored {
            position: work.to,
            ..claim.stored
        }
    };
    move_checkpoint(session, claim, claim.stored.position, first).await?;
    let step = Instant::now();
    let meters = store_rows(session, claim, &work.meters, &session.meter, way).await?;
    let vehicles = store_rows(session, claim, &work.vehicles, &session.vehicle, way).await?;
    metrics::batch_step(BatchStep::Copy, step.elapsed());
    let tally = meters.outcome.tally.plus(&vehicles.outcome.tally);
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
        newest
            .upsert(client, &session.meter.live, &session.vehicle.live)
            .await?;
        metrics::batch_step(BatchStep::Live, step.elapsed());
    }
    let step = Instant::now();
    // Every statement before this one succeeded, so that COMMIT cannot be answered by ROLLBACK.
    client.batch_execute("commit").await?;
    metrics::batch_step(BatchStep::Commit, step.elapsed());
    Ok(stored)
}

async fn move_checkpoint(
    session: &WriterSession,
    claim: &Claim,
    from: Position,
    to: Stored,
) -> Result<(), SessionError> {
    let n = |counts: [u64; 2], stream: Stream| counts[stream.index()] as i64;
    let tally = &to.tally;
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
                &n(tally.stored, Stream::Meter),
                &n(tally.duplicates, Stream::Meter),
                &n(tally.quarantined, Stream::Meter),
                &n(tally.stored, Stream::Vehicle),
                &n(tally.duplicates, Stream::Vehicle),
                &n(tally.quarantined, Stream::Vehicle),
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
    outcome: Outcome,
    /// The rows that are new in history, where they are not simply all of them.
    kept: Option<Vec<R>>,
}

/// Stores the rows of one stream in the given way, and sets aside what contradicts.
async fn store_rows<R: HistoryRow>(
    session: &WriterSession,
    claim: &Claim,
    work: &Arranged<R>,
    statements: &RowStatements,
    way: Way,
) -> Result<StoredRows<R>, SessionError> {
    let client = session.client();
    let mut set_aside: Vec<Quarantined<R>> = work
        .conflicts
        .iter()
        .map(|row| Quarantined::contradiction(*row))
        .collect();
    let mut duplicates = work.duplicates;
    let kept = match way {
        Way::Copy => {
            copy(client, &statements.copy, &work.rows).await?;
            None
        }
        Way::Probe | Way::Bisect => {
            let known = &session.partitions[R::STREAM.index()];
            let there = probe(client, &statements.probe, &work.rows, known).await?;
            let new = split(&work.rows, &there, &mut duplicates, &mut set_aside);
            if way == Way::Probe {
                copy(client, &statements.copy, &new).await?;
                Some(new)
            } else {
                Some(bisect(client, &statements.copy, new, &mut set_aside).await?)
            }
        }
        Way::Insert => {
            let new = insert(client, &statements.insert, &work.rows).await?;
            let rest: Vec<R> = work
                .rows
                .iter()
                .filter(|r| !new.contains(&r.key()))
                .copied()
                .collect();
            let known = &session.partitions[R::STREAM.index()];
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
        stored: counts_of(R::STREAM, stored),
        duplicates: counts_of(R::STREAM, duplicates),
        quarantined: counts_of(R::STREAM, set_aside.len() as u64),
    };
    Ok(StoredRows {
        outcome: Outcome { tally },
        kept,
    })
}

/// Sends rows as one COPY.
async fn copy<R: HistoryRow>(
    client: &Client,
    statement: &Statement,
    rows: &[R],
) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let sink = client.copy_in(statement).await?;
    tokio::pin!(sink);
    let mut chunk = BytesMut::with_capacity(COPY_CHUNK_BYTES + 256);
    chunk.extend_from_slice(COPY_HEADER);
    for row in rows {
        row.encode(&mut chunk);
        if chunk.len() >= COPY_CHUNK_BYTES {
            let full =
                std::mem::replace(&mut chunk, BytesMut::with_capacity(COPY_CHUNK_BYTES + 256));
            sink.send(full.freeze()).await?;
        }
    }
    chunk.put_i16(-1);
    sink.send(chunk.freeze()).await?;
    sink.finish().await?;
    Ok(())
}

/// Reads what history holds under the keys of some rows, partition by partition.
async fn probe<R: HistoryRow>(
    client: &Client,
    statement: &Statement,
    rows: &[R],
    known: &Partitions,
) -> Result<std::collections::HashMap<(i32, Timestamp), R>, Error> {
    let mut there = std::collections::HashMap::new();
    for part in rows.chunk_by(|a, b| known.find(a.key().1) == known.find(b.key().1)) {
        for some in part.chunks(ROWS_PER_STATEMENT) {
            let Some(like) = some.first() else { continue };
            let ids: Vec<i32> = some.iter().map(|r| r.key().0).collect();
            let times: Vec<_> = some.iter().map(|r| to_system_time(r.key().1)).collect();
            let (oldest, newest) = (times.iter().min(), times.iter().max());
            for row in client
                .query(statement, &[&ids, &times, &oldest, &newest])
                .await?
            {
                let found = R::from_probe(&row, like);
                there.insert(found.key(), found);
            }
        }
    }
    Ok(there)
}

/// Parts rows into those that are new, equal repeats, and contradictions.
fn split<R: HistoryRow>(
    rows: &[R],
    there: &std::collections::HashMap<(i32, Timestamp), R>,
    duplicates: &mut u64,
    set_aside: &mut Vec<Quarantined<R>>,
) -> Vec<R> {
    let mut new = Vec::with_capacity(rows.len());
    for row in rows {
        match there.get(&row.key()) {
            None => new.push(*row),
            Some(found) if found.same_values(row) => *duplicates += 1,
            Some(_) => set_aside.push(Quarantined::contradiction(*row)),
        }
    }
    new
}

/// Inserts rows where nothing is, and tells the keys of those that went in.
async fn insert<R: HistoryRow>(
    client: &Client,
    statement: &Statement,
    rows: &[R],
) -> Result<std::collections::HashSet<(i32, Timestamp)>, Error> {
    let mut new = std::collections::HashSet::new();
    for some in rows.chunks(ROWS_PER_STATEMENT) {
        for row in client
            .query(statement, &as_params(&R::columns(some)))
            .await?
        {
            new.insert((row.get(0), from_system_time(row.get(1))));
        }
    }
    Ok(new)
}

/// Copies rows under savepoints, halving where the database refuses the data, until what is
/// refused alone is found.
async fn bisect<R: HistoryRow>(
    client: &Client,
    statement: &Statement,
    rows: Vec<R>,
    set_aside: &mut Vec<Quarantined<R>>,
) -> Result<Vec<R>, Error> {
    let mut stored = Vec::with_capacity(rows.len());
    // Front to back, so that rows go in in their order.
    let mut parts: Vec<&[R]> = vec![&rows];
    while let Some(part) = parts.pop() {
        client.batch_execute("savepoint part").await?;
        match copy(client, statement, part).await {
            Ok(()) => {
                client.batch_execute("release savepoint part").await?;
                stored.extend_from_slice(part);
            }
            Err(error) => {
                let data = matches!(
                    verdict(error.code()),
                    Verdict::Data | Verdict::CheckViolation
                );
                let Some(db) = error.as_db_error().filter(|_| data) else {
                    return Err(error);
                };
                let (state, reason) = (db.code().code().to_owned(), db.message().to_owned());
                client.batch_execute("rollback to savepoint part").await?;
                client.batch_execute("release savepoint part").await?;
                match part {
                    [row] => set_aside.push(Quarantined::refused(*row, state, reason)),
                    _ => {
                        let (front, back) = part.split_at(part.len() / 2);
                        parts.push(back);
                        parts.push(front);
                    }
                }
            }
        }
    }
    Ok(stored)
}

/// Borrows columns as a statement's parameters.
pub(super) fn as_params(columns: &Columns) -> Vec<&(dyn ToSql + Sync)> {
    columns
        .iter()
        .map(|c| &**c as &(dyn ToSql + Sync))
        .collect()
}

impl<R: HistoryRow> Quarantined<R> {
    fn contradiction(row: R) -> Self {
        Quarantined::refused(
            row,
            REPEAT_STATE.to_owned(),
            "another reading of this device and time, with other values, is stored".to_owned(),
        )
    }
}
