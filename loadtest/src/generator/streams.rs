//! HTTP/2: a connection with several streams, each of which sends one request after the other.
//!
//! hyper's client costs more than hand-written HTTP, so compare only with a responder driven by the same client.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::{Method, Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::Options;
use super::body::Stream;
use super::conn::{Conn, RECONNECT};
use super::response::{self, Answer};
use super::stats::Stats;

/// A connection that several streams share. The first one that needs it opens it.
#[derive(Debug, Default)]
pub(super) struct Link(Mutex<Option<SendRequest<Full<Bytes>>>>);

impl Link {
    /// The connection, or a new one if it is broken.
    async fn get(&self, authority: &str) -> Result<SendRequest<Full<Bytes>>, String> {
        let mut link = self.0.lock().await;
        if let Some(sender) = link.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let socket = TcpStream::connect(authority)
            .await
            .map_err(|e| e.to_string())?;
        socket.set_nodelay(true).map_err(|e| e.to_string())?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
            .await
            .map_err(|e| e.to_string())?;
        // A connection error shows up in the requests on it.
        tokio::spawn(async move { drop(connection.await) });
        *link = Some(sender.clone());
        Ok(sender)
    }
}

/// The requests of one HTTP/2 stream, with its own devices.
#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) conn: Conn,
    pub(super) link: Arc<Link>,
}

impl Sequence {
    /// Sends until the time is over.
    pub(super) async fn run(mut self) -> Stats {
        while !self.conn.is_over() {
            self.conn.fill();
            let progress = &mut self.conn.progress;
            let Some(source) = progress.in_flight.back().map(|request| request.source) else {
                self.conn.rest().await;
                continue;
            };
            let body = Full::new(Bytes::from(std::mem::take(&mut progress.output)));
            let parts = self.conn.sources[source].template.clone();
            if let Err(error) = self.one(Request::from_parts(parts, body)).await {
                self.conn.broken(error);
                tokio::time::sleep(RECONNECT).await;
            }
        }
        self.conn.stats.sent = self.conn.sources.iter().map(|source| source.sent).collect();
        self.conn.stats
    }

    async fn one(&mut self, request: Request<Full<Bytes>>) -> Result<(), String> {
        let mut sender = self.link.get(&self.conn.authority).await?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|e| e.to_string())?;
        let status = response.status().as_u16();
        let seconds = response.headers().get(RETRY_AFTER);
        let seconds = seconds.and_then(|value| value.to_str().ok()?.parse().ok());
        let body = response.into_body().collect().await;
        let body = body.map_err(|e| e.to_string())?.to_bytes();
        let answer = Answer {
            status,
            accepted: response::accepted(&body).unwrap_or(0),
            retry_after: seconds.map(std::time::Duration::from_secs),
            closes: false,
            bytes: body.len(),
        };
        let now = std::time::Instant::now();
        self.conn.count(answer, now).map_err(|e| e.to_string())
    }
}

/// The head of every request of a stream of readings.
pub(super) fn template(options: &Options, stream: Stream) -> Parts {
    let query = options.ack.as_ref().map(|ack| format!("?ack={ack}"));
    let uri = format!(
        "{}/v1/ingestion/{}{}",
        options.url,
        stream.name(),
        query.unwrap_or_default()
    );
    let mut request = Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        .uri(uri)
        .header(CONTENT_TYPE, options.format.content_type());
    if options.gzip {
        request = request.header(CONTENT_ENCODING, "gzip");
    }
    if let Some(key) = &options.key {
        request = request.header(AUTHORIZATION, format!("Bearer {}", key.trim()));
    }
    // The parts come from a parsed URL and constants; characters that a header cannot hold are removed from the
    // key.
    let request = request.body(()).unwrap_or_default();
    request.into_parts().0
}
