//! Stores readings from the quarantine once the cause of their refusal is gone.
//!
//! A reading that can be stored now is inserted into history and removed from quarantine in one transaction. If
//! history already holds an equal reading, it is only removed. All others stay. The counts in checkpoints and
//! metrics do not change: they count a reading once, when it leaves the log, and a running writer holds them in
//! memory. So after a retry, history holds more rows than `stored` counts, by the number that the retry moved.

use tokio_postgres::Row;
use uuid::Uuid;

use super::batch::arrange;
use super::insert::{bisect, probe, split};
use super::live::{LiveRow, Newest};
use super::rows::{MeterRow, Origin, RowEnergy, VehicleRow};
use super::session::{SessionError, WriterSession};
use super::store::{BEGIN, ensure_partitions};
use crate::postgres::registry;
use crate::postgres::registry::Registry;
use crate::reading::Stream;
use crate::wal::frame::Position;

/// The most readings of one transaction.
const CHUNK: i64 = 1000;

/// Which readings to try again. If both fields are `None`, all are tried.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only this stream.
    pub stream: Option<Stream>,
    /// Only this device.
    pub device: Option<String>,
}

/// The outcome of the readings that were tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retried {
    /// Now stored in history.
    pub stored: u64,
    /// Already in history with equal values, and removed from quarantine.
    pub duplicates: u64,
    /// Refused again, or contradicting a stored reading: still in quarantine.
    pub left: u64,
}

/// Tries the readings in quarantine again.
///
/// Blocks: until the last chunk is committed
/// Cancel: safe; what was committed stays
///
/// # Errors
/// [`SessionError`]: run it again; what was committed is not tried twice.
pub async fn retry(session: &mut WriterSession, filter: &Filter) -> Result<Retried, SessionError> {
    let mut sum = Retried::default();
    if filter.stream != Some(Stream::Vehicle) {
        all::<MeterRow>(session, filter, &mut sum).await?;
    }
    if filter.stream != Some(Stream::Meter) {
        all::<VehicleRow>(session, filter, &mut sum).await?;
    }
    Ok(sum)
}

/// The primary key of a quarantined reading.
type Key = (Uuid, i32, i64, i32);

/// A kind of row that can be rebuilt from the quarantine.
trait FromQuarantine: LiveRow {
    /// Rebuilds the row of a quarantined reading. `id` is the device's id. `named` holds the ids of the meter and the
    /// session that the reading names.
    fn from_quarantine(row: &Row, id: i32, named: [i32; 2], origin: Origin) -> Self;
    /// The registry of its devices.
    const REGISTRY: Registry;
}

async fn all<R: FromQuarantine>(
    session: &mut WriterSession,
    filter: &Filter,
    sum: &mut Retried,
) -> Result<(), SessionError> {
    let sql = sql!("quarantine_chunk");
    let mut after: Key = (Uuid::nil(), i32::MIN, i64::MIN, i32::MIN);
    loop {
        let stream = R::STREAM.name();
        let (run, shard, position, index) = after;
        let found = session
            .answered(session.client().query(
                sql,
                &[
                    &run,
                    &shard,
                    &position,
                    &index,
                    &stream,
                    &filter.device,
                    &CHUNK,
                ],
            ))
            .await?;
        let Some(last) = found.last() else {
            return Ok(());
        };
        after = key(last);
        let rows = decode::<R>(session, &found).await?;
        let all_rows: Vec<R> = rows.iter().map(|(_, row)| *row).collect();
        ensure_partitions(session, &all_rows).await?;
        let retried = session
            .answered_in(session.answer_within * 2, chunk(session, rows))
            .await?;
        sum.stored += retried.stored;
        sum.duplicates += retried.duplicates;
        sum.left += retried.left;
    }
}

fn key(row: &Row) -> Key {
    (row.get(0), row.get(1), row.get(2), row.get(3))
}

/// Resolves the ids of every reading in this session's database.
async fn decode<R: FromQuarantine>(
    session: &mut WriterSession,
    found: &[Row],
) -> Result<Vec<(Key, R)>, SessionError> {
    let column = |at: usize| -> Vec<Option<String>> { found.iter().map(|r| r.get(at)).collect() };
    let devices = ids(session, R::REGISTRY, &column(4)).await?;
    let meters = ids(session, Registry::Meters, &column(12)).await?;
    let sessions = ids(session, Registry::Sessions, &column(13)).await?;
    let rows = found.iter().zip(0..).map(|(row, n)| {
        let origin = Origin {
            position: Position::START,
            index: n,
            received_at: row.get(6),
        };
        let at = n as usize;
        let named = [meters[at], sessions[at]];
        (
            key(row),
            R::from_quarantine(row, devices[at], named, origin),
        )
    });
    Ok(rows.collect())
}

/// The ids of texts; 0 if there is no text.
async fn ids(
    session: &mut WriterSession,
    registry: Registry,
    texts: &[Option<String>],
) -> Result<Vec<i32>, SessionError> {
    let mut known: Vec<String> = texts.iter().flatten().cloned().collect();
    known.sort_unstable();
    known.dedup();
    let mut cache = registry::IdCache::new(0);
    let resolving = registry::resolve(session.client(), &mut cache, registry, &known);
    let found = session.answered(resolving).await?;
    let id = |text: &Option<String>| {
        let place = known.binary_search(text.as_ref()?).ok()?;
        found.get(place).copied()
    };
    Ok(texts.iter().map(|text| id(text).unwrap_or(0)).collect())
}

/// Tries one chunk of readings, in one transaction.
async fn chunk<R: FromQuarantine>(
    session: &WriterSession,
    mut rows: Vec<(Key, R)>,
) -> Result<Retried, SessionError> {
    let (client, statements) = (session.client(), session.statements::<R>());
    let known = &session.partitions[R::STREAM];
    client.batch_execute(BEGIN).await?;
    // Another retry may have moved some of them in the meantime.
    let sql = sql!("quarantine_lock");
    let keys: Vec<Key> = rows.iter().map(|(key, _)| *key).collect();
    let locked = by_keys(session, sql, &keys).await?;
    let locked: std::collections::HashSet<Key> = locked.iter().map(key).collect();
    rows.retain(|(key, _)| locked.contains(key));
    let (mut duplicates, mut refused) = (0, Vec::new());
    let arranged = arrange(rows.iter().map(|(_, row)| *row).collect(), known).rows;
    let there = probe(client, &statements.probe, &arranged, known).await?;
    let new = split(&arranged, &there, &mut duplicates, &mut refused);
    // The transaction has an id by now, from the row locks above.
    let watermark = session.dirty_hours.watermark(client).await?;
    session.dirty_hours.add(client, watermark, &new).await?;
    let stored = bisect(client, statements, &new, &mut refused).await?;
    // Whatever history holds with equal values can leave the quarantine. If two readings in quarantine are equal,
    // one insert settles both.
    let there = probe(client, &statements.probe, &arranged, known).await?;
    let settled: Vec<Key> = rows
        .iter()
        .filter(|(_, row)| there.get(&row.key()).is_some_and(|r| r.same_values(row)))
        .map(|(key, _)| *key)
        .collect();
    let mut newest = Newest::default();
    newest.fold(&stored, &session.newest_seen[R::STREAM]);
    newest
        .upsert_with(&Newest::default(), client, session.live_statements())
        .await?;
    by_keys(session, sql!("quarantine_release"), &settled).await?;
    client.batch_execute("commit").await?;
    Ok(Retried {
        stored: stored.len() as u64,
        duplicates: (settled.len() - stored.len()) as u64,
        left: (rows.len() - settled.len()) as u64,
    })
}

async fn by_keys(
    session: &WriterSession,
    sql: &str,
    keys: &[Key],
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let runs: Vec<Uuid> = keys.iter().map(|k| k.0).collect();
    let shards: Vec<i32> = keys.iter().map(|k| k.1).collect();
    let positions: Vec<i64> = keys.iter().map(|k| k.2).collect();
    let indexes: Vec<i32> = keys.iter().map(|k| k.3).collect();
    session
        .client()
        .query(sql, &[&runs, &shards, &positions, &indexes])
        .await
}

fn energy(row: &Row) -> RowEnergy {
    RowEnergy {
        kwh: row.get(7),
        register: row.get(8),
    }
}

impl FromQuarantine for MeterRow {
    const REGISTRY: Registry = Registry::Meters;

    fn from_quarantine(row: &Row, id: i32, _: [i32; 2], origin: Origin) -> Self {
        MeterRow {
            id,
            at: row.get(5),
            energy: energy(row),
            voltage: row.get(9),
            origin,
        }
    }
}

impl FromQuarantine for VehicleRow {
    const REGISTRY: Registry = Registry::Vehicles;

    fn from_quarantine(row: &Row, id: i32, named: [i32; 2], origin: Origin) -> Self {
        VehicleRow {
            id,
            at: row.get(5),
            energy: energy(row),
            soc: row.get(10),
            battery_temp: row.get(11),
            named_meter: named[0],
            named_session: named[1],
            origin,
        }
    }
}
