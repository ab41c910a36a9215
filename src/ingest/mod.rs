//! From received bytes to the log, for any protocol.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`decode`] | parses and validates readings in JSON |
//! | `plausible_time` | the range of times that may be the present |
//! | `age` | how old a reading may be |
//! | [`admission`] | memory, space in the log, and a slot in the channel: the only part that sheds load |
//! | [`pipeline`] | one body: decode, admit, acknowledge |
//!
//! A protocol passes a body with its memory and gets back an outcome. It needs nothing below this module. This
//! module knows nothing of HTTP or PostgreSQL.

pub mod admission;
pub mod age;
pub mod decode;
pub mod pipeline;
pub(crate) mod plausible_time;
