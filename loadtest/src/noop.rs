//! A responder that stores nothing. It reads a request's body, counts its readings and responds like the gateway,
//! to measure the generator's own limit.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use crate::output::report;

/// Serve a responder that stores nothing, to measure the generator's own limit.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The address to listen on; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:3999")]
    listen: SocketAddr,
    /// Speak HTTP/2 (with prior knowledge)
    #[arg(long)]
    http2: bool,
}

/// Serves until the process ends.
///
/// # Errors
/// The address is not available, or the runtime cannot start.
pub(crate) fn run(options: Options) -> io::Result<()> {
    let listener = std::net::TcpListener::bind(options.listen)?;
    report(&format!("listening on http://{}\n", listener.local_addr()?))?;
    block_on(listener, options.http2)
}

/// Serves on this thread only, which uses one core.
fn block_on(listener: std::net::TcpListener, http2: bool) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(serve(listener, http2))
}

async fn serve(listener: std::net::TcpListener, http2: bool) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let socket = TokioIo::new(socket);
        // The responder has no state, so errors of disconnecting clients are ignored.
        if http2 {
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(socket, service_fn(answer));
            tokio::spawn(async move { drop(connection.await) });
        } else {
            let connection = hyper::server::conn::http1::Builder::new()
                .pipeline_flush(true)
                .serve_connection(socket, service_fn(answer));
            tokio::spawn(async move { drop(connection.await) });
        }
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let Ok(body) = request.into_body().collect().await else {
        let mut refused = Response::new(Full::default());
        *refused.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(refused);
    };
    // No reading contains an object, so braces can be counted in every format.
    let readings = body.to_bytes().iter().filter(|byte| **byte == b'{').count();
    let text = format!(
        r#"{{"success":true,"accepted":{readings},"rejected":0,"ack":"durable","errors":[]}}"#
    );
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = StatusCode::ACCEPTED;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
