//! What the server needs from the part that handles its requests.

use hyper::Request;
use hyper::body::Incoming;

use super::deferred::DeferredResponses;
use crate::http::context::Context;
use crate::http::request::auth::Peer;
use crate::http::response::reply::Reply;

/// Handles the requests of all connections of a server.
pub(crate) trait Service: Send + Sync + 'static {
    /// The settings and certificates of connections.
    fn context(&self) -> &Context;

    /// Responds to a request.
    ///
    /// If `deferred` is given, the service may respond before the readings are durable. It then pushes the
    /// response there, and the connection must hold it back until the log has synced.
    fn answer(
        &self,
        peer: &Peer,
        request: Request<Incoming>,
        deferred: Option<&DeferredResponses>,
    ) -> impl Future<Output = Reply> + Send;
}
