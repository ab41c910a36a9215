//! PostgreSQL: reaching it, its schema, its partitions, its registries, and the embedded server.

mod der;
pub mod embedded;
mod explain;
mod instant;
pub mod migrations;
mod parameters;
pub mod partitions;
mod read_pool;
pub mod registry;
mod sessions;
mod target;
mod tls;
mod url;
mod width;

pub use explain::{advice, explain};
pub use read_pool::{PoolCounts, ReadError, ReadPool};
pub use sessions::{Session, Use};
pub use target::{Target, TargetError};
pub use width::PartitionWidth;
