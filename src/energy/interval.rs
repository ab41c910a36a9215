//! Runs of time, half-open as energy is: (start, end].

use crate::reading::Timestamp;

/// A run of time (start, end], never empty.
///
/// Why half-open at the start: a reading's energy was measured before its moment, so that the
/// moment belongs to what ends there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Run {
    start: Timestamp,
    end: Timestamp,
}

impl Run {
    /// Makes (start, end]; `None` where that holds no moment.
    pub fn new(start: Timestamp, end: Timestamp) -> Option<Self> {
        (start < end).then_some(Run { start, end })
    }

    /// The moment before the first, which is not part of the run.
    pub const fn start(self) -> Timestamp {
        self.start
    }

    /// The last moment.
    pub const fn end(self) -> Timestamp {
        self.end
    }

    /// Tells whether a moment is in the run.
    pub fn contains(self, at: Timestamp) -> bool {
        self.start < at && at <= self.end
    }

    /// How long the run is.
    ///
    /// Units:  microseconds, at least 1
    pub fn micros(self) -> i128 {
        i128::from(self.end.as_micros()) - i128::from(self.start.as_micros())
    }

    /// What two runs have in common.
    pub fn and(self, other: Run) -> Option<Run> {
        Run::new(self.start.max(other.start), self.end.min(other.end))
    }
}

/// A set of moments as runs that neither overlap nor touch.
///
/// Order:  by time
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runs(Vec<Run>);

impl Runs {
    /// The runs, in order.
    pub fn as_slice(&self) -> &[Run] {
        &self.0
    }

    /// Tells whether there is no moment in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells whether a moment is in the set.
    pub fn contains(&self, at: Timestamp) -> bool {
        self.0
            .get(self.0.partition_point(|run| run.end < at))
            .is_some_and(|run| run.contains(at))
    }

    /// The runs that have a moment in common with `window`, cut at its ends.
    pub fn within(&self, window: Run) -> impl Iterator<Item = Run> + '_ {
        let first = self.0.partition_point(|run| run.end <= window.start);
        self.0
            .iter()
            .skip(first)
            .take_while(move |run| run.start < window.end)
            .filter_map(move |run| run.and(window))
    }

    /// The set cut at the ends of `window`.
    #[must_use]
    pub fn cut(&self, window: Run) -> Runs {
        Runs(self.within(window).collect())
    }

    /// The time of all runs together.
    ///
    /// Units:  microseconds
    pub fn micros(&self) -> i128 {
        self.0.iter().map(|run| run.micros()).sum()
    }

    /// What this set has in common with another.
    #[must_use]
    pub fn and(&self, other: &Runs) -> Runs {
        Runs(self.0.iter().flat_map(|&run| other.within(run)).collect())
    }

    /// What is in this set and not in another.
    #[must_use]
    pub fn without(&self, other: &Runs) -> Runs {
        let mut left = Vec::with_capacity(self.0.len());
        for &run in &self.0 {
            let mut start = run.start;
            for taken in other.within(run) {
                left.extend(Run::new(start, taken.start));
                start = taken.end;
            }
            left.extend(Run::new(start, run.end));
        }
        Runs(left)
    }
}

impl FromIterator<Run> for Runs {
    /// Takes runs in any order; those that overlap or touch become one.
    fn from_iter<I: IntoIterator<Item = Run>>(runs: I) -> Self {
        let mut runs: Vec<Run> = runs.into_iter().collect();
        runs.sort_unstable();
        let mut merged: Vec<Run> = Vec::with_capacity(runs.len());
        for run in runs {
            match merged.last_mut() {
                Some(last) if run.start <= last.end => last.end = last.end.max(run.end),
                _ => merged.push(run),
            }
        }
        Runs(merged)
    }
}
