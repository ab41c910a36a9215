//! Tracks which connections are in use, and closes the longest idle one when there are too many.
//!
//! Proxies and devices keep connections open between requests, so an idle connection is kept for `--idle-timeout`.
//! It still counts towards `--max-connections`. At that limit, if another client waits, the connection that has
//! been idle for longest is closed.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::{Response, Version};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::http::request::poll;
use crate::http::response::reply::{Body, Reply};
use crate::metrics;

/// How long a connection must have been idle before it is closed for another client. Why 1 s: a client that sends
/// that often should keep its connection.
const IDLE_MIN: Duration = Duration::from_secs(1);
/// How often the server looks for an idle connection while a client waits.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The zero point of idle times.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Microseconds since [`EPOCH`], never 0.
fn now_micros() -> u64 {
    let passed = poll::moment().saturating_duration_since(*EPOCH);
    u64::try_from(passed.as_micros()).unwrap_or(u64::MAX - 1) + 1
}

/// Whether one connection is in use.
#[derive(Debug)]
pub(crate) struct Usage {
    /// The number of requests since it was opened.
    begun: AtomicU32,
    /// The number of requests whose response hyper has not read to its end.
    in_flight: AtomicU32,
    /// Since when no request has been in flight, as [`now_micros`]; 0 while one is in flight.
    idle_since: AtomicU64,
    /// Whether it is sending a response that ends only with the connection.
    unfinished: AtomicBool,
    /// Whether it must end to make room for another.
    evicted: AtomicBool,
    evict: Notify,
}

impl Default for Usage {
    fn default() -> Self {
        Usage {
            begun: AtomicU32::new(0),
            in_flight: AtomicU32::new(0),
            idle_since: AtomicU64::new(now_micros()),
            unfinished: AtomicBool::new(false),
            evicted: AtomicBool::new(false),
            evict: Notify::new(),
        }
    }
}

impl Usage {
    /// Begins a request. It is in flight until the returned value is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> InUse {
        self.begun.fetch_add(1, Ordering::AcqRel);
        if self.in_flight.fetch_add(1, Ordering::AcqRel) == 0 {
            self.idle_since.store(0, Ordering::Release);
        }
        InUse(Arc::clone(self))
    }

    /// The number of requests since it was opened.
    pub(crate) fn begun(&self) -> u32 {
        self.begun.load(Ordering::Acquire)
    }

    /// Whether a request is in flight.
    pub(crate) fn is_busy(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) > 0
    }

    /// How long no request has been in flight. `None` means that one is in flight.
    pub(crate) fn idle_for(&self) -> Option<Duration> {
        let since = self.idle_since.load(Ordering::Acquire);
        (since != 0).then(|| Duration::from_micros(now_micros().saturating_sub(since)))
    }

    /// Whether it is sending a response that ends only with the connection.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.unfinished.load(Ordering::Acquire)
    }

    /// Waits until the connection must end to make room for another.
    ///
    /// Cancel: safe
    pub(crate) async fn evicted(&self) {
        self.evict.notified().await;
    }
}

/// A request in flight.
#[derive(Debug)]
pub(crate) struct InUse(Arc<Usage>);

impl Drop for InUse {
    fn drop(&mut self) {
        let usage = &self.0;
        if usage.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            usage.idle_since.store(now_micros(), Ordering::Release);
        }
    }
}

/// The body of an HTTP/1 response. It keeps its connection in use until it ends.
pub(crate) struct Tracked {
    body: Body,
    in_use: InUse,
    /// Whether it ends only with the connection.
    is_open_ended: bool,
}

/// Binds a response to its connection's usage.
pub(crate) fn track(reply: Reply, version: Version, in_use: InUse) -> Response<Tracked> {
    reply.map(|body| Tracked {
        is_open_ended: version < Version::HTTP_11 && body.size_hint().exact().is_none(),
        body,
        in_use,
    })
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.is_open_ended {
            // Set before the head is sent, because hyper polls the body before it sends anything.
            self.in_use.0.unfinished.store(true, Ordering::Release);
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let polled = polled.map_err(io::Error::other);
        if self.is_open_ended && matches!(polled, Poll::Ready(None)) {
            self.in_use.0.unfinished.store(false, Ordering::Release);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The slots of all connections.
pub(crate) struct Places {
    free: Arc<Semaphore>,
    /// The open connections by number, at most one per slot.
    open: Mutex<HashMap<u64, Arc<Usage>>>,
    next: AtomicU64,
}

/// The slot of one connection. It is freed when dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    number: u64,
    pub(crate) usage: Arc<Usage>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    pub(crate) fn new(connections_max: usize) -> Arc<Self> {
        Arc::new(Places {
            free: Arc::new(Semaphore::new(connections_max)),
            open: Mutex::default(),
            next: AtomicU64::new(0),
        })
    }

    /// Returns a slot for a waiting client. If none is free, closes the connection that has been idle for longest.
    ///
    /// Blocks: until a slot is free
    /// Cancel: safe
    pub(crate) async fn take(self: &Arc<Self>) -> Option<Place> {
        loop {
            if let Some(place) = self.try_take() {
                return Some(place);
            }
            self.evict(IDLE_MIN);
            let waited = timeout(LOOK_EVERY, Arc::clone(&self.free).acquire_owned()).await;
            if let Ok(permit) = waited {
                // The semaphore is never closed.
                return permit.ok().map(|permit| self.place(permit));
            }
        }
    }

    /// Returns a slot if one is free.
    pub(crate) fn try_take(self: &Arc<Self>) -> Option<Place> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        Some(self.place(permit))
    }

    fn place(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Place {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let usage = Arc::new(Usage::default());
        self.open().insert(number, Arc::clone(&usage));
        Place {
            places: Arc::clone(self),
            number,
            usage,
            _permit: permit,
        }
    }

    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Usage>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Evicts the connection that has been idle for longest, if that is at least `least`.
    fn evict(&self, least: Duration) {
        let open = self.open();
        let all = open.values();
        let idle = all.filter(|usage| !usage.evicted.load(Ordering::Relaxed));
        // Compares when they became idle. Comparing idle times would read the clock once for each.
        let since = idle.map(|usage| (usage.idle_since.load(Ordering::Acquire), usage));
        let longest = since
            .filter(|(since, _)| *since != 0)
            .min_by_key(|(since, _)| *since);
        let longest = longest.map(|(_, usage)| usage);
        if let Some(usage) = longest.filter(|u| u.idle_for().is_some_and(|idle| idle >= least)) {
            usage.evicted.store(true, Ordering::Relaxed);
            usage.evict.notify_one();
            metrics::http_evicted(1);
        }
    }

    /// Waits until every connection has ended.
    pub(crate) async fn all_free(&self, connections_max: usize) {
        let all = u32::try_from(connections_max).unwrap_or(u32::MAX);
        drop(self.free.acquire_many(all).await);
    }

    /// The number of open connections.
    pub(crate) fn occupied(&self) -> usize {
        self.open().len()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.open().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_longest_idle_connection_is_evicted() {
        let places = Places::new(3);
        let [first, second, busy] = [(); 3].map(|()| places.try_take().unwrap());
        let _in_flight = busy.usage.begin();
        // Used later than the second one, by a measurable time.
        let since = |place: &Place| place.usage.idle_since.load(Ordering::Acquire);
        while since(&first) <= since(&second) {
            drop(first.usage.begin());
        }
        let is_evicted = async |place: &Place| {
            let evicted = timeout(Duration::from_millis(10), place.usage.evicted());
            evicted.await.is_ok()
        };
        places.evict(Duration::MAX);
        assert!(!is_evicted(&second).await, "it was in use just before");
        places.evict(Duration::ZERO);
        assert!(is_evicted(&second).await && !is_evicted(&first).await);
        places.evict(Duration::ZERO);
        assert!(is_evicted(&first).await, "the second was evicted before");
        places.evict(Duration::ZERO);
        assert!(!is_evicted(&busy).await);
        drop(second);
        assert!(places.take().await.is_some());
    }
}
