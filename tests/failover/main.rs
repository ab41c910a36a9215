//! Several PostgreSQL servers: the gateway follows a promotion, and an old primary gets nothing afterwards.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../gateway/mod.rs"]
mod gateway;
mod promotions;
mod replicas;
mod servers;
