//! Several PostgreSQL servers: a promotion is followed, and nothing reaches an old primary afterwards.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../gateway/mod.rs"]
mod gateway;
mod promotions;
mod servers;
