//! One request, from its head to its handler.

pub(crate) mod access_log;
pub(crate) mod auth;
pub(crate) mod body;
pub(crate) mod call;
pub mod client_ip;
pub(crate) mod consistency;
pub mod cors;
pub(crate) mod decompress;
pub(crate) mod fields;
pub(crate) mod head;
pub(crate) mod host;
pub(crate) mod negotiate;
pub(crate) mod poll;
pub(crate) mod query;
pub(crate) mod request_id;
pub(crate) mod router;
