//! PostgreSQL: reaching it, its schema, its partitions, its registries, and the embedded server.

mod der;
pub mod embedded;
mod explain;
mod instant;
pub mod migrations;
mod parameters;
pub mod partitions;
pub mod registry;
mod sessions;
mod target;
mod tls;
mod url;
mod width;

pub use self::explain::{advice, explain};
pub use self::sessions::{Session, Use};
pub use self::target::{Target, TargetError};
pub use self::width::PartitionWidth;
