//! What requests are served with: the settings of the edge, and the parts behind it.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::api::events::feed::Feed;
use super::api::health::Health;
use super::request::client_ip::Network;
use super::server::tls::Tls;
use crate::analytics::Analyst;
use crate::auth::Keyring;
use crate::ingest::pipeline::Pipeline;
use crate::postgres::ReadPool;
use crate::wal::progress::Progress;

/// The limits of the edge.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The largest body of a request, in bytes.
    pub body_bytes_max: usize,
    /// The most connections at once. More wait in the system's queue until one ends, or has been
    /// idle for a second.
    pub connections_max: usize,
    /// From the opening of the connection, or the first byte of a head, to the end of the head.
    pub header_timeout: Duration,
    /// How long a connection is kept between two requests.
    pub idle_timeout: Duration,
    /// From the head to the end of the body.
    pub body_timeout: Duration,
    /// How long a connection may read none of its answer.
    pub write_timeout: Duration,
    /// How long a stop waits for requests in flight.
    pub drain_timeout: Duration,
    /// The origins of web pages that may call from a browser; `*` means any.
    pub cors_origins: Vec<String>,
    /// The proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Vec<Network>,
    /// Whether the Host header must be an address or `localhost`, so that a web page cannot call the
    /// gateway under a name of its own. Set if it requires no keys and serves its own machine.
    pub local_hosts_only: bool,
}

impl Settings {
    /// The allowed bounds of a body, in bytes.
    pub const BODY_BYTES: RangeInclusive<u64> = 1 << 10..=256 << 20;
    /// The allowed numbers of connections.
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
    /// The certificates of connections. `None` means plain connections.
    pub tls: Option<Arc<Tls>>,
    /// The keys that open `/v1`. `None` means that `/v1` is public.
    pub keys: Option<Arc<Keyring>>,
    /// Where readings go.
    pub pipeline: Pipeline,
    /// How far the log is.
    pub progress: Arc<Progress>,
    /// The sessions for queries.
    pub reads: ReadPool,
    /// Answers queries about energy.
    pub analyst: Analyst,
    /// The latest changes, for the live stream.
    pub(crate) live: Arc<Feed>,
    /// The parts' states.
    pub health: Arc<Health>,
    /// Writes the metrics in Prometheus' text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}
