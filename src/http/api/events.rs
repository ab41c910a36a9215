//! `GET /v1/live/stream`: changes of live status as server-sent events.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `filter` | what a listener wants to hear of |
//! | `ring` | the latest events, within a bound |
//! | `feed` | who looks for changes, and who listens |
//! | `poll` | looking for changes in the database |
//!
//! A listener has no queue of its own: it reads the ring at its own cursor, when its connection
//! takes more. Who falls behind the ring is told (`reset`) and ended; who takes nothing at all is
//! ended by the connection's own deadline.
//!
//! Source: the HTML standard, §9.2 Server-sent events

mod feed;
mod filter;
mod poll;
mod ring;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, timeout_at};

use crate::http::response::problem::Problem;
use crate::http::response::reply;
use crate::http::response::reply::Reply;
use crate::postgres::ReadPool;
use feed::{Feed, Heard, Listener, Reset};
use filter::Filter;

/// A comment is sent after so long a silence. Why 5 s: a client that has gone without a word is
/// found by the second write after it, and holds a listener's place until then; and proxies close
/// what is silent for 30 s.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// A stream is ended after so long; its client comes again and goes on where it was. So a key that
/// was revoked is asked for again, and balancers can move clients.
const LIFETIME: Duration = Duration::from_secs(15 * 60);

/// The type of the stream's answers.
pub(crate) const EVENT_STREAM: &str = "text/event-stream";
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// nginx holds answers back unless told.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The live stream of one server.
pub(crate) struct Live {
    feed: Arc<Feed>,
    polling: AbortHandle,
}

impl Live {
    /// Prepares the stream; the database is asked only while there are listeners. The task that asks
    /// ends only by [`Live::stop`] or by a panic.
    pub(crate) fn start(reads: ReadPool) -> (Self, JoinHandle<()>) {
        let feed = Feed::new();
        let task = tokio::spawn(poll::run(Arc::clone(&feed), reads));
        let polling = task.abort_handle();
        (Live { feed, polling }, task)
    }

    /// Ends every stream, so that the server can stop.
    pub(crate) fn stop(&self) {
        self.feed.stop();
        self.polling.abort();
    }

    /// Answers with a stream.
    pub(crate) async fn open(
        &self,
        method: &Method,
        headers: &HeaderMap,
        query: Option<&str>,
    ) -> Result<Reply, Problem> {
        let filter = Filter::parse(query)?;
        let last = headers
            .get(LAST_EVENT_ID)
            .map(|id| id.to_str().unwrap_or_default());
        let kind = HeaderValue::from_static(EVENT_STREAM);
        let mut reply = if *method == Method::HEAD {
            reply::with_body(StatusCode::OK, kind, Bytes::new())
        } else {
            let listener = self.feed.listen(filter, last).await?;
            let body = StreamBody::new(stream::unfold(Sending::new(listener), Sending::next));
            reply::streamed(StatusCode::OK, kind, body)
        };
        let headers = reply.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
        Ok(reply)
    }
}

/// A listener's answer on its way.
struct Sending {
    listener: Listener,
    greeted: bool,
    ended: bool,
    until: Instant,
}

impl Sending {
    fn new(listener: Listener) -> Self {
        Sending {
            listener,
            greeted: false,
            ended: false,
            until: Instant::now() + LIFETIME,
        }
    }

    /// The next piece of the body; hyper asks for it when the one before is on its way.
    async fn next(mut self) -> Option<(io::Result<Frame<Bytes>>, Self)> {
        let text = self.text().await?;
        Some((Ok(Frame::data(text)), self))
    }

    async fn text(&mut self) -> Option<Bytes> {
        if self.ended || Instant::now() >= self.until {
            return None;
        }
        if !self.greeted {
            self.greeted = true;
            return Some(greeting(&self.listener.number()).into());
        }
        let silent_until = Instant::now() + HEARTBEAT;
        match timeout_at(silent_until.min(self.until), self.listener.hear()).await {
            Ok(Heard::Events(text)) => Some(text),
            Ok(Heard::Reset(why, number)) => {
                self.ended = why == Reset::TooSlow;
                Some(reset(why, &number).into())
            }
            Ok(Heard::End) => None,
            Err(_) if Instant::now() >= self.until => None,
            Err(_) => Some(Bytes::from_static(b":\n\n")),
        }
    }
}

/// The first event: from here on no change is missed.
fn greeting(number: &str) -> String {
    format!("retry: 2000\nevent: ready\nid: {number}\ndata: {{}}\n\n")
}

/// Changes were missed: the client is to load anew what it shows.
fn reset(why: Reset, number: &str) -> String {
    format!(
        "event: reset\nid: {number}\ndata: {{\"reason\":\"{}\"}}\n\n",
        why.name()
    )
}
