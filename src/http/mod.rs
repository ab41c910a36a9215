//! The edge: HTTP/1.1 and HTTP/2 in, JSON out.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`server`] | sockets, TLS, connections, deferred responses, backpressure |
//! | [`request`] | the parts of a request: credentials, body, query; what a route is |
//! | `response` | JSON, RFC 9457 problems, and how the database's errors map to them |
//! | [`context`] | the settings of the edge and the parts behind it |
//! | [`api`] | the resources, one file each |
//! | `ui` | the dashboard and the reference at `/docs` |
//! | `routes` | the table of routes: one row for each method of each path |
//! | `dispatch` | a request from its head to its answer |
//!
//! # Rules
//!
//! - **Pipelined requests share a sync.** hyper reads the next request of a connection when the one before is answered.
//!   Sixteen requests sent at once would therefore cost sixteen syncs in a row. So the gateway makes an answer as soon
//!   as its readings are on their way. `server::deferred` buffers its bytes, and all bytes after them, until the log
//!   has synced. Over HTTP/2 each stream waits for itself.
//! - **Admission never waits.** Memory is reserved piece by piece as bytes arrive. Reserving the largest
//!   body first would let a few slow clients occupy all memory, and waiting for more would deadlock.
//! - **The slow client pays.** Heads, bodies and answers have deadlines of their own. A connection that
//!   reads none of its answer is closed (`server::stall`).
//! - **Idle is not slow.** Proxies and devices keep connections between requests. The gateway keeps an
//!   idle connection longer than they do. When every place is occupied, the longest idle connection is
//!   closed (`server::usage`).
//! - **A truncated answer must not look complete.** HTTP/1.0 ends an answer in pieces by closing. While
//!   such an answer is on its way, closing the socket resets the connection (`server::socket`).
//! - **An HTTP/2 client can leave answers unread** while its socket stays free, by opening no window. A
//!   connection has a few places for unread answers, queries wait for one, and answers leave in pieces
//!   (`server::backpressure`).
//! - **A listener has no queue.** All listeners read one ring of the latest events, each at its own cursor. A
//!   listener that falls behind the ring gets a `reset` event and is ended (`api::events`).
//! - **A long answer checks its key again** (`response::revocable`). A stream or an export continues for
//!   minutes after its request, and a revoked key must lose access within seconds.
//! - **A proxy may lie.** The client's address is read from `X-Forwarded-For`, from right to left, stopping
//!   at the first hop that is not a trusted proxy (`request::client_ip`). It decides nothing: it is only logged.
//! - **An id can hold markup.** The pages create text nodes only. Their policy forbids inline scripts,
//!   markup from text (Trusted Types) and every foreign source.
//! - **Metrics are labelled by the pattern of a route**, never by the requested path, and counted per batch and
//!   per request, never per reading.
//!
//! The edge knows nothing of the writers: it sees their work in the log's progress and in the database.

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

/// Serves the routes until `shutdown` completes, and then the requests in flight.
///
/// A panic of the live stream's poll stops the server as `shutdown` does.
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
