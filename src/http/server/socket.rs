//! The socket of a connection. It makes sure that a truncated response never looks complete.
//!
//! To an HTTP/1.0 client, a response of unknown length ends when the connection ends, so a truncated one looks
//! complete. nginx before 1.29.7 speaks HTTP/1.0 to its upstreams. Until such a response is complete, the socket
//! is set to reset the connection when it is closed, for whatever reason: an error in the response, a deadline,
//! the end of the process. The orderly close is restored only once everything has been written.
//!
//! HTTP/1.1 and HTTP/2 do not need this, because chunks and streams mark their own end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::usage::Usage;

/// A connection's socket.
pub(crate) struct Socket {
    stream: TcpStream,
    usage: Arc<Usage>,
    on_close: OnClose,
}

/// What closing the socket does to the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnClose {
    /// Sends what is buffered and ends the connection.
    Finish,
    /// Discards what is buffered and resets the connection.
    Reset,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream, usage: Arc<Usage>) -> Self {
        Socket {
            stream,
            usage,
            on_close: OnClose::Finish,
        }
    }

    fn set_on_close(&mut self, on_close: OnClose) -> io::Result<()> {
        if self.on_close != on_close {
            // With a linger time of zero, close resets.
            let linger = (on_close == OnClose::Reset).then_some(Duration::ZERO);
            SockRef::from(&self.stream).set_linger(linger)?;
            self.on_close = on_close;
        }
        Ok(())
    }

    /// Sets the socket to reset before the first byte of such a response leaves.
    fn prepare(&mut self) -> io::Result<()> {
        if self.usage.is_unfinished() {
            self.set_on_close(OnClose::Reset)?;
        }
        Ok(())
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.prepare()?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.usage.is_unfinished() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        self.set_on_close(OnClose::Finish)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.prepare()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}
