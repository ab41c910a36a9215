//! Time intervals that are half-open, as energy is: (start, end].

use crate::reading::Timestamp;

/// A time interval (start, end], never empty.
///
/// Why open at the start: a reading's energy was measured before its timestamp, so the timestamp belongs to the
/// interval that ends there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Interval {
    start: Timestamp,
    end: Timestamp,
}

impl Interval {
    /// Makes (start, end]; `None` if that is empty.
    pub fn new(start: Timestamp, end: Timestamp) -> Option<Self> {
        (start < end).then_some(Interval { start, end })
    }

    /// The start, which is not part of the interval.
    pub const fn start(self) -> Timestamp {
        self.start
    }

    /// The last moment.
    pub const fn end(self) -> Timestamp {
        self.end
    }

    /// Whether a moment is in the interval.
    pub fn contains(self, at: Timestamp) -> bool {
        self.start < at && at <= self.end
    }

    /// The length of the interval.
    ///
    /// Units:  microseconds, at least 1
    pub fn micros(self) -> i128 {
        i128::from(self.end.as_micros()) - i128::from(self.start.as_micros())
    }

    /// The intersection of both intervals; `None` if it is empty.
    pub fn and(self, other: Interval) -> Option<Interval> {
        Interval::new(self.start.max(other.start), self.end.min(other.end))
    }
}

/// A set of moments, as intervals that neither overlap nor touch.
///
/// Order:  by time
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Intervals(Vec<Interval>);

impl Intervals {
    /// The intervals, in order.
    pub fn as_slice(&self) -> &[Interval] {
        &self.0
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a moment is in the set.
    pub fn contains(&self, at: Timestamp) -> bool {
        self.0
            .get(self.0.partition_point(|interval| interval.end < at))
            .is_some_and(|interval| interval.contains(at))
    }

    /// The intervals that overlap `window`, clipped to it.
    pub fn within(&self, window: Interval) -> impl Iterator<Item = Interval> + '_ {
        let first = self
            .0
            .partition_point(|interval| interval.end <= window.start);
        self.0
            .iter()
            .skip(first)
            .take_while(move |interval| interval.start < window.end)
            .filter_map(move |interval| interval.and(window))
    }

    /// The part of the set within `window`.
    #[must_use]
    pub fn clip(&self, window: Interval) -> Intervals {
        Intervals(self.within(window).collect())
    }

    /// The total time of all intervals.
    ///
    /// Units:  microseconds
    pub fn micros(&self) -> i128 {
        self.0.iter().map(|interval| interval.micros()).sum()
    }

    /// The intersection of both sets.
    #[must_use]
    pub fn and(&self, other: &Intervals) -> Intervals {
        Intervals(
            self.0
                .iter()
                .flat_map(|&interval| other.within(interval))
                .collect(),
        )
    }

    /// The moments of this set that are not in the other.
    #[must_use]
    pub fn without(&self, other: &Intervals) -> Intervals {
        let mut left = Vec::with_capacity(self.0.len());
        for &interval in &self.0 {
            let mut start = interval.start;
            for removed in other.within(interval) {
                left.extend(Interval::new(start, removed.start));
                start = removed.end;
            }
            left.extend(Interval::new(start, interval.end));
        }
        Intervals(left)
    }
}

impl FromIterator<Interval> for Intervals {
    /// Collects intervals in any order. Those that overlap or touch are joined.
    fn from_iter<I: IntoIterator<Item = Interval>>(intervals: I) -> Self {
        let mut intervals: Vec<Interval> = intervals.into_iter().collect();
        intervals.sort_unstable();
        let mut merged: Vec<Interval> = Vec::with_capacity(intervals.len());
        for interval in intervals {
            match merged.last_mut() {
                Some(last) if interval.start <= last.end => last.end = last.end.max(interval.end),
                _ => merged.push(interval),
            }
        }
        Intervals(merged)
    }
}
