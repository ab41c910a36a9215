//! The edge: HTTP/1.1 and HTTP/2 in, JSON out.
//!
//! | folder | what it holds |
//! | --- | --- |
//! | [`server`] | sockets, TLS, connections, deferred responses, backpressure |
//! | [`request`] | one request from its head to its handler: routing, rights, body, query |
//! | `response` | JSON, RFC 9457 problems, and what the database's errors mean to a client |
//! | [`api`] | the resources, one file each |
//! | `ui` | the dashboard and the reference at `/docs` |
//!
//! # Rules
//!
//! - **Pipelined requests share a sync.** hyper reads a connection's next request when the one before is
//!   answered, so sixteen requests sent at once would cost sixteen syncs in a row. An answer is therefore
//!   made as soon as its readings are on their way; `server::deferred` holds its bytes, and all bytes behind
//!   them, until the log has synced. Over HTTP/2 each stream waits for itself.
//! - **Admission never waits.** Memory is taken piece by piece as bytes arrive. Reserving the largest body
//!   first would let a few slow clients hold all memory, and waiting for more would deadlock.
//! - **The slow client pays.** Heads, bodies and answers have deadlines of their own, and a connection that
//!   takes none of its answer is closed (`server::stall`).
//! - **Idle is not slow.** Proxies and devices keep connections between requests. An idle connection is kept longer
//!   than theirs; when every place is taken, the longest idle one is closed (`server::usage`).
//! - **A cut answer must not look complete.** HTTP/1.0 ends an answer in pieces by closing. While such an answer
//!   is on its way, closing the socket resets it (`server::socket`).
//! - **An HTTP/2 client can leave answers unread** while its socket stays free, by opening no window. A
//!   connection has a few places for unread answers, questions wait for one, and answers leave in pieces
//!   (`server::backpressure`).
//! - **A listener has no queue.** All listeners read one ring of the latest events, each at its own cursor. A
//!   listener that falls behind the ring is informed and closed (`api::events`).
//! - **A long answer checks its key again** (`response::revocable`): a stream or an export outlives by minutes
//!   the request that opened it, and a revoked key must lose access within seconds.
//! - **A proxy may lie.** The client's address is read from the right of `X-Forwarded-For`, as far as each
//!   writer is trusted (`request::client_ip`), and decides nothing but what the log says.
//! - **An id can hold markup.** The pages create text nodes only, and their policy forbids inline scripts,
//!   markup from text (Trusted Types) and everything from elsewhere.
//! - **Metrics are labelled by the pattern of a route**, never by the requested path, and counted per batch and
//!   per request, never per reading.
//!
//! It knows nothing of the writers: it sees their work in the log's progress and in the database.

pub mod api;
pub mod request;
mod response;
pub mod server;
#[cfg(test)]
mod tests;
mod ui;

use std::ops::RangeInclusive;
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

impl Settings {
    /// How large the largest body may be, in bytes.
    pub const BODY_BYTES: RangeInclusive<u64> = 1 << 10..=256 << 20;
    /// How many connections may be allowed.
    pub const CONNECTIONS: RangeInclusive<u64> = 1..=1_000_000;
    /// The default of `write_timeout`.
    pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
    /// The default of `drain_timeout`.
    pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
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
