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

// What every part may know: a reading, the metrics, failures that repeat, and where a test may end the process.
pub mod failpoint;
pub mod metrics;
pub mod outage;
pub mod reading;

// What energy means: arithmetic alone.
pub mod energy;

// The way of a reading: bytes become readings, the log makes them durable, writers store them.
pub mod wal;

pub mod ingest;

pub mod postgres;

pub mod writer;

// Questions about what is stored.
pub mod store;

pub mod analytics;

pub mod rollups;

// What is pushed elsewhere.
pub mod http_client;

pub mod alerts;

pub mod otlp;

// The edge.
pub mod auth;

pub mod http;

// The program: its configuration, its commands, and what starts and stops everything.
pub mod config;

pub mod app;

pub mod cli;
