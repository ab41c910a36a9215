//! The part that answers a server's requests, as the server sees it.

use hyper::Request;
use hyper::body::Incoming;

use super::deferred::DeferredResponses;
use crate::http::context::Context;
use crate::http::request::auth::Peer;
use crate::http::response::reply::Reply;

/// Answers the requests of all connections of a server.
pub(crate) trait Service: Send + Sync + 'static {
    /// The settings and certificates that connections are served with.
    fn context(&self) -> &Context;

    /// Answers a request.
    ///
    /// If `deferred` is given, the service may answer before the readings are durable. It then
    /// pushes the response there, and the connection must hold the answer back until the log has
    /// synced.
    fn answer(
        &self,
        peer: &Peer,
        request: Request<Incoming>,
        deferred: Option<&DeferredResponses>,
    ) -> impl Future<Output = Reply> + Send;
}
