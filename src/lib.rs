#![doc = include_str!("ARCHITECTURE.md")]

// What a reading is, and what is counted of it.
pub mod reading;

pub mod metrics;

// Where a test may end the process.
pub mod failpoint;

// The way of a reading: a body becomes readings, they are made durable and are admitted to that,
// and they are stored.
pub mod decode;

pub mod wal;

pub mod gate;

pub mod postgres;

pub mod writer;

// What is asked of what is stored.
pub mod analytics;

pub mod summaries;

pub mod alerts;

// What is told of it elsewhere.
pub mod otlp;

// The door, and what starts everything.
pub mod auth;

pub mod http;

pub mod config;

pub mod app;
