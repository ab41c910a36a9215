//! The refusal of a server, as an error of the driver.
//!
//! Callers and the pool know the driver's error alone, and it has no public constructor. The driver wraps the socket's
//! error in its own, so connecting over a socket that always fails yields one.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::SslMode;
use tokio_postgres::{Config, Error, NoTls};

use super::lineage::Refusal;

/// A socket whose every use fails.
struct Failing(Refusal);

impl Failing {
    fn error<T>(&self) -> Poll<io::Result<T>> {
        Poll::Ready(Err(io::Error::other(self.0.clone())))
    }
}

impl AsyncRead for Failing {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.error()
    }
}

impl AsyncWrite for Failing {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        self.error()
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.error()
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.error()
    }
}

/// The driver's error for a refusal.
pub(super) async fn refused(why: Refusal) -> Error {
    let mut config = Config::new();
    config.user("nobody").ssl_mode(SslMode::Disable);
    loop {
        // The socket lets no connection attempt succeed.
        if let Err(error) = config.connect_raw(Failing(why.clone()), NoTls).await {
            return error;
        }
    }
}

/// The refusal in an error of the driver.
pub(super) fn refusal(error: &Error) -> Option<&Refusal> {
    let source = error.source()?.downcast_ref::<io::Error>()?;
    source.get_ref()?.downcast_ref()
}

pub(super) fn is_refusal(error: &Error) -> bool {
    refusal(error).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refusal_is_found_in_the_error_of_the_driver() {
        let error = refused(Refusal::NoHost).await;
        assert_eq!(refusal(&error), Some(&Refusal::NoHost));
        assert_eq!(
            crate::postgres::explain(&error),
            Refusal::NoHost.to_string()
        );
    }
}
