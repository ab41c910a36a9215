//! Energy, from requests with readings to responses with results: the real binary, its embedded PostgreSQL, real
//! sockets.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod alert_actions;
mod alerts;
mod edges;
mod fleet;
#[path = "../gateway/mod.rs"]
mod gateway;
mod judged_late;
mod live;
mod parquet;
mod plans;
mod promises;
mod real_day;
mod rollups;
mod session_bulk;
mod session_list;
mod sessions;
mod support;
mod vehicle;
