//! Live changes and history, from the real binary and a real PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../gateway/mod.rs"]
mod gateway;
mod history;
mod stream;
mod support;
