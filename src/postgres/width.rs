//! The width of the partitions of history.

/// How history is partitioned by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionWidth {
    /// A calendar month in UTC.
    Month,
    /// A day in UTC.
    Day,
}
