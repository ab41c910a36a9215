//! The resources, one file each.

pub(crate) mod alert_actions;
pub(crate) mod alerts;
pub(crate) mod energy_view;
pub(crate) mod events;
pub(crate) mod export;
pub(crate) mod fleet;
pub mod health;
pub(crate) mod history;
pub(crate) mod ingestion;
pub(crate) mod live;
pub(crate) mod meters;
pub(crate) mod operations;
pub(crate) mod performance;
pub(crate) mod ranking;
mod reading_view;
mod session_body;
mod session_bulk;
pub(crate) mod session_list;
pub(crate) mod session_post;
pub(crate) mod sessions;
