//! Answers.

use std::io;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Body as HttpBody;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

/// What an answer carries: nearly always bytes that are there when its head is sent, and
/// nothing is allocated for that; else a stream, whose length nobody knows. An error in a stream
/// cuts the connection, which is how a client learns that it has not got everything.
pub(crate) type Body = Either<Full<Bytes>, UnsyncBoxBody<Bytes, io::Error>>;

/// An answer.
pub(crate) type Reply = Response<Body>;

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Makes an answer with a body of some type.
pub(crate) fn with_body(status: StatusCode, kind: HeaderValue, body: impl Into<Bytes>) -> Reply {
    reply(status, kind, Either::Left(Full::new(body.into())))
}

/// Makes an answer whose body comes in pieces.
///
/// The body is asked for a piece only when the one before is on its way, so that what a slow
/// client holds is bounded by the connection's own buffer.
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

/// Makes an answer without a body.
pub(crate) fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(Either::Left(Full::default()));
    *reply.status_mut() = status;
    reply
}
