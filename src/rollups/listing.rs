//! The partitions of history, as the roller last saw them.
//!
//! Thousands of partitions take tens of milliseconds to list, so a step uses the list of an earlier one. An old list
//! costs time and makes no rollup wrong: hours of a partition that it lacks are found a little later, and readings are
//! looked for in all partitions, whatever the list says.

use std::time::{Duration, Instant};

use tokio_postgres::{Client, Error};

use crate::postgres::partitions;
use crate::postgres::partitions::{Listed, Range};
use crate::reading::{PerStream, Stream};

/// How long a list is used.
const LISTED_FOR: Duration = Duration::from_secs(10);

/// The partitions of both streams.
#[derive(Debug)]
pub(super) struct Listing {
    /// What they span, ascending.
    pub(super) ranges: PerStream<Vec<Range>>,
    /// The same with their tables.
    pub(super) listed: PerStream<Vec<Listed>>,
    read: Instant,
}

impl Listing {
    pub(super) async fn read(client: &Client) -> Result<Self, Error> {
        let listed = partitions::list_both(client).await?;
        let ranges = PerStream::from_fn(|stream| {
            let ranges = listed[stream].iter().map(|listed| listed.range);
            ranges.collect()
        });
        let read = Instant::now();
        Ok(Listing {
            ranges,
            listed,
            read,
        })
    }

    pub(super) fn is_old(&self) -> bool {
        self.read.elapsed() > LISTED_FOR
    }

    /// The spans of those that have a beginning. The hours of others are endless, so they are read from history.
    pub(super) fn bounded(&self) -> Vec<Range> {
        let both = Stream::ALL.into_iter().flat_map(|s| &self.ranges[s]);
        both.filter(|range| !range.is_open_below())
            .copied()
            .collect()
    }
}
