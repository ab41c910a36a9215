//! Promises of the energy arithmetic.

mod case;
mod differential;
mod golden;
mod numbers;
mod reference;
