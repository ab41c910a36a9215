//! PostgreSQL: its sessions, schema, partitions and registries, and the embedded server.
//!
//! # Rules
//!
//! - **A partition is created empty and then attached**, which blocks no COPY. There is no default partition:
//!   attaching beside one reads all its rows. An existing partition wins over the configured width, however an
//!   operator made it: with open ends, as a default, or partitioned further.
//! - **Retention drops whole partitions** with a short lock timeout, and tries again, because a waiting DROP
//!   stops every COPY behind it.
//! - **A clock may jump.** Waits use a monotonic clock. Retention uses the newest reading as a second source:
//!   it counts from the clock or from that reading, whichever is older.

mod der;
pub mod embedded;
mod explain;
mod instant;
pub mod leader;
pub mod migrations;
mod parameters;
pub mod partitions;
mod read_pool;
pub mod registry;
mod sessions;
mod target;
mod tls;
mod url;
mod verifier;
mod width;

pub use explain::{advice, explain};
pub use read_pool::{PoolCounts, ReadError, ReadPool};
pub use sessions::{Session, Use};
pub use target::{Target, TargetError};
pub use width::PartitionWidth;
