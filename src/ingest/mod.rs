//! From bytes to the log, whatever the protocol.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`decode`] | JSON becomes validated readings |
//! | `plausible_time` | the earliest and the latest time that it may be now |
//! | `age` | how old a reading may be |
//! | [`admission`] | memory, room in the log, and a slot in the channel: the only part that sheds load |
//! | [`pipeline`] | one body: decoded, admitted, acknowledged |
//!
//! A protocol passes a body and its memory, and receives an outcome. It needs nothing below this module, and this
//! module knows nothing of HTTP or PostgreSQL.

pub mod admission;
pub mod age;
pub mod decode;
pub mod pipeline;
pub(crate) mod plausible_time;
