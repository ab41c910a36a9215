//! The edge: HTTP/1.1 and HTTP/2 in, JSON out.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`server`](Server) | the socket, how many connections there are, stopping |
//! | `connection` | one connection: which HTTP it speaks, its limits |
//! | `usage` | which connections are idle; closing the longest idle one for another |
//! | `stall` | deadlines of a connection that does nothing |
//! | `socket` | resetting a connection whose answer was cut |
//! | [`tls`] | certificates, and their renewal |
//! | `router` | every route, and finding the one of a path |
//! | `dispatch` | one request from its head to its answer; what all routes have in common |
//! | `access` | which right each endpoint needs, and what a caller shows for it |
//! | `story` | what is told of an answered request: metrics, a line of the log |
//! | `promise` | answers held until their readings are durable, while the next request is read |
//! | `taking` | answers of HTTP/2 that a client does not take |
//! | `body` | receiving a body within its limits; discarding one that is refused |
//! | `unfold` | decompressing a body within its limits |
//! | `media` | `Content-Type`, `Content-Encoding`, `Accept` |
//! | `revocable` | long answers, which end when their key does |
//! | `local` | under which names a gateway without keys answers |
//! | [`forwarded`] | the client's address behind proxies |
//! | `request_id`, `cors` | what answers carry beside their content |
//! | `query` | the strict reading of a query |
//! | `reply`, `problem` | answers: JSON, and RFC 9457 |
//! | `ingestion` | readings to the gate |
//! | `live`, `sessions`, `meters`, `performance`, `fleet`, `alerts`, `export` | what operators ask and declare |
//! | `history` | one device's readings, paged |
//! | `stream` | live changes as they come |
//! | [`health`] | whether the gateway serves, and whether it is ready |
//! | `dashboard` | the pages and their files |
//! | `operations` | metrics and the interface's description |
//! | `database` | a connection from the read pool, within a time |
//!
//! It knows nothing of the writers: what they have done is seen in the log's progress and in the
//! database.

pub mod api;
pub mod request;
mod response;
pub mod server;
#[cfg(test)]
mod tests;
mod ui;

use std::sync::Arc;
use std::time::Duration;

pub use self::api::health::Health;
use self::request::client_ip::Network;
pub use self::server::Server;
use self::server::tls::Tls;
use crate::analytics::Analyst;
use crate::auth::Keyring;
use crate::ingest::pipeline::Pipeline;
use crate::postgres::ReadPool;
use crate::wal::progress::Progress;

/// The limits of the edge.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A request's body, at most, in bytes.
    pub body_bytes_max: usize,
    /// Connections at once, at most; more wait in the system's queue until one ends, or has been
    /// idle for a second.
    pub connections_max: usize,
    /// From the connection, or a head's first byte, to the end of a request's head.
    pub header_timeout: Duration,
    /// How long a connection is kept between two requests.
    pub idle_timeout: Duration,
    /// From the head to the end of the body.
    pub body_timeout: Duration,
    /// How long a connection may take none of its answer.
    pub write_timeout: Duration,
    /// How long a stop waits for requests in flight.
    pub drain_timeout: Duration,
    /// The origins of web pages that may call from a browser; `*` is any.
    pub cors_origins: Vec<String>,
    /// The proxies whose word about a client's address is believed.
    pub trusted_proxies: Vec<Network>,
    /// Whether only an address or `localhost` is answered as Host: nobody asks for keys, and who listens at
    /// the machine's own address expects no name.
    pub local_hosts_only: bool,
}

/// What requests are served with; made once, shared by all.
pub struct Context {
    /// The limits.
    pub settings: Settings,
    /// What connections are encrypted with; none: they are plain.
    pub tls: Option<Arc<Tls>>,
    /// The keys that open `/v1`; none: it is open to everyone.
    pub keys: Option<Arc<Keyring>>,
    /// Where readings go.
    pub pipeline: Pipeline,
    /// How far the log is.
    pub progress: Arc<Progress>,
    /// The sessions for questions.
    pub reads: ReadPool,
    /// Answers questions about energy.
    pub analyst: Analyst,
    /// The parts' states.
    pub health: Arc<Health>,
    /// Writes the metrics in Prometheus' text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}
