//! The socket of a connection: an answer that was cut never looks complete.
//!
//! An answer in pieces to a client of HTTP/1.0 ends where its connection does, so that one that was
//! cut looks like one that is whole: nginx before 1.29.7 speaks HTTP/1.0 to what is behind it. While such
//! an answer is on its way the socket is set to reset when it is closed, whatever closes it: an
//! error in the answer, a deadline, the end of the process. The order to end in order comes last,
//! when everything has been written.
//!
//! HTTP/1.1 needs none of it: chunks have an end of their own, and so have streams of HTTP/2.

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
    /// Whether closing it resets the connection.
    resets: bool,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream, usage: Arc<Usage>) -> Self {
        Socket {
            stream,
            usage,
            resets: false,
        }
    }

    fn set_resets(&mut self, resets: bool) -> io::Result<()> {
        if self.resets != resets {
            // Without a time to linger, close discards what was not sent and resets.
            SockRef::from(&self.stream).set_linger(resets.then_some(Duration::ZERO))?;
            self.resets = resets;
        }
        Ok(())
    }

    /// Before anything of such an answer leaves, the socket is set.
    fn prepare(&mut self) -> io::Result<()> {
        if self.usage.is_unfinished() {
            self.set_resets(true)?;
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
        self.set_resets(false)?;
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
