//! One connection, from its first byte to its end.
//!
//! With TLS, the handshake decides between HTTP/1.1 and HTTP/2. Without TLS, the first bytes do: an HTTP/2 client
//! begins with a preface that no HTTP/1.1 request can have. They are read once per connection, into 24 bytes, and
//! then passed on to hyper, so that HTTP/1.1 requests pay nothing for the choice. A socket that sends nothing at
//! first is closed after the time limit of a head. Between two requests a connection has much longer.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, timeout};
use tokio_rustls::TlsAcceptor;

use super::activity::{Activity, answer_in_place};
use super::deferred::{DeferredResponses, DeferringIo};
use super::service::Service;
use super::socket::Socket;
use super::stall::{Limits, StallGuard};
use super::tls::Tls;
use super::usage;
use super::usage::Usage;
use super::when_woken::{ConnectionWaker, WhenWoken};
use crate::auth::Fingerprint;
use crate::http::context::Settings;
use crate::http::request::auth::Peer;
use crate::http::request::host::AcceptedHost;
use crate::http::request::poll;

/// The largest HTTP/1.1 head, and the most that is read of a body at once. Why 64 KiB: a body of 500 readings then
/// needs one or two reads, and 10,000 slow connections take little memory.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// The most header fields of an HTTP/1.1 request.
const HEADERS_MAX: usize = 64;

/// The first bytes of an HTTP/2 client (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The most concurrent requests on one connection.
const STREAMS_MAX: u32 = 128;
/// The largest HTTP/2 head, decoded. It bounds CONTINUATION frames too.
const HEAD_BYTES_MAX: u32 = 32 << 10;
/// The HTTP/2 flow-control window: how much a client may send of one body, and of all bodies, before the gateway
/// reads it. Each connection can take this much memory in addition to the budget for readings.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// The most that is buffered of responses that a client does not read.
const SEND_BYTES_MAX: usize = 64 << 10;
/// How many streams a client may open and reset at once, or make the gateway reset, before its connection is
/// closed (CVE-2023-44487).
const RESETS_MAX: usize = 32;
/// How often a silent HTTP/2 client is pinged, and how long its reply may take.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// How long open connections still accept requests after the gateway begins to stop. A client that sent before it could
/// know of the stop still gets a response. Why 250 ms: this is longer than a round trip across a continent, and short
/// compared with the time that the writers take to stop.
const LAST_CALL: Duration = Duration::from_millis(250);

/// Serves one connection to its end.
///
/// Blocks: until the client closes it, it is idle or stuck for too long, or `stopping` changes and its requests in
///         flight are finished
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
        host: AcceptedHost::default(),
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
                    // Boxed, like HTTP/2, so that the task of a plain connection stays small.
                    Box::pin(encrypted(stream, tls, served)).await
                }
                None => plain(stream, served).await,
            }
        }
    };
    if let Err(error) = served {
        // Only at debug level, because the gateway cannot repair what clients do to their connections.
        tracing::debug!(%error, "a connection ended with an error");
    }
}

/// What is needed to serve a connection.
struct Served<A> {
    peer: Peer,
    usage: Arc<Usage>,
    service: Arc<A>,
    stopping: watch::Receiver<()>,
}

/// The HTTP version of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

impl<A: Service> Served<A> {
    fn settings(&self) -> &Settings {
        &self.service.context().settings
    }

    /// Limits how long a connection may do nothing. `early` are the bytes read so far.
    fn guard<S>(&self, stream: S, early: Bytes, protocol: Protocol) -> StallGuard<S> {
        let settings = self.settings();
        let limits = Limits {
            write: settings.write_timeout,
            // HTTP/2 has its own deadlines between requests.
            head: (protocol == Protocol::Http1).then_some(settings.header_timeout),
            idle: settings.idle_timeout,
        };
        StallGuard::new(stream, early, limits, Arc::clone(&self.usage))
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
    let io = served.guard(stream, early, protocol);
    match protocol {
        Protocol::Http1 => serve_http1(io, served).await,
        // Boxed, so that the task of an HTTP/1.1 connection stays small.
        Protocol::Http2 => Box::pin(serve_http2(io, served)).await,
    }
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
    let io = served.guard(stream, Bytes::new(), protocol);
    match protocol {
        Protocol::Http1 => serve_http1(io, served).await,
        Protocol::Http2 => serve_http2(io, served).await,
    }
}

/// Waits until the gateway stops, and then until requests that were already sent have arrived.
async fn last_call(mut stopping: watch::Receiver<()>) {
    // The sender is only ever dropped.
    stopping.changed().await.ok();
    tokio::time::sleep(LAST_CALL).await;
}

/// Waits until the connection must not accept further requests.
async fn must_end(stopping: watch::Receiver<()>, usage: &Usage) {
    tokio::select! {
        () = last_call(stopping) => {}
        () = usage.evicted() => {}
    }
}

/// Reads until the HTTP version is clear. Also returns the bytes that were read.
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
        // The guard has a timeout instead, which distinguishes a head from an idle connection.
        .header_read_timeout(None)
        .max_buf_size(BUFFER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        // A device that has closed its sending side still reads its response.
        .half_close(true);
    let deferred = Arc::new(DeferredResponses::default());
    let io = DeferringIo::new(io, Arc::clone(&deferred));
    // The service's futures borrow these from the connection.
    let (service, responses) = (&*service, &*deferred);
    let (peer, stopping) = (&peer, &stopping);
    let answering = service_fn(|request: Request<Incoming>| {
        let in_use = usage.begin();
        let version = request.version();
        async move {
            let mut reply = service.answer(peer, request, Some(responses)).await;
            if stopping.has_changed().is_err() {
                // The client must not send another request on this connection.
                reply
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(usage::track(reply, version, in_use))
        }
    });
    let mut serving = pin!(builder.serve_connection(io, answering));
    let mut must_end = WhenWoken::new(must_end(stopping.clone(), &usage));
    let (mut waker, mut leaving) = (ConnectionWaker::default(), false);
    let ended = poll_fn(|cx| {
        let _begun = poll::begin();
        if !leaving && must_end.poll(cx).is_ready() {
            leaving = true;
            serving.as_mut().graceful_shutdown();
        }
        let waker = waker.of(cx.waker());
        serving.as_mut().poll(&mut Context::from_waker(waker))
    });
    ended.await?;
    Ok(())
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
    let (activity, peer) = (Arc::new(Activity::default()), Arc::new(peer));
    let answering = service_fn(|request| {
        let (service, peer) = (Arc::clone(&service), Arc::clone(&peer));
        let (in_flight, in_use) = (activity.begin(), usage.begin());
        async move {
            let reply = answer_in_place(service, peer, in_flight, in_use, request);
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
            // hyper bounds heads and silence only for HTTP/1.1. A connection with an unread response is not idle. A
            // connection that has had no request yet is subject to the header timeout.
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
