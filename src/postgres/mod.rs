//! PostgreSQL: its sessions, schema, partitions and registries, and the embedded server.
//!
//! # Rules
//!
//! - **A partition is created empty and then attached**, which blocks no COPY. There is no default partition:
//!   beside one, attaching would read every row. An existing partition wins over the configured width, however an
//!   operator made it: open ends, a default, a partition that is cut further.
//! - **Retention drops whole partitions** with a short lock timeout, and tries again, because a waiting DROP
//!   stops every COPY behind it.
//! - **A clock may jump.** Waits use a clock that cannot. Where a date decides, a second opinion counts:
//!   retention counts from the newest reading where that is older than the clock says.

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
