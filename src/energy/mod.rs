//! How much of the energy paid for reached the battery. This is the arithmetic alone, without SQL, HTTP or JSON.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`interval`] | intervals of time, and sets of them |
//! | [`window`] | the window of a question, and its limits |
//! | [`mod@reading`] | one reading, and the rollup of several |
//! | [`question`] | a question, and what to fetch for it |
//! | [`device`] | converts a device's readings to amounts of energy |
//! | [`attribution`] | derives attribution periods from a vehicle's readings and sessions |
//! | [`whereabouts`] | where all vehicles of a question are, by all three rules |
//! | [`sharing`] | credits a meter's amounts to the vehicles there |
//! | [`coverage`] | silences and gaps |
//! | [`answer`] | the answer for one vehicle, from all of the above |
//! | [`hour`] | an hour of a device, rolled up without changing an answer |
//! | [`power`] | the power of a charge |
//! | [`latest`] | the present power of a device, and how long it may be silent |
//! | [`series`], [`tariff`] | the parts of a window: buckets and prices |
//! | [`exact`] | integers of mWh, and exact fractions |
//! | [`mod@format`], [`report`] | printed numbers, each rounded once |
//!
//! An answer is a pure function of readings, sessions, the window and `now`. Late data corrects the next answer.
//! [`plan`] returns what to fetch, and [`Question`] defines exactly which readings an answer needs.
//!
//! # Rules
//!
//! - **No sum passes through a float.** Sums are integers of mWh and exact fractions, rounded once when they are
//!   printed. The same readings in any order give the same digits, and a series adds up to its total.
//! - **An exact sum is printed without a common denominator.** A shared meter with registers leaves thousands of
//!   long fractions; computing their common denominator took 39 s for 200 vehicles. Instead each sum is bounded to
//!   64 binary digits. Only a sum at a rounding edge needs the common denominator.
//! - **A rolled-up hour changes no digit.** Its row holds its first and last reading as they are, and what the
//!   readings after the first add. It exists only if that depends on the hour alone: one energy kind, no register
//!   of 0, no reading that names a place, no silence over 15 minutes. The arithmetic returns the hours whose
//!   readings it needs one by one: those split by an edge (of the window, of an attribution period, or of the
//!   moments at which a meter's energy is known), and those of a shared meter. A missing row costs only time.
//! - **A second implementation checks it**: `tests/reference.rs`, written from the definitions alone. The two
//!   agree to the last digit on random fleets, and on tiny ones whose edges coincide. `tests/golden.rs`,
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
