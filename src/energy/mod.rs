//! How much of the energy paid for reached the battery: the arithmetic, without SQL, HTTP or JSON.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`interval`] | intervals of time, and sets of them |
//! | [`window`] | the window of a question, and its limits |
//! | [`mod@reading`] | one reading, and the rollup of several |
//! | [`question`] | a question, and what to fetch for it |
//! | [`device`] | a device's readings become amounts of energy |
//! | [`attribution`] | a vehicle's readings and sessions become attribution periods |
//! | [`whereabouts`] | where all vehicles of a question are, by all three rules |
//! | [`sharing`] | a meter's amounts are credited to the vehicles that were there |
//! | [`coverage`] | silences and gaps |
//! | [`answer`] | the answer for one vehicle, from all of the above |
//! | [`hour`] | an hour of a device, rolled up without changing a digit |
//! | [`power`] | the power of a charge |
//! | [`latest`] | the power of a device now, and for how long it may be silent |
//! | [`series`], [`tariff`] | the parts of a window: buckets and prices |
//! | [`exact`] | integers of mWh, and exact fractions |
//! | [`mod@format`], [`report`] | numbers as they are printed, each rounded once |
//!
//! An answer is a pure function of readings, sessions, the window and `now`. Late data correct the next
//! answer. [`plan`] returns what to fetch, and [`Question`] defines exactly which readings an answer needs.
//!
//! # Rules
//!
//! - **No sum passes through a float.** Sums are integers of mWh and exact fractions, rounded once where they
//!   are printed. The same readings in any order give the same digits, and a series adds up to its total.
//! - **An exact sum is printed without a common denominator.** A shared meter with registers leaves thousands
//!   of long fractions; their common denominator took 39 s for 200 vehicles. Each sum is close to a number
//!   of 64 binary digits, and only a sum on the edge of rounding is printed the long way.
//! - **An hour that is rolled up changes no digit.** Its row holds its first and last reading as they are, and
//!   what the readings after the first add. It exists only if that depends on the hour alone: one
//!   energy kind, no register of 0, no reading that names a place, no silence over 15 minutes. The arithmetic
//!   returns the hours that it needs as readings: those that an edge splits (of the window, of an attribution
//!   period, or of what is known), and those of a shared meter. A missing row costs only time.
//! - **A second implementation checks it**: `tests/reference.rs`, written from the definitions alone, agrees to
//!   the last digit on random fleets, and on tiny ones whose edges fall together. `tests/golden.rs`,
//!   `tests/same_id.rs` and `tests/overlap.rs` hold cases computed by hand.

pub mod answer;
pub mod attribution;
pub mod coverage;
pub mod device;
pub mod exact;
pub mod format;
pub mod hour;
pub mod interval;
pub mod latest;
pub mod power;
pub mod question;
pub mod reading;
pub mod report;
pub mod series;
pub mod sharing;
pub mod tariff;
pub mod whereabouts;
pub mod window;

pub use answer::{Performance, Slice, SplitHours, performance};
pub use question::{Meter, Plan, Question, plan};
pub use report::{Printed, PrintedFleet, PrintedSlice, StatusBounds};

#[cfg(test)]
mod tests;
