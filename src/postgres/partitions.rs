//! Partitions of history by time: which exist, which must be created, and which may be dropped.
//!
//! A partition is created empty and then attached, under an advisory lock, which blocks no COPY. There is
//! no default partition: attaching beside one reads all its rows. Existing partitions win over the
//! configured width, so that the width can be changed.

mod range;

use std::time::Duration;

use tokio_postgres::types::Oid;
use tokio_postgres::{Client, Error, GenericClient, Row};

pub use self::range::Range;
use self::range::{Bound, calendar_range, parse_bound, partition_name};
use super::PartitionWidth;
use crate::reading::{HOUR_MICROS, PerStream, Stream, Timestamp};

/// The key of the advisory lock: "wattpart" as a number.
const LOCK_KEY: i64 = i64::from_be_bytes(*b"wattpart");

/// Hours that the retention drops this soon are no longer rolled up.
const LEAVING_WITHIN_MICROS: i64 = 24 * HOUR_MICROS;

/// The query for the partitions of both streams.
pub const BOTH: &str = sql!("partitions");

/// The partitions of one history table, as a session last saw them.
#[derive(Debug, Default, Clone)]
pub struct Partitions {
    /// Sorted, without overlaps, without the default partition.
    ranges: Vec<Range>,
    /// Whether an operator has made a default partition. It holds all readings that no other covers. The
    /// gateway creates none beside it, because attaching would read all its rows.
    has_default: bool,
}

impl Partitions {
    /// Reads the rows of [`BOTH`].
    ///
    /// # Errors
    /// The rows belong to another query.
    pub fn of_both(rows: &[Row]) -> Result<PerStream<Self>, Error> {
        let mut both = PerStream::<Partitions>::default();
        for row in rows {
            let (is_vehicles, bounds): (bool, &str) = (row.try_get(0)?, row.try_get(1)?);
            let one = match is_vehicles {
                true => &mut both.vehicle,
                false => &mut both.meter,
            };
            match parse_bound(bounds) {
                Some(Bound::Range(range)) => one.ranges.push(range),
                Some(Bound::Default) => one.has_default = true,
                None => tracing::warn!(bounds, "the bounds of a partition cannot be read"),
            }
        }
        Ok(both.map(|mut one| {
            one.ranges.sort_unstable();
            one
        }))
    }

    /// The index of the partition that covers an instant. It grows with time; the default partition is
    /// the last.
    pub fn find(&self, at: Timestamp) -> Option<usize> {
        let behind = self.ranges.partition_point(|r| r.from <= at);
        let covering = behind.checked_sub(1).filter(|i| self.ranges[*i].covers(at));
        covering.or(self.has_default.then_some(self.ranges.len()))
    }

    /// The span of a partition, by its index.
    pub fn range(&self, index: usize) -> Option<Range> {
        self.ranges.get(index).copied()
    }

    /// The spans of all partitions, ascending. A default partition spans all of time.
    pub fn into_ranges(mut self) -> Vec<Range> {
        if self.has_default {
            self.ranges.insert(0, Range::ALL);
        }
        self.ranges
    }

    /// The span of a new partition that covers an instant: the calendar's, without the overlap with
    /// existing partitions.
    pub fn plan(&self, at: Timestamp, width: PartitionWidth) -> Range {
        let mut range = calendar_range(at, width);
        for existing in &self.ranges {
            if existing.to <= at {
                range.from = range.from.max(existing.to);
            }
            if existing.from > at {
                range.to = range.to.min(existing.from);
            }
        }
        range
    }
}

/// A partition and its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Its span. A default partition spans all of time.
    pub range: Range,
    /// Its table, as PostgreSQL numbers it.
    pub table: Oid,
}

/// Lists the partitions of both history tables.
///
/// Order:  ascending by range
///
/// # Errors
/// As PostgreSQL returns them.
pub async fn list_both(client: &Client) -> Result<PerStream<Vec<Listed>>, Error> {
    let mut both = PerStream::<Vec<Listed>>::default();
    for row in &client.query_typed(BOTH, &[]).await? {
        let stream = match row.try_get(0)? {
            true => Stream::Vehicle,
            false => Stream::Meter,
        };
        let range = match parse_bound(row.try_get(1)?) {
            Some(Bound::Range(range)) => range,
            Some(Bound::Default) => Range::ALL,
            None => continue,
        };
        let table = row.try_get(2)?;
        both[stream].push(Listed { range, table });
    }
    Ok(both.map(|mut listed| {
        listed.sort_unstable();
        listed
    }))
}

/// The table of a stream's history.
pub fn history_table(stream: Stream) -> &'static str {
    match stream {
        Stream::Meter => "meter_telemetry_history",
        Stream::Vehicle => "vehicle_telemetry_history",
    }
}

/// Reads which partitions both history tables have.
pub async fn load_both(
    client: &(impl GenericClient + Sync),
) -> Result<PerStream<Partitions>, Error> {
    // With no types to look up, this takes one round trip instead of two.
    Partitions::of_both(&client.query_typed(BOTH, &[]).await?)
}

/// Reads which partitions a history table has.
pub async fn load(
    client: &(impl GenericClient + Sync),
    stream: Stream,
) -> Result<Partitions, Error> {
    let mut both = load_both(client).await?;
    Ok(std::mem::take(&mut both[stream]))
}

/// Creates the missing partitions of some instants.
///
/// Blocks: while another gateway holds the advisory lock
///
/// # Errors
/// PostgreSQL's own errors. Try again: created partitions stay.
pub async fn ensure(
    client: &Client,
    stream: Stream,
    width: PartitionWidth,
    instants: &[Timestamp],
) -> Result<Partitions, Error> {
    client
        .execute("select pg_advisory_lock($1)", &[&LOCK_KEY])
        .await?;
    let result = async {
        let mut partitions = load(client, stream).await?;
        for at in instants {
            if partitions.find(*at).is_none() {
                let range = partitions.plan(*at, width);
                create(client, stream, range).await?;
                partitions.ranges.push(range);
                partitions.ranges.sort_unstable();
            }
        }
        Ok(partitions)
    }
    .await;
    drop(
        client
            .execute("select pg_advisory_unlock($1)", &[&LOCK_KEY])
            .await,
    );
    result
}

/// Creates one empty partition and attaches it. An earlier try may have done the first step.
async fn create(client: &Client, stream: Stream, range: Range) -> Result<(), Error> {
    let parent = history_table(stream);
    let name = partition_name(parent, range);
    // Names and bounds consist of digits and fixed words, so nothing needs quotes.
    let like = format!("create table if not exists {name} (like {parent} including all)");
    client.batch_execute(&like).await?;
    let (from, to) = (range.from, range.to);
    let attach = format!(
        "alter table {parent} attach partition {name} for values from ('{from}') to ('{to}')"
    );
    client.batch_execute(&attach).await?;
    tracing::info!(name, "created a partition");
    Ok(())
}

/// The partitions of a stream with their names, quoted where PostgreSQL needs it; without a default partition.
///
/// Order:  ascending by range
pub async fn named(client: &Client, stream: Stream) -> Result<Vec<(Range, String)>, Error> {
    let rows = client
        .query(
            "select c.oid::regclass::text, pg_get_expr(c.relpartbound, c.oid)
             from pg_inherits as i
             inner join pg_class as c on i.inhrelid = c.oid
             where i.inhparent = $1::text::regclass and not i.inhdetachpending",
            &[&history_table(stream)],
        )
        .await?;
    let named = rows
        .iter()
        .filter_map(|row| match parse_bound(row.get(1))? {
            Bound::Range(range) => Some((range, row.get(0))),
            Bound::Default => None,
        });
    let mut named: Vec<(Range, String)> = named.collect();
    named.sort_unstable();
    Ok(named)
}

/// How many bytes the rows of a partition take, and those of its own partitions if it is divided further; 0 if it was
/// dropped meanwhile.
///
/// # Errors
/// As PostgreSQL returns them.
pub async fn size(client: &Client, table: Oid) -> Result<i64, Error> {
    let sql = "select coalesce(sum(pg_relation_size(relid)), 0)::bigint from pg_partition_tree($1::oid::regclass)";
    client.query_one(sql, &[&table]).await?.try_get(0)
}

/// How many partitions were dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dropped {
    /// Dropped.
    pub dropped: usize,
    /// In use; try again.
    pub left: usize,
}

/// Drops the partitions that end before an instant, oldest first.
///
/// A drop waits at most 100 ms for its lock, because while it waits for a long read, every COPY waits too. A partition
/// that is in use is left for the next time.
///
/// # Errors
/// PostgreSQL's own errors, except lock timeouts.
pub async fn drop_before(
    client: &Client,
    stream: Stream,
    before: Timestamp,
) -> Result<Dropped, Error> {
    let mut old = named(client, stream).await?;
    old.retain(|(range, _)| range.to <= before);
    client.batch_execute("set lock_timeout = '100ms'").await?;
    let mut outcome = Dropped::default();
    for (_, name) in old {
        match client.batch_execute(&format!("drop table {name}")).await {
            Ok(()) => {
                tracing::info!(name, "dropped a partition older than the retention");
                outcome.dropped += 1;
            }
            Err(e) if e.code() == Some(&tokio_postgres::error::SqlState::LOCK_NOT_AVAILABLE) => {
                tracing::info!(
                    name,
                    "a partition older than the retention is in use; it is dropped later"
                );
                outcome.left += 1;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(outcome)
}

/// The instants whose partitions are created ahead: now and the next spans.
pub fn instants_ahead(now: Timestamp, width: PartitionWidth) -> Vec<Timestamp> {
    let ahead = match width {
        PartitionWidth::Month => 2,
        PartitionWidth::Day => 7,
    };
    let mut instants = vec![now];
    for _ in 0..ahead {
        let last = instants.last().copied().unwrap_or(now);
        instants.push(calendar_range(last, width).to);
    }
    instants
}

/// The oldest instant that history still holds under a retention.
pub fn oldest_kept(now: Timestamp, retention: Duration) -> Timestamp {
    now.plus_micros(-i64::try_from(retention.as_micros()).unwrap_or(i64::MAX))
}

/// The oldest hour that is rolled up. Hours that the retention drops soon are not.
pub fn oldest_rolled_up(now: Timestamp, retention: Option<Duration>) -> Timestamp {
    match retention {
        Some(retention) => oldest_kept(now, retention).plus_micros(LEAVING_WITHIN_MICROS),
        None => Range::ALL.from,
    }
}

#[cfg(test)]
mod tests {
    use super::range::tests::{at, range};
    use super::*;

    #[test]
    fn a_month_is_planned_and_named() {
        let none = Partitions::default();
        let plan = none.plan(at("2024-02-29T23:59:59.999999Z"), PartitionWidth::Month);
        assert_eq!(plan, range("2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"));
        assert_eq!(partition_name("h", plan), "h_2024_02");
        let day = none.plan(at("2024-12-31T12:00:00Z"), PartitionWidth::Day);
        assert_eq!(day, range("2024-12-31T00:00:00Z", "2025-01-01T00:00:00Z"));
        assert_eq!(partition_name("h", day), "h_2024_12_31");
    }

    #[test]
    fn existing_partitions_win_over_the_width() {
        let days = Partitions {
            ranges: vec![
                range("2024-02-03T00:00:00Z", "2024-02-04T00:00:00Z"),
                range("2024-02-10T00:00:00Z", "2024-02-11T00:00:00Z"),
            ],
            has_default: false,
        };
        let plan = days.plan(at("2024-02-05T00:00:00Z"), PartitionWidth::Month);
        assert_eq!(plan, range("2024-02-04T00:00:00Z", "2024-02-10T00:00:00Z"));
        assert_eq!(partition_name("h", plan), "h_2024_02_04_to_2024_02_10");
        assert_eq!(days.find(at("2024-02-03T10:00:00Z")), Some(0));
        assert_eq!(days.find(at("2024-02-04T00:00:00Z")), None);
    }

    #[test]
    fn a_default_partition_takes_what_no_other_covers() {
        let one = range("2024-02-03T00:00:00Z", "2024-02-04T00:00:00Z");
        let partitions = Partitions {
            ranges: vec![one],
            has_default: true,
        };
        assert_eq!(partitions.find(at("2024-02-03T10:00:00Z")), Some(0));
        assert_eq!(partitions.find(at("2024-02-04T00:00:00Z")), Some(1));
        assert_eq!(partitions.find(at("2024-02-02T00:00:00Z")), Some(1));
        assert_eq!(partitions.into_ranges(), [Range::ALL, one]);
    }

    #[test]
    fn partitions_are_made_ahead() {
        let ahead = instants_ahead(at("2024-11-30T10:00:00Z"), PartitionWidth::Month);
        let starts = [at("2024-12-01T00:00:00Z"), at("2025-01-01T00:00:00Z")];
        assert_eq!(ahead[1..], starts);
        assert_eq!(
            instants_ahead(at("2024-11-30T10:00:00Z"), PartitionWidth::Day).len(),
            8
        );
    }
}
