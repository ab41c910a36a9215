//! The gateway's responses.

use std::io;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Body as HttpBody;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

/// The body of a response. Nearly always its bytes exist when the head is sent, and need no further allocation.
/// Otherwise it is a stream of unknown length. An error in the stream closes the connection, so that the client
/// sees that the response is truncated.
pub(crate) type Body = Either<Full<Bytes>, UnsyncBoxBody<Bytes, io::Error>>;

/// A response.
pub(crate) type Reply = Response<Body>;

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// The media type of server-sent events.
pub(crate) const EVENT_STREAM: &str = "text/event-stream";

/// Makes a response with a body.
pub(crate) fn with_body(status: StatusCode, kind: HeaderValue, body: impl Into<Bytes>) -> Reply {
    reply(status, kind, Either::Left(Full::new(body.into())))
}

/// Makes a response with a streamed body.
///
/// hyper polls for the next piece only after it has sent the previous one, so a slow client takes no more memory
/// than the buffer of its connection.
pub(crate) fn streamed<B>(status: StatusCode, kind: HeaderValue, body: B) -> Reply
where
    B: HttpBody<Data = Bytes, Error = io::Error> + Send + 'static,
{
    reply(status, kind, Either::Right(body.boxed_unsync()))
}

fn reply(status: StatusCode, kind: HeaderValue, body: Body) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, kind);
    reply
}

/// Makes a response without a body.
pub(crate) fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(Either::Left(Full::default()));
    *reply.status_mut() = status;
    reply
}
