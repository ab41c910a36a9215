#![doc = include_str!("ARCHITECTURE.md")]

pub mod analytics;
pub mod app;
pub mod auth;
pub mod config;
pub mod decode;
pub mod gate;
pub mod http;
pub mod metrics;
pub mod postgres;
pub mod reading;
pub mod wal;
pub mod writer;
