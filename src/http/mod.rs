//! The edge: HTTP/1.1 and HTTP/2 in, JSON out.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`server`] | sockets, TLS, connections, deferred responses, backpressure |
//! | [`request`] | the parts of a request (credentials, body, query), and what a route is |
//! | `response` | JSON, RFC 9457 problems, and the mapping of database errors to them |
//! | [`context`] | the settings of the edge and the parts behind it |
//! | [`api`] | the resources, one file each |
//! | `ui` | the dashboard, and the API reference at `/docs` |
//! | `routes` | the table of routes: one row for each method of each path |
//! | `dispatch` | a request from its head to its response |
//!
//! # Rules
//!
//! - **Pipelined requests share a sync.** hyper reads the next request of a connection only when the previous one
//!   has a response. Sixteen requests sent at once would therefore take sixteen syncs, one after the other. So the
//!   gateway makes a response as soon as its readings are on their way to the log. `server::deferred` holds back
//!   its bytes, and all bytes after them, until the log has synced. Over HTTP/2 each stream waits by itself.
//! - **Admission never waits.** Memory is reserved piece by piece as bytes arrive. If the largest body were
//!   reserved in advance, a few slow clients could occupy all memory. If requests waited for memory, they could
//!   deadlock.
//! - **The slow client pays.** Heads, bodies and responses each have a deadline. A connection that reads nothing
//!   of its response is closed (`server::stall`).
//! - **Idle is not slow.** Proxies and devices keep connections open between requests, and the gateway keeps them
//!   open for longer than the others do. If the limit of connections is reached, the one that has been idle for
//!   longest is closed (`server::usage`).
//! - **A truncated response must not look complete.** To HTTP/1.0, a response of unknown length ends when its
//!   connection closes. Until such a response is complete, closing the socket resets the connection
//!   (`server::socket`).
//! - **An HTTP/2 client can leave responses unread** while its socket stays writable, by opening no flow-control
//!   window. So each connection has a few permits for unread responses, queries wait for one, and responses are
//!   sent in pieces (`server::backpressure`).
//! - **A listener has no queue.** All listeners read one ring of the latest events, each at its own cursor. A
//!   listener that falls behind the ring gets a `reset` event and its stream ends (`api::events`).
//! - **A long response checks its key again** (`response::revocable`). A stream or an export continues for minutes
//!   after its request, and a revoked key must lose access within seconds.
//! - **A proxy may lie.** The client's address is taken from `X-Forwarded-For`, reading from right to left up to
//!   the first hop that is not a trusted proxy (`request::client_ip`). It is only logged; no decision depends on
//!   it.
//! - **An id can contain markup.** The pages create only text nodes. Their content security policy forbids inline
//!   scripts, markup from text (Trusted Types) and every foreign source.
//! - **Metrics are labelled with the pattern of a route**, never with the requested path. They are updated once per
//!   batch and per request, never per reading.
//!
//! The edge knows nothing of the writers. It sees their results in the log's progress and in the database.

pub mod api;
pub mod context;
mod dispatch;
pub mod request;
mod response;
mod routes;
pub mod server;
#[cfg(test)]
mod tests;
mod ui;

use std::sync::Arc;

use self::api::events::poll;
pub use self::api::health::Health;
use self::api::operations;
pub use self::context::{Context, Settings};
use self::dispatch::Dispatcher;
pub use self::server::Server;

/// Serves the routes until `shutdown` completes, and then finishes the requests in flight.
///
/// If the live stream's poll panics, the server shuts down too.
///
/// Blocks: until `shutdown`, and then at most `drain_timeout`
/// Cancel: accepted connections continue until the runtime ends
pub async fn serve(
    server: Server,
    context: Arc<Context>,
    shutdown: impl Future<Output = ()> + Send,
) {
    operations::count_from_zero();
    let live = Arc::clone(&context.live);
    let suspect_watts = context.analyst.judgement().suspect_watts.0;
    let polling = poll::run(Arc::clone(&live), context.reads.clone(), suspect_watts);
    let mut polling = tokio::spawn(polling);
    let stop = async {
        tokio::select! {
            () = shutdown => {}
            ended = &mut polling => {
                tracing::error!(?ended, "the poll of the live stream ended unexpectedly");
            }
        }
        live.stop();
        polling.abort();
    };
    server.serve(Arc::new(Dispatcher::new(context)), stop).await;
}
