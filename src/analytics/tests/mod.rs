//! Promises of the energy arithmetic.

mod case;
mod database;
mod differential;
mod golden;
mod numbers;
mod overlap;
mod reference;
mod survey;
