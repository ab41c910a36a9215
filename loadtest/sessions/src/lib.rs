//! Turns recorded charging sessions into readings of a site's stations and vehicles, for the replay and the demo.
//!
//! In the order of the data: [`data`] reads the recorded stays, and [`plan`] places them in time. [`timeline`]
//! merges them into one sequence of events, with values per minute from [`curve`]. [`body`] writes what is sent to
//! a gateway.

pub mod body;
pub mod curve;
pub mod data;
pub mod plan;
pub mod timeline;

/// One real day of a workplace: 86 stays at 52 stations, as CSV (ACN-Data, JPL, 3 May 2019).
pub const DAY_OF_JPL: &[u8] = include_bytes!("../../data/jpl_2019-05-03.csv");
