//! How full the hours of a partition are, by a sample of its pages.
//!
//! A fleet fills its hours evenly, an import does not: a month may have all of its readings in a few hours.

use std::collections::BTreeMap;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error};

use super::Roller;
use super::listing::Listing;
use super::slice::{HOURS_MAX, is_within};
use super::stored::Kind;
use crate::postgres::partitions::{Listed, Range};
use crate::postgres::{explain, partitions};
use crate::reading::{HOUR_MICROS, Stream, Timestamp};

/// The bytes of the pages that a sample reads, about: a quarter of what a slice reads.
const SAMPLED_BYTES: i64 = 16 << 20;

impl Roller {
    /// How many hours from one on a slice may have: one alone, where no partition with a beginning holds it. What a
    /// default partition holds there is of any size.
    pub(super) async fn hours_max(
        &mut self,
        client: &Client,
        listing: &Listing,
        kind: Kind,
        hour: Timestamp,
    ) -> Result<i64, Error> {
        let mut most = None;
        let hours = hour..hour.plus_micros(HOUR_MICROS);
        for stream in Stream::ALL {
            let within = listing.listed[stream].iter();
            for partition in within.filter(|listed| is_within(&listed.range, &hours)) {
                let bytes = partitions::size(client, partition.table).await?;
                let hours = if bytes <= self.per_slice {
                    HOURS_MAX
                } else {
                    let sampled = self.fills[stream].take();
                    let fill = match sampled.filter(|fill| fill.fits(*partition, bytes)) {
                        Some(fill) => fill,
                        None => self.fill(client, stream, *partition, bytes).await?,
                    };
                    let hours = fill.hours(kind, hour, self.per_slice, HOURS_MAX);
                    self.fills[stream] = Some(fill);
                    hours
                };
                most = Some(most.unwrap_or(hours).min(hours));
            }
        }
        Ok(most.unwrap_or(1))
    }

    /// How full a partition's hours are. Where its sample has failed once, they count as filled evenly: that may cost
    /// time, and another failure would end the session again.
    async fn fill(
        &self,
        client: &Client,
        stream: Stream,
        partition: Listed,
        bytes: i64,
    ) -> Result<Fill, Error> {
        if !self.failures.may_sample(partition.table) {
            return Ok(Fill::even(partition, bytes));
        }
        match Fill::sampled(client, stream, partition, bytes).await {
            Ok(fill) => {
                self.failures.was_sampled(partition.table);
                Ok(fill)
            }
            Err(error) if client.is_closed() => Err(error),
            Err(error) => {
                tracing::warn!(
                    error = explain(&error),
                    stream = stream.name(),
                    "a partition of history cannot be sampled; its hours count as filled evenly"
                );
                Ok(Fill::even(partition, bytes))
            }
        }
    }
}

/// The readings of a partition, hour by hour.
#[derive(Debug)]
pub(super) struct Fill {
    partition: Listed,
    /// How many bytes its rows took when they were sampled.
    bytes: i64,
    /// How many of the sampled rows each hour has; `None` means that each has as many.
    rows: Option<BTreeMap<Timestamp, i64>>,
    all_rows: i64,
}

impl Fill {
    /// Samples a partition.
    pub(super) async fn sampled(
        client: &Client,
        stream: Stream,
        partition: Listed,
        bytes: i64,
    ) -> Result<Self, Error> {
        let sql = match stream {
            Stream::Meter => sql!("hour_fill_meters"),
            Stream::Vehicle => sql!("hour_fill_vehicles"),
        };
        let Range { from, to } = partition.range;
        let percent = (SAMPLED_BYTES as f64 / bytes.max(1) as f64 * 100.0).min(100.0) as f32;
        let parameters: [&(dyn ToSql + Sync); 3] = [&from, &to, &percent];
        let mut rows = BTreeMap::new();
        for row in &client.query(sql, &parameters).await? {
            rows.insert(row.try_get(0)?, row.try_get(1)?);
        }
        Ok(Fill {
            partition,
            bytes,
            all_rows: rows.values().sum(),
            rows: Some(rows),
        })
    }

    /// As if its hours were filled evenly: with a row each.
    fn even(partition: Listed, bytes: i64) -> Self {
        let Range { from, to } = partition.range;
        let micros = to.as_micros().saturating_sub(from.as_micros());
        Fill {
            partition,
            bytes,
            rows: None,
            all_rows: (micros / HOUR_MICROS).max(1),
        }
    }

    /// Whether it is about right for a partition of this size.
    pub(super) fn fits(&self, partition: Listed, bytes: i64) -> bool {
        self.partition == partition && (bytes - self.bytes).abs() <= self.bytes / 8
    }

    /// How many hours take at most `bytes_max`, starting with the hour `from`: forward if they are new, and backward if
    /// they are older. At least one.
    pub(super) fn hours(&self, kind: Kind, from: Timestamp, bytes_max: i64, hours_max: i64) -> i64 {
        let step = match kind {
            Kind::New => HOUR_MICROS,
            Kind::Older => -HOUR_MICROS,
        };
        let rows_max =
            i128::from(bytes_max) * i128::from(self.all_rows) / i128::from(self.bytes.max(1));
        let mut rows = 0;
        for hours in 0..hours_max {
            let hour = from.plus_micros(step.saturating_mul(hours));
            rows += i128::from(match &self.rows {
                Some(rows) => rows.get(&hour).copied().unwrap_or(0),
                None => 1,
            });
            if rows > rows_max {
                return hours.max(1);
            }
        }
        hours_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_micros(hour * HOUR_MICROS)
    }

    #[test]
    fn few_hours_are_chosen_where_they_are_full_and_many_where_they_are_empty() {
        let range = Range {
            from: at(0),
            to: at(100),
        };
        let partition = Listed { range, table: 1 };
        let rows: BTreeMap<_, _> = (95..100).map(|hour| (at(hour), 20)).collect();
        let fill = Fill {
            partition,
            bytes: 1_000,
            rows: Some(rows),
            all_rows: 100,
        };
        let older = |from, bytes| fill.hours(Kind::Older, at(from), bytes, 96);
        assert_eq!([older(99, 1), older(99, 399), older(99, 400)], [1, 1, 2]);
        assert_eq!([older(96, 200), older(94, 200)], [1, 96]);
        assert_eq!(older(99, 1_000), 96);
        let new = |from, bytes| fill.hours(Kind::New, at(from), bytes, 96);
        assert_eq!([new(90, 1), new(90, 200), new(95, 400)], [5, 6, 2]);
        assert!(fill.fits(partition, 1_125) && !fill.fits(partition, 1_126));
        let other = Listed {
            table: 2,
            ..partition
        };
        assert!(!fill.fits(other, 1_000));
        let even = Fill::even(partition, 1_000);
        let new = |bytes| even.hours(Kind::New, at(7), bytes, 96);
        assert_eq!([new(1), new(55), new(400), new(2_000)], [1, 5, 40, 96]);
    }
}
