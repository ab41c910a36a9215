//! PostgreSQL: its sessions, schema, partitions and registries, and the embedded server.
//!
//! # Rules
//!
//! - **A partition is created empty and then attached**, which blocks no COPY. There is no default partition:
//!   attaching beside one reads all its rows. An existing partition wins over the configured width, however an
//!   operator made it: with open ends, as a default, or partitioned further.
//! - **Retention drops whole partitions** with a short lock timeout, and tries again, because while a DROP waits, every
//!   COPY queues after it.
//! - **Sessions live only on the newest server** (`servers`): an old primary that comes back is refused.
//! - **Replicas answer queries only, and only if they are sure to be recent enough** (`replicas`).
//! - **A clock may jump.** Waits use a monotonic clock. Retention uses the newest reading as a second source:
//!   it counts from the clock or from that reading, whichever is older.

mod der;
pub mod embedded;
mod explain;
mod hosts;
mod instant;
pub mod leader;
mod lineage;
mod lineage_file;
pub mod migrations;
mod parameters;
pub mod partitions;
mod read_pool;
mod reads;
mod refused;
pub mod registry;
mod replicas;
mod route;
pub mod sequences;
mod servers;
mod sessions;
mod settings;
mod target;
mod tls;
mod url;
mod verifier;
mod width;

pub use explain::{advice, explain};
pub use lineage::Server;
pub use read_pool::{PoolCounts, ReadError, ReadPool};
pub use reads::{Provenance, QueryError, ReadServers, Reads};
pub use replicas::{
    Leaves, NotAToken, ReplicaReport, ReplicasReport, TriedReplica, WalPosition, Written,
};
pub use servers::{Bound, Keeping, ServersReport, copy_servers};
pub use sessions::Session;
pub use settings::Use;
pub use target::{ReplicaSettings, Target, TargetError};
pub use width::PartitionWidth;
