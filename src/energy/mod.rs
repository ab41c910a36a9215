//! How much of the energy paid for reached the battery: the arithmetic, without SQL or HTTP.
//!
//! The way of a number: a device's readings become amounts of energy ([`device`]); a vehicle's
//! readings and sessions become attribution periods ([`attribution`], [`mod@whereabouts`]); a meter's amounts are
//! credited to the vehicles that were there ([`sharing`]); gaps are measured ([`coverage`]); all
//! of it is the answer ([`mod@performance`]), which is rounded once, where it is printed ([`report`],
//! [`mod@format`]). Everything is a pure function of readings, sessions, the window and `now`: late
//! data repair an answer by being there when it is asked for. Whole hours of a device may be given
//! as their sums ([`condensed`]), where that changes no digit.
//!
//! [`queries`] is the one part that knows SQL: it calls [`plan`] to learn what to fetch, and
//! [`performance()`] with what it fetched; [`Question`] says exactly which readings that takes.

pub mod answer;
pub mod attribution;
pub mod coverage;
pub mod device;
pub mod exact;
pub mod format;
pub mod hour;
pub mod interval;
pub mod report;
pub mod series;
pub mod sharing;
pub mod tariff;
pub mod whereabouts;
pub mod window;

pub use answer::{Cuts, Meter, Performance, Plan, Question, Slice, performance, plan};
pub use report::{Printed, PrintedFleet, PrintedSlice, StatusBounds};

#[cfg(test)]
mod tests;
