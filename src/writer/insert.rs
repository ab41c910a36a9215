//! Stores rows in history, from a plain COPY down to finding the one row that the database refuses.
//!
//! Every function runs in the open transaction. If it fails, the transaction is no longer usable.

use std::collections::{HashMap, HashSet};

use bytes::{BufMut, BytesMut};
use futures_util::SinkExt;
use futures_util::future::{join, join_all};
use tokio_postgres::error::DbError;
use tokio_postgres::{Client, Error, Statement};

use super::quarantine::Quarantined;
use super::rows::{HistoryRow, as_params};
use super::session::RowStatements;
use super::strategy::{Verdict, verdict_of};
use crate::postgres::partitions;
use crate::postgres::partitions::Partitions;
use crate::reading::Timestamp;

/// COPY is sent in pieces of this size.
const COPY_CHUNK_BYTES: usize = 64 << 10;
/// Rows in one statement with arrays. Why: if each row reads from a cold disk for 30 ms, the statement still meets
/// its deadline. Its estimated cost also stays below the threshold for JIT compilation.
const ROWS_PER_STATEMENT: usize = 1_000;
/// How many COPYs of one batch may be refused before the remaining rows are tried one by one. Why 64: that finds
/// three refused rows in a million, with 20 halvings each. If every row is refused, each then costs one statement
/// instead of two COPYs.
const REFUSED_COPIES_MAX: usize = 64;
/// How many rows are tried without waiting for their answers. It bounds what is in flight.
const ROWS_IN_FLIGHT: usize = 256;

const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// Rows that history holds, by key.
pub(super) type There<R> = HashMap<(i32, Timestamp), R>;

/// Sends rows as one COPY.
pub(super) async fn copy<R: HistoryRow>(
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

/// Reads the rows that history holds under the keys of `rows`, partition by partition.
pub(super) async fn probe<R: HistoryRow>(
    client: &Client,
    statement: &Statement,
    rows: &[R],
    known: &Partitions,
) -> Result<There<R>, Error> {
    let mut there = HashMap::new();
    for part in rows.chunk_by(|a, b| known.find(a.key().1) == known.find(b.key().1)) {
        for some in part.chunks(ROWS_PER_STATEMENT) {
            let Some(like) = some.first() else { continue };
            let ids: Vec<i32> = some.iter().map(|r| r.key().0).collect();
            let times: Vec<Timestamp> = some.iter().map(|r| r.key().1).collect();
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

/// Splits rows into new rows, equal repeats and contradictions.
pub(super) fn split<R: HistoryRow>(
    rows: &[R],
    there: &There<R>,
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

/// Inserts rows whose keys are not in history yet, and returns the keys that were inserted.
pub(super) async fn insert<R: HistoryRow>(
    client: &Client,
    statement: &Statement,
    rows: &[R],
) -> Result<HashSet<(i32, Timestamp)>, Error> {
    let mut new = HashSet::new();
    for some in rows.chunks(ROWS_PER_STATEMENT) {
        for row in client
            .query(statement, &as_params(&R::columns(some)))
            .await?
        {
            new.insert((row.get(0), row.get(1)));
        }
    }
    Ok(new)
}

/// Copies rows under savepoints. A part with data that the database refuses is halved until the refused rows are
/// found.
///
/// The work is bounded: after [`REFUSED_COPIES_MAX`] refusals the remaining rows are tried one by one, at the same
/// cost for refused and accepted rows.
///
/// # Errors
/// PostgreSQL's errors, except for refused data.
pub(super) async fn bisect<R: HistoryRow>(
    client: &Client,
    statements: &RowStatements,
    rows: &[R],
    set_aside: &mut Vec<Quarantined<R>>,
) -> Result<Vec<R>, Error> {
    let mut stored = Vec::with_capacity(rows.len());
    let mut refused_copies = 0;
    // Front to back, so that rows are inserted in order.
    let mut parts: Vec<&[R]> = vec![rows];
    client.batch_execute("savepoint part").await?;
    while let Some(part) = parts.pop() {
        if refused_copies >= REFUSED_COPIES_MAX {
            let good = try_each(client, statements, part, set_aside).await?;
            copy(client, &statements.copy, &good).await?;
            client.batch_execute(NEXT_PART).await?;
            stored.extend_from_slice(&good);
            continue;
        }
        match copy(client, &statements.copy, part).await {
            Ok(()) => {
                client.batch_execute(NEXT_PART).await?;
                stored.extend_from_slice(part);
            }
            Err(error) => {
                refused_copies += 1;
                client.batch_execute("rollback to savepoint part").await?;
                match part {
                    [row] => set_aside.push(blame(client, *row, error).await?),
                    _ if is_datas_fault(&error) => {
                        let (front, back) = part.split_at(part.len() / 2);
                        parts.push(back);
                        parts.push(front);
                    }
                    _ => return Err(error),
                }
            }
        }
    }
    client.batch_execute("release savepoint part").await?;
    Ok(stored)
}

/// Keeps what was copied and opens a new savepoint, because nested savepoints would take memory on the server.
const NEXT_PART: &str = "release savepoint part; savepoint part";

/// Inserts each row alone and rolls it back. Returns the rows that the database accepts.
///
/// Each try begins with a rollback to the savepoint, so the tries can be pipelined.
async fn try_each<R: HistoryRow>(
    client: &Client,
    statements: &RowStatements,
    rows: &[R],
    set_aside: &mut Vec<Quarantined<R>>,
) -> Result<Vec<R>, Error> {
    let mut good = Vec::with_capacity(rows.len());
    for some in rows.chunks(ROWS_IN_FLIGHT) {
        let columns: Vec<_> = some
            .iter()
            .map(|row| R::columns(std::slice::from_ref(row)))
            .collect();
        let params: Vec<_> = columns.iter().map(as_params).collect();
        // The first poll sends both requests of a pair, in order.
        let tries = params.iter().map(|params| {
            let back = client.batch_execute("rollback to savepoint part");
            join(back, client.execute(&statements.insert, params))
        });
        let answers = join_all(tries).await;
        client.batch_execute("rollback to savepoint part").await?;
        for (row, (back, inserted)) in some.iter().zip(answers) {
            back?;
            match inserted {
                Ok(_) => good.push(*row),
                Err(error) => set_aside.push(blame(client, *row, error).await?),
            }
        }
    }
    Ok(good)
}

fn is_datas_fault(error: &Error) -> bool {
    matches!(verdict_of(error), Verdict::Data | Verdict::Partition)
}

/// Quarantines a row that was refused alone, unless the environment caused the refusal.
///
/// A row without a partition is refused with the SQLSTATE of a broken constraint. It is the row's fault only if
/// its partition exists at this moment.
async fn blame<R: HistoryRow>(
    client: &Client,
    row: R,
    error: Error,
) -> Result<Quarantined<R>, Error> {
    // For a missing partition, PostgreSQL names the table. It may be a partition that an operator has partitioned
    // again. A trigger that raises the same SQLSTATE names no table.
    let names_table = error.as_db_error().is_some_and(|db| db.table().is_some());
    let own_fault = match verdict_of(&error) {
        Verdict::Data => true,
        Verdict::Partition => {
            !names_table
                && partitions::load(client, R::STREAM)
                    .await?
                    .find(row.key().1)
                    .is_some()
        }
        Verdict::Repeat | Verdict::Environment => false,
    };
    match error.as_db_error().filter(|_| own_fault) {
        Some(db) => Ok(Quarantined::refused(
            row,
            state(db),
            db.message().to_owned(),
        )),
        None => Err(error),
    }
}

fn state(error: &DbError) -> String {
    error.code().code().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::writer::rows::MeterRow;

    fn row(id: i32, at: i64, kwh: u8) -> MeterRow {
        MeterRow::for_test(id, Timestamp::from_micros(at), f64::from(kwh))
    }

    proptest! {
        // Serves batches that are tried again, and readings from the quarantine.
        #[test]
        fn every_row_is_new_a_repeat_or_a_contradiction(
            history in proptest::collection::hash_map((0..6i32, 0..6i64), 0..3u8, 0..30),
            tried in proptest::collection::hash_map((0..6i32, 0..6i64), 0..3u8, 0..30),
        ) {
            let there: There<MeterRow> = (history.iter())
                .map(|((id, at), kwh)| row(*id, *at, *kwh))
                .map(|row| (row.key(), row))
                .collect();
            let rows: Vec<MeterRow> =
                (tried.iter()).map(|((id, at), kwh)| row(*id, *at, *kwh)).collect();
            let (mut duplicates, mut set_aside) = (0, Vec::new());
            let new = split(&rows, &there, &mut duplicates, &mut set_aside);
            prop_assert_eq!(new.len() + duplicates as usize + set_aside.len(), rows.len());
            // New rows stay in order. Rows whose key is in history are left out, because COPY would refuse the batch.
            let expected: Vec<MeterRow> =
                rows.iter().filter(|row| !there.contains_key(&row.key())).copied().collect();
            prop_assert_eq!(new, expected);
            let repeats = tried.iter().filter(|(key, kwh)| history.get(key) == Some(kwh)).count();
            prop_assert_eq!(duplicates as usize, repeats);
        }
    }
}
