//! What handlers work with: the settings of the edge, and the parts behind it.

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
use crate::postgres::ReadServers;
use crate::wal::progress::Progress;

/// The limits of the edge.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The largest body of a request, in bytes.
    pub body_bytes_max: usize,
    /// The most open connections. Further clients wait in the system's queue until one ends, or can be closed
    /// because it has been idle for a second.
    pub connections_max: usize,
    /// From the opening of a connection, or from the first byte of a later head, to the end of the head.
    pub header_timeout: Duration,
    /// How long an idle connection is kept between two requests.
    pub idle_timeout: Duration,
    /// From the head to the end of the body.
    pub body_timeout: Duration,
    /// How long a client may read nothing of its response.
    pub write_timeout: Duration,
    /// How long a shutdown waits for requests in flight.
    pub drain_timeout: Duration,
    /// The web origins that may call from a browser; `*` means any.
    pub cors_origins: Vec<String>,
    /// The proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Vec<Network>,
    /// Whether the Host header must be an address or `localhost`, so that a web page cannot reach the gateway
    /// under its own name. Set if the gateway requires no keys and serves only its own machine.
    pub local_hosts_only: bool,
}

impl Settings {
    /// The valid range of `body_bytes_max`.
    pub const BODY_BYTES: RangeInclusive<u64> = 1 << 10..=256 << 20;
    /// The valid range of `connections_max`.
    pub const CONNECTIONS: RangeInclusive<u64> = 1..=1_000_000;
    /// The default of `write_timeout`.
    pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
    /// The default of `drain_timeout`.
    pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
}

/// What handlers work with. There is one, shared by all requests.
pub struct Context {
    /// The limits.
    pub settings: Settings,
    /// The TLS certificates. `None` means plain connections.
    pub tls: Option<Arc<Tls>>,
    /// The keys for `/v1`. `None` means that `/v1` is public.
    pub keys: Option<Arc<Keyring>>,
    /// Decodes readings and hands them to the log.
    pub pipeline: Pipeline,
    /// How far the log is appended and stored.
    pub progress: Arc<Progress>,
    /// The servers that answer queries.
    pub reads: ReadServers,
    /// Answers queries about energy.
    pub analyst: Analyst,
    /// The latest changes, for the live stream.
    pub(crate) live: Arc<Feed>,
    /// The state of every part.
    pub health: Arc<Health>,
    /// Writes the metrics in Prometheus' text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}
