#![doc = include_str!("ARCHITECTURE.md")]

/// The text of one file of `sql/queries/`.
macro_rules! sql {
    ($name:literal) => {
        include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/sql/queries/",
            $name,
            ".sql"
        ))
    };
}

// Used by every part: readings, metrics, outages and failpoints.
pub mod failpoint;
pub mod metrics;
pub mod outage;
pub mod reading;

// The arithmetic of energy.
pub mod energy;

// Bytes become readings, the log makes them durable, the writers store them.
pub mod wal;

pub mod ingest;

pub mod postgres;

pub mod writer;

// Queries about stored readings.
pub mod store;

pub mod analytics;

pub mod rollups;

// Pushes to other systems.
pub mod http_client;

pub mod alerts;

pub mod otlp;

pub mod demo;

// The edge.
pub mod auth;

pub mod http;

// The program: its configuration, its start and stop, and its commands.
pub mod config;

pub mod app;

pub mod cli;
