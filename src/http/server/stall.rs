//! Closes a connection whose client does not read its response, or does not send its next request.
//!
//! A client that never reads would occupy its connection forever, because hyper does not limit how long it writes.
//! hyper does limit how long it reads a head, but its limit includes the idle time between two requests, which may
//! be much longer (`--idle-timeout`). So this guard limits both. A timer is armed only while nothing moves, is
//! reset only if it would fire too late, and is polled only when it fires.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};

use super::usage::Usage;
use super::when_woken::WhenWoken;
use crate::http::request::poll;

/// How long a connection may make no progress.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// While bytes wait to be written.
    pub(crate) write: Duration,
    /// From the first byte of a head to its last. `None` means that heads and idle times are limited elsewhere.
    pub(crate) head: Option<Duration>,
    /// Between two requests.
    pub(crate) idle: Duration,
}

/// A connection with limits on how long it may make no progress.
pub(crate) struct StallGuard<S> {
    inner: TokioIo<S>,
    /// Bytes that were read before HTTP took over. They are read first.
    early: Bytes,
    limits: Limits,
    /// Created when a write first gets stuck, then reused.
    timer: Option<WhenWoken<Sleep>>,
    stuck: bool,
    usage: Arc<Usage>,
    reading: Reading,
}

/// What a connection without a request in flight waits for, and until when.
struct Reading {
    waits_for: WaitsFor,
    until: Instant,
    /// The number of requests begun when `waits_for` was set.
    begun: u32,
    timer: Option<WhenWoken<Sleep>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WaitsFor {
    /// The first byte of a request.
    Request,
    /// The rest of a head.
    Head,
    /// Unknown: another request has begun since.
    Unknown,
}

impl Reading {
    /// Notices whether another request has begun since.
    fn notice(&mut self, usage: &Usage) {
        let begun = usage.begun();
        if begun != self.begun {
            self.begun = begun;
            self.waits_for = WaitsFor::Unknown;
        }
    }

    fn wait_for(&mut self, what: WaitsFor, within: Duration) {
        if self.waits_for != what {
            self.waits_for = what;
            self.until = Instant::from_std(poll::moment()) + within;
        }
    }

    /// Ready means that the time is over.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = self.until;
        let timer = self
            .timer
            .get_or_insert_with(|| WhenWoken::new(sleep_until(until)));
        if timer.get().deadline() > until {
            timer.change().reset(until);
        }
        while timer.poll(cx).is_ready() {
            if timer.get().deadline() >= until {
                return Poll::Ready(());
            }
            // The timer was set to an earlier deadline.
            timer.change().reset(until);
        }
        Poll::Pending
    }
}

impl<S> StallGuard<S> {
    pub(crate) fn new(stream: S, early: Bytes, limits: Limits, usage: Arc<Usage>) -> Self {
        let reading = Reading {
            // A client that connects is about to send a request.
            waits_for: WaitsFor::Head,
            until: Instant::now() + limits.head.unwrap_or(limits.idle),
            begun: usage.begun(),
            timer: None,
        };
        StallGuard {
            inner: TokioIo::new(stream),
            early,
            limits,
            timer: None,
            stuck: false,
            usage,
            reading,
        }
    }

    /// Limits how long to read from a connection without a request in flight.
    fn watch_reading(
        &mut self,
        cx: &mut Context<'_>,
        read: Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        let Some(head) = self.limits.head else {
            return read;
        };
        self.reading.notice(&self.usage);
        if self.usage.is_busy() {
            return read;
        }
        if read.is_ready() {
            self.reading.wait_for(WaitsFor::Head, head);
            return read;
        }
        if self.reading.waits_for != WaitsFor::Head {
            self.reading.wait_for(WaitsFor::Request, self.limits.idle);
        }
        self.reading
            .poll_over(cx)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stuck = false;
            return written;
        }
        let until = Instant::now() + self.limits.write;
        let timer = self
            .timer
            .get_or_insert_with(|| WhenWoken::new(sleep_until(until)));
        if !self.stuck {
            self.stuck = true;
            timer.change().reset(until);
        }
        match timer.poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> Read for StallGuard<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.early.is_empty() {
            let read = Pin::new(&mut this.inner).poll_read(cx, buf);
            return this.watch_reading(cx, read);
        }
        let bytes = this.early.len().min(buf.remaining());
        buf.put_slice(&this.early[..bytes]);
        this.early.advance(bytes);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Write for StallGuard<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write(cx, buf);
        this.watch(cx, written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.inner).poll_flush(cx);
        this.watch(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write_vectored(cx, bufs);
        this.watch(cx, written)
    }
}
