//! The replicas, for metrics.

use std::time::Duration;

/// Why a query is asked at the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaves {
    /// No replica has replayed what the client has written.
    Written,
    /// Every replica is too far behind.
    Lag,
    /// No replica can be asked.
    Unavailable,
    /// Every session on the replica is in use.
    Busy,
    /// The replica has not answered, or has ended the statement.
    Failed,
}

impl Leaves {
    /// Every reason.
    pub const ALL: [Leaves; 5] = [
        Leaves::Written,
        Leaves::Lag,
        Leaves::Unavailable,
        Leaves::Busy,
        Leaves::Failed,
    ];

    /// The label of the metric.
    pub const fn name(self) -> &'static str {
        match self {
            Leaves::Written => "read_after",
            Leaves::Lag => "lag",
            Leaves::Unavailable => "unavailable",
            Leaves::Busy => "busy",
            Leaves::Failed => "failed",
        }
    }
}

/// The replicas for metrics, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplicasReport {
    /// Each replica.
    pub replicas: Vec<ReplicaReport>,
    /// Queries that replicas have answered.
    pub answered: u64,
    /// Queries that the primary was asked instead, in the order of [`Leaves::ALL`].
    pub left: [u64; Leaves::ALL.len()],
}

/// One replica, for metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaReport {
    /// Its host and port.
    pub name: String,
    /// Whether it follows the primary in use.
    pub follows: bool,
    /// How long ago the moment is up to which it holds everything.
    pub lag: Duration,
}
