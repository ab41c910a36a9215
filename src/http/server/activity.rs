//! The activity of an HTTP/2 connection: requests without a response, and responses that the client has not read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::backpressure;
use super::backpressure::{PacedBody, UNREAD_MAX};
use super::service::Service;
use super::usage::InUse;
use crate::http::request::auth::Peer;
use crate::http::response::problem::{Kind, Problem};
use crate::http::response::reply::EVENT_STREAM;
use crate::metrics;

/// What has happened on an HTTP/2 connection since it was opened.
pub(super) struct Activity {
    /// The number of requests.
    begun: AtomicU64,
    /// The number of requests whose response has begun.
    answered: AtomicU64,
    /// The number of response pieces that the client has made room for.
    moved: Arc<AtomicU64>,
    /// Permits for responses that the client has not read.
    unread: Arc<Semaphore>,
    /// The number of queries that have a permit, but no response yet.
    asking: AtomicU64,
}

impl Default for Activity {
    fn default() -> Self {
        Activity {
            begun: AtomicU64::default(),
            answered: AtomicU64::default(),
            moved: Arc::default(),
            unread: Arc::new(Semaphore::new(UNREAD_MAX)),
            asking: AtomicU64::default(),
        }
    }
}

impl Activity {
    /// Counts a request.
    pub(super) fn begin(self: &Arc<Self>) -> InFlight {
        self.begun.fetch_add(1, Ordering::AcqRel);
        InFlight(Arc::clone(self))
    }

    /// The sum of requests begun and pieces moved. `None` means that a request has no response yet.
    pub(super) fn at_rest(&self) -> Option<u64> {
        let answered = self.answered.load(Ordering::Acquire);
        let begun = self.begun.load(Ordering::Acquire);
        (begun == answered).then(|| begun + self.moved.load(Ordering::Relaxed))
    }

    /// A permit for a response. `None` means that the client does not read earlier responses.
    ///
    /// Blocks: while earlier responses are being made, and then for `within`
    async fn place(&self, within: Duration) -> Option<OwnedSemaphorePermit> {
        loop {
            let waited = timeout(within, Arc::clone(&self.unread).acquire_owned()).await;
            match waited {
                Ok(place) => return place.ok(),
                // The gateway is still making responses, so the client has had nothing to read.
                Err(_) if self.asking.load(Ordering::Relaxed) > 0 => {}
                Err(_) => return None,
            }
        }
    }
}

/// A request without a response. Dropping it counts the request as answered, even if the client has reset the
/// stream.
pub(super) struct InFlight(Arc<Activity>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.answered.fetch_add(1, Ordering::Release);
    }
}

/// Counts a query as in progress until it is dropped, even if the client resets the stream.
struct Asking<'a>(&'a AtomicU64);

impl<'a> Asking<'a> {
    fn begin(asking: &'a AtomicU64) -> Self {
        asking.fetch_add(1, Ordering::Relaxed);
        Asking(asking)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Responds to an HTTP/2 request. A query first waits for a permit for its response.
pub(super) async fn answer_in_place<A: Service>(
    service: Arc<A>,
    peer: Arc<Peer>,
    in_flight: InFlight,
    in_use: InUse,
    request: Request<Incoming>,
) -> Response<PacedBody> {
    let activity = &in_flight.0;
    let in_use = Some(in_use);
    let moved = Arc::clone(&activity.moved);
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let reply = service.answer(&peer, request, None).await;
        return backpressure::bind(reply, None, moved, in_use);
    }
    let within = service.context().settings.write_timeout;
    let mut place = activity.place(within).await;
    if place.is_none() {
        metrics::http_shed("untaken");
        let detail = "the client is not reading the earlier responses on its connection";
        let refusal = Problem::new(Kind::Overloaded, detail).into_reply();
        return backpressure::bind(refusal, None, moved, in_use);
    }
    let asking = Asking::begin(&activity.asking);
    let reply = service.answer(&peer, request, None).await;
    drop(asking);
    // An event stream has its own limit, and is never read to its end.
    let kind = reply.headers().get(CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes() == EVENT_STREAM.as_bytes()) {
        place = None;
    }
    backpressure::bind(reply, place, moved, in_use)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn a_client_that_waits_for_an_answer_does_not_stall() {
        let within = Duration::from_millis(20);
        let activity = Activity::default();
        let all = Arc::clone(&activity.unread).acquire_many_owned(UNREAD_MAX as u32);
        let all = all.await.unwrap();
        assert!(activity.place(within).await.is_none());
        let asking = Asking::begin(&activity.asking);
        let waiting = activity.place(within);
        let mut waiting = pin!(waiting);
        // It still waits, far beyond its time limit.
        assert!(timeout(10 * within, waiting.as_mut()).await.is_err());
        drop(asking);
        drop(all);
        assert!(waiting.await.is_some());
    }
}
