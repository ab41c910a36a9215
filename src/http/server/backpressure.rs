//! Answers of HTTP/2 on their way to a client that may not take them.
//!
//! A connection of HTTP/1.1 has one answer at a time, and is closed when its socket takes none of it. One of
//! HTTP/2 has as many as it has streams, and a client that opens no window lets each of them lie whole
//! in the gateway's memory while the socket stays free. So questions wait for a place, of which a
//! connection has a few, an answer keeps its place until it is taken, and leaves in pieces, because
//! what hyper has been given counts as taken.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use super::usage::InUse;
use crate::http::response::reply::{Body, Reply};

/// Answers of a connection that are not taken. Why 8: a page asks for six files at once.
pub(crate) const UNTAKEN_MAX: usize = 8;
/// What hyper is given of an answer at once, and may hold of each stream.
const PIECE_BYTES: usize = 16 << 10;

/// An answer that leaves in pieces.
pub(crate) struct Taking {
    body: Body,
    /// What is left of the piece that the body gave last.
    rest: Bytes,
    /// Counts the pieces of all answers of the connection.
    moved: Arc<AtomicU64>,
    _place: Option<OwnedSemaphorePermit>,
    /// Keeps the connection in use; `None` for what is no request.
    _in_use: Option<InUse>,
}

/// Binds an answer to its place among the untaken ones.
pub(crate) fn bind(
    reply: Reply,
    place: Option<OwnedSemaphorePermit>,
    moved: Arc<AtomicU64>,
    in_use: Option<InUse>,
) -> Response<Taking> {
    reply.map(|body| Taking {
        body,
        rest: Bytes::new(),
        moved,
        _place: place,
        _in_use: in_use,
    })
}

impl HttpBody for Taking {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.rest.is_empty() {
            match std::task::ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
            }
        }
        self.moved.fetch_add(1, Ordering::Relaxed);
        let length = self.rest.len().min(PIECE_BYTES);
        let piece = self.rest.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let of_body = self.body.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = of_body.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(of_body.lower() + rest);
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::response::reply::{JSON, with_body};
    use http_body_util::BodyExt;
    use hyper::StatusCode;
    use tokio::sync::Semaphore;

    #[tokio::test]
    async fn an_answer_keeps_its_place_until_its_last_piece() {
        let places = Arc::new(Semaphore::new(1));
        let place = Arc::clone(&places).acquire_owned().await.ok();
        let moved = Arc::new(AtomicU64::new(0));
        let whole = vec![b'x'; 2 * PIECE_BYTES + 1];
        let reply = with_body(StatusCode::OK, JSON, whole);
        let mut body = bind(reply, place, Arc::clone(&moved), None).into_body();
        let mut lengths = Vec::new();
        while !body.is_end_stream() {
            assert_eq!(places.available_permits(), 0);
            let left = body.size_hint().exact().unwrap();
            let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(body.size_hint().exact(), Some(left - piece.len() as u64));
            lengths.push(piece.len());
        }
        assert_eq!(lengths, [PIECE_BYTES, PIECE_BYTES, 1]);
        assert_eq!(moved.load(Ordering::Relaxed), 3);
        drop(body);
        assert_eq!(places.available_permits(), 1);
    }
}
