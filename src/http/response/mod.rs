//! One response: JSON, problems, and what ends a long one.

pub(crate) mod database;
pub(crate) mod problem;
pub(crate) mod reply;
pub(crate) mod revocable;
