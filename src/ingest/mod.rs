//! From bytes to the log, whatever the protocol.

pub mod admission;
pub mod decode;
pub mod pipeline;
pub(crate) mod plausible_time;
