//! Backpressure for HTTP/2: responses to a client that may not read them.
//!
//! An HTTP/1.1 connection has one response at a time, and is closed if its socket accepts nothing. An HTTP/2
//! connection has as many responses as streams. If a client opens no flow-control window, all of them stay in the
//! gateway's memory while the socket stays writable. So each connection has a few permits for unread responses. A
//! query waits for a permit, and its response keeps it until it was read. Responses are handed to hyper in pieces,
//! because everything that hyper has taken counts as read.

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

/// The most unread responses of a connection. Why 8: a browser requests six files at once.
pub(crate) const UNREAD_MAX: usize = 8;
/// The size of a piece, and the most that hyper buffers per stream.
const PIECE_BYTES: usize = 16 << 10;

/// The body of a response, handed over in pieces.
pub(crate) struct PacedBody {
    body: Body,
    /// The rest of the body's last frame.
    rest: Bytes,
    /// Counts the pieces of all responses on the connection.
    moved: Arc<AtomicU64>,
    _place: Option<OwnedSemaphorePermit>,
    /// Keeps the connection in use. `None` means that the response belongs to no request.
    _in_use: Option<InUse>,
}

/// Binds a response to its permit.
pub(crate) fn bind(
    reply: Reply,
    place: Option<OwnedSemaphorePermit>,
    moved: Arc<AtomicU64>,
    in_use: Option<InUse>,
) -> Response<PacedBody> {
    reply.map(|body| PacedBody {
        body,
        rest: Bytes::new(),
        moved,
        _place: place,
        _in_use: in_use,
    })
}

impl HttpBody for PacedBody {
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
