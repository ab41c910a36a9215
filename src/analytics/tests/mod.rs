//! Promises of the energy arithmetic.

mod case;
mod condensed;
mod database;
mod differential;
mod golden;
mod numbers;
mod overlap;
mod reference;
mod summaries;
mod survey;
