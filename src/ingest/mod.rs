//! From bytes to the log, whatever the protocol.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`decode`] | JSON becomes validated readings |
//! | `plausible_time` | the earliest and the latest time that a reading may have now |
//! | [`admission`] | memory, room in the log, and a place in the channel: the only place that sheds load |
//! | [`pipeline`] | the way of one body: decoded, admitted, and safe |
//!
//! A protocol hands over a body and its memory, and gets an outcome; it names nothing behind this module.
//! It knows nothing of HTTP or PostgreSQL.

pub mod admission;
pub mod decode;
pub mod pipeline;
pub(crate) mod plausible_time;
