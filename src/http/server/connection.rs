//! One connection, from its first byte to its end.
//!
//! With TLS, the handshake decides which HTTP is spoken. Without TLS, the first bytes decide: an HTTP/2
//! client begins with a preface, which is not a request of HTTP/1.1.
//! They are read once a connection, into 24 bytes, and given back to hyper, so that requests of
//! HTTP/1.1 pay nothing for the choice. A socket that is silent from its beginning is closed after
//! the time for a request's head. Between two requests a connection has much longer.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{MissedTickBehavior, timeout};
use tokio_rustls::TlsAcceptor;

use super::backpressure;
use super::backpressure::{PacedBody, UNREAD_MAX};
use super::deferred::{DeferredResponses, DeferringIo};
use super::service::Service;
use super::socket::Socket;
use super::stall::{Limits, StallGuard};
use super::tls::Tls;
use super::usage;
use super::usage::{InUse, Usage};
use crate::auth::Fingerprint;
use crate::http::context::Settings;
use crate::http::request::auth::Peer;
use crate::http::response::problem::{Kind, Problem};
use crate::http::response::reply::EVENT_STREAM;
use crate::metrics;

/// The largest head of HTTP/1.1, and the most that is read of a body at once. Why 64 KiB: a body of
/// 500 readings comes in one piece or two, and 10,000 slow connections hold little memory.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// The most header fields of a request of HTTP/1.1.
const HEADERS_MAX: usize = 64;

/// The first bytes of an HTTP/2 client (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Requests at once on one connection.
const STREAMS_MAX: u32 = 128;
/// The largest head of HTTP/2, decoded; it bounds CONTINUATION frames as well.
const HEAD_BYTES_MAX: u32 = 32 << 10;
/// The most that a client may send of one body, and of all bodies, before the gateway reads any of it.
/// A connection can occupy so much outside the memory for readings.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// The most that is buffered of answers that a client does not read.
const SEND_BYTES_MAX: usize = 64 << 10;
/// The most streams that a client may open and reset at once, or make the gateway reset, before its
/// connection is ended (CVE-2023-44487).
const RESETS_MAX: usize = 32;
/// How often a silent client of HTTP/2 is pinged, and how long its answer may take.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// How long open connections still accept requests once the gateway stops. A client that connected or
/// sent before it could know gets an answer. Why 250 ms: longer than a round trip across a continent,
/// and short beside the time that the writers take to stop.
const LAST_CALL: Duration = Duration::from_millis(250);

/// Serves one connection to its end.
///
/// Blocks: until the client ends it, is idle or stuck for too long, or `stopping` changes and
///         the requests in flight are answered
pub(crate) async fn serve<A: Service>(
    stream: TcpStream,
    address: IpAddr,
    usage: Arc<Usage>,
    service: Arc<A>,
    stopping: watch::Receiver<()>,
) {
    let peer = Peer {
        address,
        certificate: None,
    };
    let served = match stream.set_nodelay(true) {
        Err(error) => Err(error.into()),
        Ok(()) => {
            let stream = Socket::new(stream, Arc::clone(&usage));
            let served = Served {
                peer,
                usage,
                service,
                stopping,
            };
            match &served.service.context().tls {
                Some(tls) => {
                    let tls = Arc::clone(tls);
                    // Boxed, as HTTP/2 is, so that a plain connection's task stays small.
                    Box::pin(encrypted(stream, tls, served)).await
                }
                None => plain(stream, served).await,
            }
        }
    };
    if let Err(error) = served {
        // The gateway cannot repair what clients do to their connections.
        tracing::debug!(%error, "a connection ended with an error");
    }
}

/// What a connection is served with.
struct Served<A> {
    peer: Peer,
    usage: Arc<Usage>,
    service: Arc<A>,
    stopping: watch::Receiver<()>,
}

/// The version of HTTP that a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

impl<A: Service> Served<A> {
    fn settings(&self) -> &Settings {
        &self.service.context().settings
    }

    /// Serves what a connection sends once its protocol is known; `early` was read before.
    async fn serve<S>(self, stream: S, early: Bytes, protocol: Protocol) -> Ended
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let settings = self.settings();
        let limits = Limits {
            write: settings.write_timeout,
            // HTTP/2 has deadlines of its own between its requests.
            head: (protocol == Protocol::Http1).then_some(settings.header_timeout),
            idle: settings.idle_timeout,
        };
        let io = StallGuard::new(stream, early, limits, Arc::clone(&self.usage));
        match protocol {
            Protocol::Http1 => serve_http1(io, self).await,
            Protocol::Http2 => Box::pin(serve_http2(io, self)).await,
        }
    }
}

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

async fn plain<A: Service>(mut stream: Socket, served: Served<A>) -> Ended {
    let within = served.settings().header_timeout;
    let (early, protocol) = tokio::select! {
        begun = timeout(within, begin(&mut stream)) => begun??,
        () = last_call(served.stopping.clone()) => return Ok(()),
        () = served.usage.evicted() => return Ok(()),
    };
    served.serve(stream, early, protocol).await
}

async fn encrypted<A: Service>(stream: Socket, tls: Arc<Tls>, mut served: Served<A>) -> Ended {
    let within = served.settings().header_timeout;
    let acceptor = TlsAcceptor::from(tls.current());
    let stream = tokio::select! {
        accepted = timeout(within, acceptor.accept(stream)) => accepted??,
        () = last_call(served.stopping.clone()) => return Ok(()),
        () = served.usage.evicted() => return Ok(()),
    };
    let (_, session) = stream.get_ref();
    served.peer.certificate = session
        .peer_certificates()
        .and_then(|chain| chain.first())
        .map(|own| Fingerprint::of(own));
    let protocol = match session.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        _ => Protocol::Http1,
    };
    served.serve(stream, Bytes::new(), protocol).await
}

/// Waits until the gateway stops, and then until requests that were sent before have arrived.
async fn last_call(mut stopping: watch::Receiver<()>) {
    // The sender is dropped, never used.
    stopping.changed().await.ok();
    tokio::time::sleep(LAST_CALL).await;
}

/// Reads until it is clear which HTTP is spoken; returns the bytes that were read as well.
async fn begin(stream: &mut Socket) -> io::Result<(Bytes, Protocol)> {
    let mut read = [0; PREFACE.len()];
    let mut length = 0;
    loop {
        match stream.read(&mut read[length..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => length += more,
        }
        let same = read[..length] == PREFACE[..length];
        if !same || length == PREFACE.len() {
            let protocol = if same {
                Protocol::Http2
            } else {
                Protocol::Http1
            };
            return Ok((Bytes::copy_from_slice(&read[..length]), protocol));
        }
    }
}

async fn serve_http1<S, A>(io: StallGuard<S>, served: Served<A>) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: Service,
{
    let Served {
        peer,
        usage,
        service,
        stopping,
    } = served;
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // The guard's own timeout distinguishes a head from an idle connection.
        .header_read_timeout(None)
        .max_buf_size(BUFFER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        // A device that has closed its sending side still reads its answer.
        .half_close(true);
    let deferred = Arc::new(DeferredResponses::default());
    let io = DeferringIo::new(io, Arc::clone(&deferred));
    let answering = service_fn(|request: Request<Incoming>| {
        let (service, deferred) = (Arc::clone(&service), Arc::clone(&deferred));
        let (stopping, in_use) = (stopping.clone(), usage.begin());
        let version = request.version();
        async move {
            let mut reply = service.answer(peer, request, Some(&deferred)).await;
            if stopping.has_changed().is_err() {
                // The client must not send another request here.
                reply
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(usage::track(reply, version, in_use))
        }
    });
    let mut serving = pin!(builder.serve_connection(io, answering));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = last_call(stopping.clone()) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
        () = usage.evicted() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    Ok(ended?)
}

/// What an HTTP/2 connection has done since it was opened.
struct Activity {
    /// Requests.
    begun: AtomicU64,
    /// Requests whose answers have begun.
    answered: AtomicU64,
    /// Pieces of answers that the client has made room for.
    moved: Arc<AtomicU64>,
    /// Places for answers that the client has not read.
    unread: Arc<Semaphore>,
    /// Questions with a place whose answers are still being made.
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
    /// Requests begun and pieces moved. `None` means that a request waits for its answer.
    fn at_rest(&self) -> Option<u64> {
        let answered = self.answered.load(Ordering::Acquire);
        let begun = self.begun.load(Ordering::Acquire);
        (begun == answered).then(|| begun + self.moved.load(Ordering::Relaxed))
    }

    /// A place for an answer. `None` means that the client reads none of the answers before it.
    ///
    /// Blocks: while answers before it are being made, and then for `within`
    async fn place(&self, within: Duration) -> Option<OwnedSemaphorePermit> {
        loop {
            let waited = timeout(within, Arc::clone(&self.unread).acquire_owned()).await;
            match waited {
                Ok(place) => return place.ok(),
                // The gateway still makes answers: the client has nothing to read.
                Err(_) if self.asking.load(Ordering::Relaxed) > 0 => {}
                Err(_) => return None,
            }
        }
    }
}

/// Counts a request as answered when dropped, also one that its client has reset.
struct InFlight(Arc<Activity>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.answered.fetch_add(1, Ordering::Release);
    }
}

/// Counts a question as being answered until dropped, also where its client resets it.
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

/// Answers a request of HTTP/2; a question once the connection has a place for its answer.
async fn answer_in_place<A: Service>(
    service: Arc<A>,
    peer: Peer,
    activity: &Activity,
    in_use: InUse,
    request: Request<Incoming>,
) -> Response<PacedBody> {
    let in_use = Some(in_use);
    let moved = Arc::clone(&activity.moved);
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let reply = service.answer(peer, request, None).await;
        return backpressure::bind(reply, None, moved, in_use);
    }
    let within = service.context().settings.write_timeout;
    let mut place = activity.place(within).await;
    if place.is_none() {
        metrics::http_shed("untaken");
        let detail = "the client does not read the answers before this one on its connection";
        let refusal = Problem::new(Kind::Overloaded, detail).into_reply();
        return backpressure::bind(refusal, None, moved, in_use);
    }
    let asking = Asking::begin(&activity.asking);
    let reply = service.answer(peer, request, None).await;
    drop(asking);
    // A stream of events has a bound of its own, and is never read to its end.
    let kind = reply.headers().get(CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes() == EVENT_STREAM.as_bytes()) {
        place = None;
    }
    backpressure::bind(reply, place, moved, in_use)
}

async fn serve_http2<S, A>(io: StallGuard<S>, served: Served<A>) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Service,
{
    let Served {
        peer,
        usage,
        service,
        mut stopping,
    } = served;
    let settings = &service.context().settings;
    let idle = settings.idle_timeout;
    let look_every = settings.header_timeout.min(idle);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BYTES_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(RESETS_MAX)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    let activity = Arc::new(Activity::default());
    let answering = service_fn(|request| {
        let service = Arc::clone(&service);
        activity.begun.fetch_add(1, Ordering::AcqRel);
        let in_flight = InFlight(Arc::clone(&activity));
        let in_use = usage.begin();
        async move {
            let in_flight = in_flight;
            let reply = answer_in_place(service, peer, &in_flight.0, in_use, request);
            Ok::<_, Infallible>(reply.await)
        }
    });
    let mut serving = pin!(builder.serve_connection(io, answering));
    let mut every = tokio::time::interval(look_every);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    every.reset();
    let (mut seen, mut leaving, mut stopped) = (0, false, false);
    loop {
        tokio::select! {
            ended = serving.as_mut() => return Ok(ended?),
            () = usage.evicted() => serving.as_mut().graceful_shutdown(),
            _ = stopping.changed(), if !stopped => {
                stopped = true;
                serving.as_mut().graceful_shutdown();
            }
            // hyper bounds heads and silence for HTTP/1.1 only. A connection with an unread answer is not
            // idle. One without any request so far has the time for a head.
            _ = every.tick() => match activity.at_rest() {
                Some(done) if done == seen && leaving => return Ok(()),
                Some(done) if done == seen
                    && (done == 0 || usage.idle_for().is_none_or(|silent| silent >= idle)) =>
                {
                    leaving = true;
                    serving.as_mut().graceful_shutdown();
                }
                at_rest => seen = at_rest.unwrap_or(seen),
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
        // Much longer than its time, and it still waits.
        assert!(timeout(10 * within, waiting.as_mut()).await.is_err());
        drop(asking);
        drop(all);
        assert!(waiting.await.is_some());
    }
}
