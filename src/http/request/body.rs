//! Receives a body within its limits, and discards the rest of a refused one.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::header::EXPECT;
use tokio::time::{timeout, timeout_at};

use super::fields::{Field, Fields};
use super::poll;
use crate::http::response::problem::{Kind, Problem};
use crate::ingest::admission::{Gate, Memory, Share, Shed};

/// The most bytes that are read of a refused body. A client that writes its whole body before it reads can then still
/// get the response. Why 32 MiB: even a body of four times the default limit is read to its end. If the rest is larger,
/// the connection is closed.
const DISCARD_BYTES_MAX: usize = 32 << 20;
/// The longest time for reading a refused body.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);
/// The first allocation for a body of several pieces.
const FIRST_BYTES: usize = 64 << 10;

type NextFrame = Result<Frame<Bytes>, hyper::Error>;

/// The body of a request, as it arrives.
pub(crate) struct Upload {
    incoming: Incoming,
    ended: bool,
    /// Whether the client waits for `100 Continue` before it sends the body. hyper sends it when the body is first
    /// polled.
    expects_continue: bool,
}

/// The limits of a body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits<'c> {
    /// In bytes, before and after decompression.
    pub(crate) bytes_max: usize,
    /// The sender's share of the memory.
    pub(crate) share: Option<&'c Arc<Share>>,
    /// From the head to the end of the body.
    pub(crate) timeout: Duration,
}

/// A received body, and the memory that is reserved for it.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) bytes: Bytes,
    pub(crate) memory: Memory,
}

impl Upload {
    pub(crate) fn new(incoming: Incoming, fields: &Fields<'_>) -> Self {
        let ended = incoming.is_end_stream();
        Upload {
            incoming,
            ended,
            expects_continue: fields.expect != Field::Absent
                && fields
                    .all(EXPECT)
                    .iter()
                    .any(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")),
        }
    }

    /// Receives the whole body.
    ///
    /// Shape:  at most `limits.bytes_max` bytes; memory is reserved as they arrive, never ahead
    /// Cancel: the body is lost
    pub(crate) async fn receive(
        &mut self,
        gate: &Gate,
        limits: Limits<'_>,
    ) -> Result<Received, Problem> {
        let bytes_max = limits.bytes_max;
        // hyper has checked Content-Length and decodes chunks. A chunked body has no upper bound.
        let declared = self.incoming.size_hint().upper();
        if declared.is_some_and(|n| n > bytes_max as u64) {
            return Err(too_large(bytes_max));
        }
        self.expects_continue = false;
        let expected = declared
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(bytes_max);
        let deadline = poll::moment() + limits.timeout;
        let mut memory = gate.memory(limits.share);
        let mut first = Bytes::new();
        let mut rest: Vec<u8> = Vec::new();
        while let Some(piece) = self.piece(deadline).await? {
            let before = first.len() + rest.len();
            if piece.len() > bytes_max - before {
                return Err(too_large(bytes_max));
            }
            memory
                .grow(piece.len())
                .map_err(|shed| overloaded(gate, shed))?;
            if before == 0 {
                // A small body of one piece is not copied.
                first = piece;
            } else {
                let whole = if rest.is_empty() {
                    std::mem::take(&mut first)
                } else {
                    Bytes::new()
                };
                let needed = before + piece.len();
                if rest.capacity() < needed {
                    let capacity = (2 * needed).max(FIRST_BYTES).min(expected).max(needed);
                    rest.reserve_exact(capacity - rest.len());
                }
                rest.extend_from_slice(&whole);
                rest.extend_from_slice(&piece);
            }
        }
        let bytes = if rest.is_empty() {
            first
        } else {
            Bytes::from(rest)
        };
        Ok(Received { bytes, memory })
    }

    /// The next non-empty piece of the body; `None` at its end.
    async fn piece(&mut self, deadline: Instant) -> Result<Option<Bytes>, Problem> {
        loop {
            if self.ended {
                return Ok(None);
            }
            // A small body usually arrives with its head, and then needs no timer.
            let now = poll_fn(|cx| Poll::Ready(self.poll_frame(cx))).await;
            let frame = match now {
                Poll::Ready(frame) => frame,
                Poll::Pending => Box::pin(self.frame_until(deadline)).await?,
            };
            let Some(frame) = frame else {
                self.ended = true;
                return Ok(None);
            };
            let Ok(frame) = frame else {
                self.ended = true;
                let detail = "the body ended early, or its chunks are malformed";
                return Err(Problem::new(Kind::BadRequest, detail).close());
            };
            self.ended = self.incoming.is_end_stream();
            // Trailers are ignored.
            match frame.into_data() {
                Ok(data) if !data.is_empty() => return Ok(Some(data)),
                _ => {}
            }
        }
    }

    /// The next frame, if it arrives before the deadline.
    async fn frame_until(&mut self, deadline: Instant) -> Result<Option<NextFrame>, Problem> {
        let next = poll_fn(|cx| self.poll_frame(cx));
        timeout_at(deadline.into(), next).await.map_err(|_| {
            let detail = "the body did not arrive in time";
            Problem::new(Kind::BodyTimeout, detail).close()
        })
    }

    /// Polls the next frame.
    ///
    /// When a piece is taken from a body, hyper wakes the HTTP/1.1 connection to read the next one. After the last
    /// piece, that wake would only cause a poll that finds nothing to read, so it is withheld.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<NextFrame>> {
        let incoming = &mut self.incoming;
        let poll = || Pin::new(&mut *incoming).poll_frame(cx);
        let (frame, withheld) = poll::withhold_wakes(poll);
        if withheld && !incoming.is_end_stream() {
            cx.waker().wake_by_ref();
        }
        frame
    }

    /// Reads the rest of the body in the background, so that the client can finish sending it and read its
    /// response. Beyond a limit of bytes and time, the connection is closed.
    pub(crate) fn discard(mut self) {
        if self.ended || self.expects_continue {
            return;
        }
        let read = async move {
            let mut left = DISCARD_BYTES_MAX;
            while let Some(Ok(frame)) = self.incoming.frame().await {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                match left.checked_sub(bytes) {
                    Some(fewer) => left = fewer,
                    None => return,
                }
            }
        };
        // At most one per connection, because the next request begins where this body ends.
        tokio::spawn(timeout(DISCARD_TIMEOUT, read));
    }
}

/// The response to a request that admission refuses. Counts it as shed.
pub(crate) fn overloaded(gate: &Gate, shed: Shed) -> Problem {
    crate::metrics::http_shed(shed.reason());
    Problem::new(Kind::Overloaded, shed.to_string())
        .code(shed.reason())
        .retry_after(gate.retry_after_seconds(shed))
}

pub(crate) fn too_large(bytes_max: usize) -> Problem {
    let detail = format!("the body must have at most {bytes_max} bytes");
    Problem::new(Kind::BodyTooLarge, detail)
}
