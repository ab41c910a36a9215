//! PostgreSQL: reaching it, its schema, its partitions, its registries, and the embedded server.

pub mod embedded;
mod explain;
mod instant;
pub mod migrations;
pub mod partitions;
pub mod registry;
mod sessions;
mod target;
mod width;

pub use self::explain::{advice, explain};
pub use self::sessions::{Session, Use};
pub use self::target::{Target, TargetError, check_url};
pub use self::width::PartitionWidth;
