//! Answers that wait for the log while the next request is already being read.
//!
//! hyper takes the requests of a connection of HTTP/1.1 one by one: the next is read when the one
//! before is answered. Were an answer made only once its readings are durable, sixteen requests sent
//! at once would cost sixteen syncs of the disk, one after the other. So a request whose readings are
//! on their way to the log is answered as far as hyper sees; the answer's bytes stay here, with all
//! that follow, until the log has promised. Sixteen requests then share one sync.
//!
//! Nothing leaves before its readings are durable, and answers keep the order of their requests. If
//! the log fails, what is held is thrown away: the first request that is left without its promise is
//! told 503 instead, and the connection ends.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncWrite};

use super::stall::StallGuard;
use crate::http::request::access_log::Story;
use crate::ingest::admission::Admitted;
use crate::metrics;

/// Requests of one connection that wait for the log at once; one more waits for its own promise
/// before the next is read. Why 64: a sync takes about as long as that many requests.
const PROMISES_MAX: usize = 64;
/// The bytes of answers that one connection holds.
const HELD_BYTES_MAX: usize = 64 << 10;

/// What a request is told that the log has failed.
const FAILED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
content-type: application/problem+json\r\nretry-after: 1\r\nconnection: close\r\n\
content-length: 130\r\n\r\n\
{\"type\":\"urn:wattgate:problem:log-failed\",\"title\":\"Write-ahead log failed\",\
\"status\":503,\"detail\":\"the write-ahead log has failed\"}";

/// The promises of one connection, between those who answer its requests and its socket.
#[derive(Default)]
pub(crate) struct Promises {
    /// How many the log has not kept yet.
    outstanding: AtomicUsize,
    /// Those whose answers have not reached the socket yet.
    made: Mutex<Vec<Promise>>,
}

/// Readings on their way into the log, and the request that brought them.
pub(crate) struct Promise {
    pub(crate) admitted: Admitted,
    pub(crate) story: Story,
}

impl Promises {
    /// Whether the next request may be answered before its readings are durable.
    pub(crate) fn have_room(&self) -> bool {
        self.outstanding.load(Ordering::Relaxed) < PROMISES_MAX
    }

    /// Holds the answer that is written next, and all after it, until the log has promised.
    pub(crate) fn make(&self, promise: Promise) {
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.push(promise);
    }
}

/// A promise, and the answers behind it.
struct Behind {
    /// The first byte that must not leave before; counted from the connection's first.
    from: u64,
    promise: Promise,
}

/// A connection that holds answers back.
pub(crate) struct Held<S> {
    inner: StallGuard<S>,
    promises: Arc<Promises>,
    waiting: VecDeque<Behind>,
    /// Bytes that have not left.
    bytes: BytesMut,
    /// How many bytes have left from there.
    sent: u64,
    failed: bool,
}

impl<S: AsyncWrite + Unpin> Held<S> {
    pub(crate) fn new(inner: StallGuard<S>, promises: Arc<Promises>) -> Self {
        Held {
            inner,
            promises,
            waiting: VecDeque::new(),
            bytes: BytesMut::new(),
            sent: 0,
            failed: false,
        }
    }

    /// Takes over what was promised since: it stands before all that is written from now on.
    fn adopt(&mut self) {
        if self.promises.outstanding.load(Ordering::Relaxed) == self.waiting.len() {
            return;
        }
        let from = self.sent + self.bytes.len() as u64;
        let made = self.promises.made.lock();
        let mut made = made.unwrap_or_else(PoisonError::into_inner);
        let behind = |promise| Behind { from, promise };
        self.waiting.extend(made.drain(..).map(behind));
    }

    /// Sends what may leave. Ready: all of it has left; more may wait for the log, which wakes.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(first) = self.waiting.front_mut() {
            let Poll::Ready(kept) = first.promise.admitted.poll_durable(cx) else {
                break;
            };
            if kept.is_err() {
                self.refuse();
                break;
            }
            self.promises.outstanding.fetch_sub(1, Ordering::Relaxed);
            if let Some(first) = self.waiting.pop_front() {
                first.promise.story.told();
            }
        }
        let end = self.sent + self.bytes.len() as u64;
        let until = self.waiting.front().map_or(end, |first| first.from);
        while self.sent < until {
            let free = &self.bytes[..(until - self.sent) as usize];
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, free))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.bytes.advance(written);
            self.sent += written as u64;
        }
        if self.failed {
            return Poll::Ready(Err(io::Error::other("the write-ahead log has failed")));
        }
        Poll::Ready(Ok(()))
    }

    /// Replaces what is held by the news that the log has failed.
    fn refuse(&mut self) {
        let Some(first) = self.waiting.front() else {
            return;
        };
        self.bytes.truncate((first.from - self.sent) as usize);
        self.bytes.extend_from_slice(FAILED);
        for behind in self.waiting.drain(..) {
            metrics::http_shed("log_failed");
            behind.promise.story.failed();
        }
        self.failed = true;
    }

    /// Takes bytes that must wait, if any must: what passes through is left to the caller.
    fn hold(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Option<Poll<io::Result<usize>>> {
        self.adopt();
        if self.waiting.is_empty() && self.bytes.is_empty() && !self.failed {
            return None;
        }
        if self.failed || self.bytes.len() >= HELD_BYTES_MAX {
            match self.poll_send(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Some(Poll::Ready(Err(error))),
                Poll::Pending => return Some(Poll::Pending),
            }
            if self.bytes.len() >= HELD_BYTES_MAX {
                // The first promise wakes.
                return Some(Poll::Pending);
            }
        }
        let before = self.bytes.len();
        bufs.iter()
            .for_each(|buf| self.bytes.extend_from_slice(buf));
        Some(Poll::Ready(Ok(self.bytes.len() - before)))
    }
}

impl<S: AsyncRead + Unpin> Read for Held<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> Write for Held<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match this.hold(cx, &[io::IoSlice::new(buf)]) {
            Some(held) => held,
            None => Pin::new(&mut this.inner).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.adopt();
        // What waits for the log does not count as unsent: hyper would read no further request.
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.adopt();
        ready!(this.poll_send(cx))?;
        if !this.waiting.is_empty() {
            return Poll::Pending;
        }
        Pin::new(&mut this.inner).poll_shutdown(cx)
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
        match this.hold(cx, bufs) {
            Some(held) => held,
            None => Pin::new(&mut this.inner).poll_write_vectored(cx, bufs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::server::stall::Limits;
    use crate::ingest::admission::{AckMode, Gate};
    use crate::wal::append::{Append, AppendError, LogBudget, Message, RequestRecords};
    use crate::wal::progress::Progress;
    use bytes::Bytes;
    use std::future::poll_fn;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, DuplexStream};

    /// A connection, its client, and a log that promises when the test says so.
    struct Connection {
        held: Held<DuplexStream>,
        client: DuplexStream,
        gate: Gate,
        log: crossbeam_channel::Receiver<Message>,
    }

    fn connection() -> Connection {
        let (server, client) = tokio::io::duplex(1 << 20);
        let patience = Duration::from_secs(20);
        let limits = Limits {
            write: patience,
            head: Some(patience),
            idle: patience,
        };
        let guard = StallGuard::new(server, Bytes::new(), limits, Arc::default());
        let (sender, log) = crossbeam_channel::bounded(8);
        let budget = Arc::new(LogBudget::default());
        budget.change(1000);
        Connection {
            held: Held::new(guard, Arc::default()),
            client,
            gate: Gate::new(64 << 10, budget, sender, Arc::new(Progress::new(1, 2))),
            log,
        }
    }

    impl Connection {
        /// What a request does: readings to the log, a promise, an answer.
        async fn answer(&mut self, text: &str) -> Append {
            let records = RequestRecords::new(2);
            let memory = self.gate.memory(None);
            let admitted = self.gate.submit(records, memory, AckMode::Durable);
            let story = Story::of_a_test();
            let admitted = admitted.unwrap_or_else(|shed| panic!("{shed}"));
            self.held.promises.make(Promise { admitted, story });
            self.write(text).await.unwrap();
            match self.log.recv().unwrap() {
                Message::Append(append) => append,
                Message::Close => panic!("nobody closes"),
            }
        }

        async fn write(&mut self, text: &str) -> io::Result<()> {
            let mut held = Pin::new(&mut self.held);
            let written = poll_fn(|cx| held.as_mut().poll_write(cx, text.as_bytes())).await?;
            assert_eq!(written, text.len());
            poll_fn(|cx| held.as_mut().poll_flush(cx)).await
        }

        async fn arrived(&mut self) -> String {
            let mut held = Pin::new(&mut self.held);
            // Its error comes after what the client is told.
            drop(poll_fn(|cx| held.as_mut().poll_flush(cx)).await);
            let mut bytes = [0; 4096];
            let mut read = std::pin::pin!(self.client.read(&mut bytes));
            let waker = std::task::Waker::noop();
            let n = match read.as_mut().poll(&mut Context::from_waker(waker)) {
                Poll::Ready(n) => n.unwrap(),
                Poll::Pending => 0,
            };
            String::from_utf8(bytes[..n].to_vec()).unwrap()
        }
    }

    fn keep(append: Append) {
        let reply = append.reply.unwrap();
        reply.send(Ok(Vec::new())).unwrap();
    }

    #[tokio::test]
    async fn answers_leave_in_order_once_their_readings_are_durable() {
        let mut connection = connection();
        connection.write("0").await.unwrap();
        let first = connection.answer("1").await;
        let second = connection.answer("2").await;
        connection.write("3").await.unwrap();
        assert_eq!(connection.arrived().await, "0");
        keep(second);
        assert_eq!(connection.arrived().await, "", "2 may not pass 1");
        keep(first);
        assert_eq!(connection.arrived().await, "123");
        assert!(connection.held.promises.have_room());
        connection.write("4").await.unwrap();
        assert_eq!(connection.arrived().await, "4");
    }

    #[tokio::test]
    async fn a_connection_does_not_end_before_what_is_held_has_left() {
        let mut connection = connection();
        let first = connection.answer("1").await;
        let mut held = Pin::new(&mut connection.held);
        let waker = std::task::Waker::noop();
        let mut cx = Context::from_waker(waker);
        assert!(held.as_mut().poll_shutdown(&mut cx).is_pending());
        keep(first);
        poll_fn(|cx| held.as_mut().poll_shutdown(cx)).await.unwrap();
        let mut text = String::new();
        connection.client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "1");
    }

    #[tokio::test]
    async fn when_the_log_fails_no_answer_that_was_held_leaves() {
        let mut connection = connection();
        let first = connection.answer("1").await;
        let second = connection.answer("2").await;
        let _third = connection.answer("3").await;
        keep(first);
        let reply = second.reply.unwrap();
        reply.send(Err(AppendError::Failed)).unwrap();
        let arrived = connection.arrived().await;
        assert!(
            arrived.starts_with("1HTTP/1.1 503 Service Unavailable\r\n"),
            "{arrived}"
        );
        let (head, body) = arrived.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())));
        let problem: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(problem["status"], 503);
        assert!(connection.write("4").await.is_err());
    }

    #[tokio::test]
    async fn more_requests_than_are_held_wait_for_their_own_promise() {
        let mut connection = connection();
        let mut appends = Vec::new();
        for _ in 0..PROMISES_MAX {
            assert!(connection.held.promises.have_room());
            appends.push(connection.answer("1").await);
        }
        assert!(!connection.held.promises.have_room());
        appends.into_iter().for_each(keep);
        assert_eq!(connection.arrived().await.len(), PROMISES_MAX);
        assert!(connection.held.promises.have_room());
    }
}
