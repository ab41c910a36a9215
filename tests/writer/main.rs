//! The writers with a real PostgreSQL and a real log: what is acknowledged is stored once.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../gateway/mod.rs"]
mod binary;
mod claims;
mod database;
mod dirty;
mod interleaved;
mod large;
mod live;
mod migrations;
mod once;
mod outages;
mod partitions;
mod plans;
mod poison;
mod proxy;
mod quarantine;
mod repeats;
mod restored;
mod settings;
mod speed;
mod support;
