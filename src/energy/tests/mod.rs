//! Promises of the energy arithmetic.

mod case;
mod condensed;
mod database;
mod differential;
mod golden;
mod judged;
mod numbers;
mod overlap;
mod reference;
mod same_id;
mod summaries;
mod survey;
mod tiny;
