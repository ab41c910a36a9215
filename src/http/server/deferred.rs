//! Deferred responses: they wait for the log while the next request is already read.
//!
//! hyper reads the next request of an HTTP/1.1 connection only when the previous one has a response. If each
//! response waited for its own sync, sixteen pipelined requests would take sixteen syncs, one after the other. So
//! hyper gets the response as soon as the readings are on their way to the log. The bytes of the response, and all
//! bytes after it, are held here until the log has synced. Sixteen requests then share one sync.
//!
//! Nothing leaves before its readings are durable, and responses keep the order of their requests. If the log
//! fails, the held bytes are discarded. The first request that was not synced gets 503 instead, and the connection
//! ends.

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
use crate::http::request::access_log::AccessRecord;
use crate::http::request::poll;
use crate::ingest::admission::Admitted;
use crate::metrics;

/// The most deferred responses of one connection. At the limit, the next request waits for its own sync before
/// another is read. Why 64: a sync takes about as long as that many requests.
const DEFERRED_MAX: usize = 64;
/// The most response bytes that one connection buffers.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// The response to a request whose readings the log has failed to sync.
const FAILED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
content-type: application/problem+json\r\nretry-after: 1\r\nconnection: close\r\n\
content-length: 130\r\n\r\n\
{\"type\":\"urn:wattgate:problem:log-failed\",\"title\":\"Write-ahead log failed\",\
\"status\":503,\"detail\":\"the write-ahead log has failed\"}";

/// The deferred responses of one connection, passed from its requests to its socket.
#[derive(Default)]
pub(crate) struct DeferredResponses {
    /// How many wait for the log's sync.
    outstanding: AtomicUsize,
    /// Deferred responses whose bytes have not been written to the socket yet.
    pushed: Mutex<Vec<Deferred>>,
}

/// Readings on their way into the log, and the record of their request.
pub(crate) struct Deferred {
    pub(crate) admitted: Admitted,
    pub(crate) record: AccessRecord,
}

impl DeferredResponses {
    /// Whether the next response may be deferred as well.
    pub(crate) fn has_room(&self) -> bool {
        self.outstanding.load(Ordering::Relaxed) < DEFERRED_MAX
    }

    /// Defers the response that is written next, and all bytes after it, until the log has synced.
    pub(crate) fn push(&self, deferred: Deferred) {
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        let mut pushed = self.pushed.lock().unwrap_or_else(PoisonError::into_inner);
        pushed.push(deferred);
    }
}

/// Where a deferred response begins in the connection's bytes.
struct Barrier {
    /// The offset of the first byte that must wait for the sync, from the connection's first byte.
    from: u64,
    deferred: Deferred,
}

/// A connection that holds back deferred responses.
pub(crate) struct DeferringIo<S> {
    inner: StallGuard<S>,
    responses: Arc<DeferredResponses>,
    barriers: VecDeque<Barrier>,
    /// Held bytes.
    bytes: BytesMut,
    /// How many bytes from `bytes` have been sent.
    sent: u64,
    failed: bool,
}

impl<S: AsyncWrite + Unpin> DeferringIo<S> {
    pub(crate) fn new(inner: StallGuard<S>, responses: Arc<DeferredResponses>) -> Self {
        DeferringIo {
            inner,
            responses,
            barriers: VecDeque::new(),
            bytes: BytesMut::new(),
            sent: 0,
            failed: false,
        }
    }

    /// Raises a barrier at the current end of the bytes for each new deferred response.
    fn raise_barriers(&mut self) {
        if self.responses.outstanding.load(Ordering::Relaxed) == self.barriers.len() {
            return;
        }
        let from = self.sent + self.bytes.len() as u64;
        let pushed = self.responses.pushed.lock();
        let mut pushed = pushed.unwrap_or_else(PoisonError::into_inner);
        let barrier = |deferred| Barrier { from, deferred };
        self.barriers.extend(pushed.drain(..).map(barrier));
    }

    /// Sends the bytes before the first barrier. Ready means that all of those have been sent. Bytes after a
    /// barrier may still wait for the log, which wakes the task.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(first) = self.barriers.front_mut() {
            let Poll::Ready(synced) = first.deferred.admitted.poll_durable(cx) else {
                break;
            };
            if synced.is_err() {
                self.fail();
                break;
            }
            self.responses.outstanding.fetch_sub(1, Ordering::Relaxed);
            if let Some(first) = self.barriers.pop_front() {
                first.deferred.record.write_at(poll::moment());
            }
        }
        let end = self.sent + self.bytes.len() as u64;
        let until = self.barriers.front().map_or(end, |first| first.from);
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

    /// Replaces the deferred responses with a single 503.
    fn fail(&mut self) {
        let Some(first) = self.barriers.front() else {
            return;
        };
        self.bytes.truncate((first.from - self.sent) as usize);
        self.bytes.extend_from_slice(FAILED);
        for barrier in self.barriers.drain(..) {
            metrics::http_shed("log_failed");
            barrier.deferred.record.write_failed();
        }
        self.failed = true;
    }

    /// Buffers bytes that must wait. `None` means that none have to, and the caller writes them directly.
    fn buffer(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Option<Poll<io::Result<usize>>> {
        self.raise_barriers();
        if self.barriers.is_empty() && self.bytes.is_empty() && !self.failed {
            return None;
        }
        if self.failed || self.bytes.len() >= BUFFER_BYTES_MAX {
            match self.poll_send(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Some(Poll::Ready(Err(error))),
                Poll::Pending => return Some(Poll::Pending),
            }
            if self.bytes.len() >= BUFFER_BYTES_MAX {
                // The sync that opens the first barrier wakes the task.
                return Some(Poll::Pending);
            }
        }
        let before = self.bytes.len();
        bufs.iter()
            .for_each(|buf| self.bytes.extend_from_slice(buf));
        Some(Poll::Ready(Ok(self.bytes.len() - before)))
    }
}

impl<S: AsyncRead + Unpin> Read for DeferringIo<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> Write for DeferringIo<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match this.buffer(cx, &[io::IoSlice::new(buf)]) {
            Some(buffered) => buffered,
            None => Pin::new(&mut this.inner).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.raise_barriers();
        // Bytes after a barrier do not count as unsent. Otherwise hyper would read no further request.
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.raise_barriers();
        ready!(this.poll_send(cx))?;
        if !this.barriers.is_empty() {
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
        match this.buffer(cx, bufs) {
            Some(buffered) => buffered,
            None => Pin::new(&mut this.inner).poll_write_vectored(cx, bufs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::server::stall::Limits;
    use crate::ingest::admission::{AckMode, Gate};
    use crate::wal::append::{Append, AppendError, ByteBudget, Message, RequestRecords};
    use crate::wal::progress::Progress;
    use bytes::Bytes;
    use std::future::poll_fn;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, DuplexStream};

    /// A connection, its client, and a log that syncs when the test tells it to.
    struct Connection {
        io: DeferringIo<DuplexStream>,
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
        let budget = Arc::new(ByteBudget::default());
        budget.change(1000);
        Connection {
            io: DeferringIo::new(guard, Arc::default()),
            client,
            gate: Gate::new(64 << 10, budget, sender, Arc::new(Progress::new(1, 2))),
            log,
        }
    }

    impl Connection {
        /// What a request does: hands readings to the log, defers a response, and writes it.
        async fn answer(&mut self, text: &str) -> Append {
            let records = RequestRecords::new(2);
            let memory = self.gate.memory(None);
            let admitted = self.gate.submit(records, memory, AckMode::Durable);
            let record = AccessRecord::for_test();
            let admitted = admitted.unwrap_or_else(|shed| panic!("{shed}"));
            self.io.responses.push(Deferred { admitted, record });
            self.write(text).await.unwrap();
            match self.log.recv().unwrap() {
                Message::Append(append) => append,
                Message::Close => panic!("the log is not closed here"),
            }
        }

        async fn write(&mut self, text: &str) -> io::Result<()> {
            let mut io = Pin::new(&mut self.io);
            let written = poll_fn(|cx| io.as_mut().poll_write(cx, text.as_bytes())).await?;
            assert_eq!(written, text.len());
            poll_fn(|cx| io.as_mut().poll_flush(cx)).await
        }

        async fn arrived(&mut self) -> String {
            let mut io = Pin::new(&mut self.io);
            // The flush fails after the 503 was sent to the client.
            drop(poll_fn(|cx| io.as_mut().poll_flush(cx)).await);
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

    fn sync(append: Append) {
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
        sync(second);
        assert_eq!(connection.arrived().await, "", "2 may not pass 1");
        sync(first);
        assert_eq!(connection.arrived().await, "123");
        assert!(connection.io.responses.has_room());
        connection.write("4").await.unwrap();
        assert_eq!(connection.arrived().await, "4");
    }

    #[tokio::test]
    async fn a_connection_ends_after_its_deferred_responses() {
        let mut connection = connection();
        let first = connection.answer("1").await;
        let mut io = Pin::new(&mut connection.io);
        let waker = std::task::Waker::noop();
        let mut cx = Context::from_waker(waker);
        assert!(io.as_mut().poll_shutdown(&mut cx).is_pending());
        sync(first);
        poll_fn(|cx| io.as_mut().poll_shutdown(cx)).await.unwrap();
        let mut text = String::new();
        connection.client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "1");
    }

    #[tokio::test]
    async fn when_the_log_fails_no_deferred_response_leaves() {
        let mut connection = connection();
        let first = connection.answer("1").await;
        let second = connection.answer("2").await;
        let _third = connection.answer("3").await;
        sync(first);
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
    async fn requests_over_the_bound_wait_for_their_own_sync() {
        let mut connection = connection();
        let mut appends = Vec::new();
        for _ in 0..DEFERRED_MAX {
            assert!(connection.io.responses.has_room());
            appends.push(connection.answer("1").await);
        }
        assert!(!connection.io.responses.has_room());
        appends.into_iter().for_each(sync);
        assert_eq!(connection.arrived().await.len(), DEFERRED_MAX);
        assert!(connection.io.responses.has_room());
    }
}
