//! One connection, from its first byte to its end.
//!
//! With TLS, the handshake says which HTTP is spoken. Without, the first bytes do: a client that
//! knows that HTTP/2 is spoken here begins with a preface that is no request of HTTP/1.1. They
//! are read once a connection, into 24 bytes, and given back to hyper, so that requests of
//! HTTP/1.1 pay nothing for the choice; and a socket that stays silent from its beginning is closed in
//! the time that a request's head has. Between two requests a connection has much longer.

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
use super::backpressure::{Taking, UNTAKEN_MAX};
use super::deferred::{Held, Promises};
use super::socket::Socket;
use super::stall::{Limits, StallGuard};
use super::tls::Tls;
use super::usage;
use super::usage::{InUse, Usage};
use crate::auth::Fingerprint;
use crate::http::api::events::EVENT_STREAM;
use crate::http::request::auth::Peer;
use crate::http::request::dispatch::{Shared, answer};
use crate::http::response::problem::{Kind, Problem};
use crate::metrics;

/// The largest head of HTTP/1.1, and what is read of a body at once. Why 64 KiB: a body of 500
/// readings comes in one piece or two, and 10,000 connections that send slowly hold little.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// The most header fields of a request of HTTP/1.1.
const HEADERS_MAX: usize = 64;

/// What a client of HTTP/2 says first (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Requests at once on one connection.
const STREAMS_MAX: u32 = 128;
/// The largest head of HTTP/2, decoded; it bounds CONTINUATION frames as well.
const HEAD_BYTES_MAX: u32 = 32 << 10;
/// What a client may send of one body, and of all, before any of it is taken: what a connection
/// can make the gateway hold outside of its memory for readings.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// What is held of answers that a client does not take.
const SEND_BYTES_MAX: usize = 64 << 10;
/// Streams that a client may open and reset at once before its connection is ended
/// (CVE-2023-44487), and streams that it may make the gateway reset.
const RESETS_MAX: usize = 32;
/// How often a silent client of HTTP/2 is asked whether it is there, and how long it may take.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// How long requests are still taken on open connections once the gateway stops: a client that had
/// connected, or sent, before it could know is answered and not cut off. Why 250 ms: longer than a
/// way across a continent and back, and nothing beside the time that the writers take to stop.
const LAST_CALL: Duration = Duration::from_millis(250);

/// Serves one connection to its end.
///
/// Blocks: until the client ends it, is idle or stuck for too long, or `stopping` changes and
///         the requests in flight are answered
pub(crate) async fn serve(
    stream: TcpStream,
    address: IpAddr,
    usage: Arc<Usage>,
    shared: Arc<Shared>,
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
                shared,
                stopping,
            };
            match &served.shared.context.tls {
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
        // What clients do to their connections is not ours to mend.
        tracing::debug!(%error, "a connection ended with an error");
    }
}

/// What a connection is served with.
struct Served {
    peer: Peer,
    usage: Arc<Usage>,
    shared: Arc<Shared>,
    stopping: watch::Receiver<()>,
}

impl Served {
    /// A connection with its deadlines. Those of HTTP/2 between its requests are its own.
    fn guard<S>(&self, stream: S, early: Bytes, is_http2: bool) -> StallGuard<S> {
        let settings = &self.shared.context.settings;
        let limits = Limits {
            write: settings.write_timeout,
            head: (!is_http2).then_some(settings.header_timeout),
            idle: settings.idle_timeout,
        };
        StallGuard::new(stream, early, limits, Arc::clone(&self.usage))
    }
}

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

async fn plain(mut stream: Socket, served: Served) -> Ended {
    let within = served.shared.context.settings.header_timeout;
    let (early, is_http2) = tokio::select! {
        begun = timeout(within, begin(&mut stream)) => begun??,
        () = last_call(served.stopping.clone()) => return Ok(()),
        () = served.usage.evicted() => return Ok(()),
    };
    let io = served.guard(stream, early, is_http2);
    if is_http2 {
        Box::pin(serve_http2(io, served)).await
    } else {
        serve_http1(io, served).await
    }
}

async fn encrypted(stream: Socket, tls: Arc<Tls>, mut served: Served) -> Ended {
    let within = served.shared.context.settings.header_timeout;
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
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    let io = served.guard(stream, Bytes::new(), is_http2);
    if is_http2 {
        serve_http2(io, served).await
    } else {
        serve_http1(io, served).await
    }
}

/// Waits until the gateway stops, and then until no request can be on its way any more from a client
/// that did not know.
async fn last_call(mut stopping: watch::Receiver<()>) {
    // The sender is dropped, never used.
    stopping.changed().await.ok();
    tokio::time::sleep(LAST_CALL).await;
}

/// Reads until it is clear which HTTP is spoken; gives what was read, and whether it is HTTP/2.
async fn begin(stream: &mut Socket) -> io::Result<(Bytes, bool)> {
    let mut read = [0; PREFACE.len()];
    let mut length = 0;
    loop {
        match stream.read(&mut read[length..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => length += more,
        }
        let same = read[..length] == PREFACE[..length];
        if !same || length == PREFACE.len() {
            return Ok((Bytes::copy_from_slice(&read[..length]), same));
        }
    }
}

async fn serve_http1<S: AsyncRead + AsyncWrite + Unpin>(
    io: StallGuard<S>,
    served: Served,
) -> Ended {
    let Served {
        peer,
        usage,
        shared,
        stopping,
    } = served;
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // The guard's own tells a head from an idle connection.
        .header_read_timeout(None)
        .max_buf_size(BUFFER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        // A device that has sent all and closed its side still reads its answer.
        .half_close(true);
    let promises = Arc::new(Promises::default());
    let io = Held::new(io, Arc::clone(&promises));
    let service = service_fn(|request: Request<Incoming>| {
        let (shared, promises) = (Arc::clone(&shared), Arc::clone(&promises));
        let (stopping, in_use) = (stopping.clone(), usage.begin());
        let version = request.version();
        async move {
            let mut reply = answer(shared, peer, Some(&promises), request).await;
            if stopping.has_changed().is_err() {
                // The client must not send another here.
                reply
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(usage::track(reply, version, in_use))
        }
    });
    let mut serving = pin!(builder.serve_connection(io, service));
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

/// What a connection of HTTP/2 has done ever.
struct Activity {
    /// Requests.
    begun: AtomicU64,
    /// Those whose answers have begun.
    answered: AtomicU64,
    /// Pieces of answers that the client has made room for.
    moved: Arc<AtomicU64>,
    /// Places for answers that are not taken.
    untaken: Arc<Semaphore>,
    /// Questions with a place whose answers are still being made.
    asking: AtomicU64,
}

impl Default for Activity {
    fn default() -> Self {
        Activity {
            begun: AtomicU64::default(),
            answered: AtomicU64::default(),
            moved: Arc::default(),
            untaken: Arc::new(Semaphore::new(UNTAKEN_MAX)),
            asking: AtomicU64::default(),
        }
    }
}

impl Activity {
    /// Requests begun and pieces moved, if no request waits for its answer.
    fn at_rest(&self) -> Option<u64> {
        let answered = self.answered.load(Ordering::Acquire);
        let begun = self.begun.load(Ordering::Acquire);
        (begun == answered).then(|| begun + self.moved.load(Ordering::Relaxed))
    }

    /// A place for an answer; none where the client takes none of those before it.
    ///
    /// Blocks: while answers before it are being made, and then for `within`
    async fn place(&self, within: Duration) -> Option<OwnedSemaphorePermit> {
        loop {
            let waited = timeout(within, Arc::clone(&self.untaken).acquire_owned()).await;
            match waited {
                Ok(place) => return place.ok(),
                // The gateway's own time is not the client's fault.
                Err(_) if self.asking.load(Ordering::Relaxed) > 0 => {}
                Err(_) => return None,
            }
        }
    }
}

/// Counts a request as answered, also one that its client has reset.
struct InFlight(Arc<Activity>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.answered.fetch_add(1, Ordering::Release);
    }
}

/// Counts a question as one whose answer is being made, also where its client resets it.
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
async fn answer_in_place(
    shared: Arc<Shared>,
    peer: Peer,
    activity: &Activity,
    in_use: InUse,
    request: Request<Incoming>,
) -> Response<Taking> {
    let in_use = Some(in_use);
    let moved = Arc::clone(&activity.moved);
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let reply = answer(shared, peer, None, request).await;
        return backpressure::bind(reply, None, moved, in_use);
    }
    let mut place = activity.place(shared.context.settings.write_timeout).await;
    if place.is_none() {
        metrics::http_shed("untaken");
        let detail = "the answers before this one on its connection are not taken";
        let refusal = Problem::new(Kind::Overloaded, detail).into_reply();
        return backpressure::bind(refusal, None, moved, in_use);
    }
    let asking = Asking::begin(&activity.asking);
    let reply = answer(shared, peer, None, request).await;
    drop(asking);
    // Live changes have a bound of their own, and are never taken to their end.
    let kind = reply.headers().get(CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes() == EVENT_STREAM.as_bytes()) {
        place = None;
    }
    backpressure::bind(reply, place, moved, in_use)
}

async fn serve_http2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    io: StallGuard<S>,
    served: Served,
) -> Ended {
    let Served {
        peer,
        usage,
        shared,
        mut stopping,
    } = served;
    let settings = &shared.context.settings;
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
    let service = service_fn(|request| {
        let shared = Arc::clone(&shared);
        activity.begun.fetch_add(1, Ordering::AcqRel);
        let in_flight = InFlight(Arc::clone(&activity));
        let in_use = usage.begin();
        async move {
            let in_flight = in_flight;
            let reply = answer_in_place(shared, peer, &in_flight.0, in_use, request);
            Ok::<_, Infallible>(reply.await)
        }
    });
    let mut serving = pin!(builder.serve_connection(io, service));
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
            // hyper's timeouts of heads and of silence are those of HTTP/1.1 alone. An answer that is
            // not taken is no idle connection, and neither is one that has never asked.
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
    async fn a_waiting_client_is_not_taken_for_one_that_stalls() {
        let within = Duration::from_millis(20);
        let activity = Activity::default();
        let all = Arc::clone(&activity.untaken).acquire_many_owned(UNTAKEN_MAX as u32);
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
