//! Promises of the energy arithmetic.

mod case;
mod charges;
mod database;
mod differential;
mod failures;
mod golden;
mod judged;
mod numbers;
mod overlap;
mod reference;
mod report;
mod rolled_up;
mod same_id;
mod slices;
mod sparse;
mod summaries;
mod tiny;
