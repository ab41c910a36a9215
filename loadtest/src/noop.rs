//! A responder that stores nothing: it reads a request's body, counts its readings and answers as
//! the gateway would. What the generator reaches against it is the generator's own limit.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::output::report;

/// Serve a responder that stores nothing, to measure the generator's own limit.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where to listen; port 0 picks one
    #[arg(long, default_value = "127.0.0.1:3999")]
    listen: std::net::SocketAddr,
}

/// Serves until the process ends.
///
/// # Errors
/// The address cannot be listened on, or the runtime cannot start.
pub(crate) fn run(options: Options) -> std::io::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(serve(options))
}

async fn serve(options: Options) -> std::io::Result<()> {
    let listener = TcpListener::bind(options.listen).await?;
    report(&format!("listening on http://{}\n", listener.local_addr()?))?;
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .pipeline_flush(true)
                .serve_connection(TokioIo::new(socket), service_fn(answer));
            // A client that goes away is no concern of a responder without state.
            drop(connection.await);
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let Ok(body) = request.into_body().collect().await else {
        let mut refused = Response::new(Full::default());
        *refused.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(refused);
    };
    // No reading holds an object within, so braces count readings in every form of the body.
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
