//! One response: JSON, problems, and what ends a long one early.

mod database_errors;
pub(crate) mod json;
pub(crate) mod problem;
pub(crate) mod reply;
pub(crate) mod revocable;
