//! `GET /v1/live/stream`: changes of live status as server-sent events.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`filter`] | which changes a listener gets |
//! | [`ring`] | the latest events, in bounded memory |
//! | [`feed`] | connects the poll, which publishes, with the listeners, which read |
//! | [`poll`] | looks for changes in the database |
//!
//! A listener has no queue of its own: it reads the ring at its own cursor, whenever its connection accepts more.
//! A listener that falls behind the ring gets a `reset` event and its stream ends. If it reads nothing at all, its
//! connection's write timeout ends it.
//!
//! Source: the HTML standard, §9.2 Server-sent events

pub(crate) mod feed;
mod filter;
pub(crate) mod poll;
mod ring;

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::header::{CACHE_CONTROL, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use tokio::time::{Instant, timeout_at};

use crate::http::request::call::Call;
use crate::http::response::problem::Problem;
use crate::http::response::reply;
use crate::http::response::reply::{EVENT_STREAM, Reply};
use crate::postgres::Written;
use feed::{Listener, Next, Reset};
use filter::Filter;

/// The longest silence, after which a comment is sent. Why 5 s: a vanished client is detected by the second write
/// after it vanished, and until then it counts as a listener. Proxies close connections that are silent for 30 s.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long a stream may last. After that it ends, and the client reconnects and resumes. So the key is checked
/// again, and load balancers can move clients.
const LIFETIME: Duration = Duration::from_secs(15 * 60);

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// nginx buffers responses unless this header forbids it.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Responds with a stream.
pub(crate) async fn open(call: Call<'_>) -> Result<Reply, Problem> {
    let filter = Filter::parse(&call.query)?;
    let last = call.parts.headers.get(LAST_EVENT_ID);
    let last = last.map(|id| id.to_str().unwrap_or_default());
    let kind = HeaderValue::from_static(EVENT_STREAM);
    let mut reply = if call.parts.method == Method::HEAD {
        reply::with_body(StatusCode::OK, kind, Bytes::new())
    } else {
        let listener = call.context.live.listen(filter, last).await?;
        let body = StreamBody::new(stream::unfold(Sending::new(listener), Sending::next));
        reply::streamed(StatusCode::OK, kind, body)
    };
    let headers = reply.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    Ok(reply)
}

/// A stream that is being sent to a listener.
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

    /// The next part of the body. hyper polls for it once the previous part is on its way.
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
            return Some(greeting(&self.listener).into());
        }
        let silent_until = Instant::now() + HEARTBEAT;
        match timeout_at(silent_until.min(self.until), self.listener.next()).await {
            Ok(Next::Events(text)) => Some(text),
            Ok(Next::Reset(why)) => {
                self.ended = why == Reset::TooSlow;
                Some(reset(why, &self.listener).into())
            }
            Ok(Next::End) => None,
            Err(_) if Instant::now() >= self.until => None,
            Err(_) => Some(Bytes::from_static(b":\n\n")),
        }
    }
}

/// The first event. Every change from here on will be in the stream.
fn greeting(listener: &Listener) -> String {
    let number = listener.number();
    let data = data(None, listener.seen());
    format!("retry: 2000\nevent: ready\nid: {number}\ndata: {data}\n\n")
}

/// The event after lost changes. The client must reload what it shows.
fn reset(why: Reset, listener: &Listener) -> String {
    let number = listener.number();
    let data = data(Some(why), listener.seen());
    format!("event: reset\nid: {number}\ndata: {data}\n\n")
}

/// What an event says, with the token with which the client must load what it shows. A replica that is behind the
/// stream would show a state whose changes are no events any more.
fn data(why: Option<Reset>, seen: Option<Written>) -> String {
    // Neither needs an escape.
    let why = why.map(|why| format!("\"reason\":\"{}\"", why.name()));
    let seen = seen.map(|token| format!("\"readAfter\":\"{token}\""));
    let members: Vec<String> = why.into_iter().chain(seen).collect();
    format!("{{{}}}", members.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_carries_a_token_only_with_read_replicas() {
        let token = Some("7.1.a".parse().unwrap());
        assert_eq!(data(None, None), "{}");
        assert_eq!(data(None, token), r#"{"readAfter":"7.1.a"}"#);
        let late = Some(Reset::TooSlow);
        assert_eq!(data(late, None), r#"{"reason":"too_slow"}"#);
        let both = r#"{"reason":"too_slow","readAfter":"7.1.a"}"#;
        assert_eq!(data(late, token), both);
    }
}
