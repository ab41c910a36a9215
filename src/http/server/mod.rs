//! The socket: accepting connections, limiting how many there are, ending them.

pub(crate) mod backpressure;
pub(crate) mod connection;
pub(crate) mod deferred;
pub(crate) mod socket;
pub(crate) mod stall;
pub mod tls;
pub(crate) mod usage;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::Context;

use super::api::operations;
use crate::http::api::events::Live;
use crate::http::request::dispatch::Shared;
use crate::metrics;
use usage::{Place, Places};

/// Connections that the system holds for us before they are accepted.
const BACKLOG: i32 = 4096;
/// What the system holds of a connection's answers before the client makes room for them. Why
/// 128 KiB: enough for a long way at full speed, and without a bound it is 4 MiB, so that 250
/// clients that never read hold a gigabyte of the system's memory.
#[cfg(target_os = "linux")]
const UNSENT_BYTES_MAX: u32 = 128 << 10;
/// How long to wait after the system had no socket to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listening socket.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
}

impl Server {
    /// Listens on an address; port 0 picks one.
    ///
    /// Blocks: never; needs a runtime
    ///
    /// # Errors
    /// As the system gives them: the address is taken, or not ours.
    pub fn bind(addr: SocketAddr) -> io::Result<Server> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        // A restart must not wait until the old connections are forgotten.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        // Connections inherit it.
        #[cfg(target_os = "linux")]
        socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        Ok(Server {
            listener: TcpListener::from_std(socket.into())?,
        })
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until told to stop; then accepts nothing more, lets connections finish the request
    /// that they are at, and returns when they have, or after `drain_timeout`.
    ///
    /// A panic while answering ends its connection only. A panic of the live stream's poll stops the
    /// server as `shutdown` does.
    ///
    /// Blocks: until `shutdown`, and then at most `drain_timeout`
    /// Cancel: accepted connections go on until the runtime ends
    pub async fn serve(self, context: Arc<Context>, shutdown: impl Future<Output = ()> + Send) {
        operations::count_from_zero();
        let connections_max = context
            .settings
            .connections_max
            .clamp(1, u32::MAX as usize >> 1);
        let drain_timeout = context.settings.drain_timeout;
        let (live, mut polling) = Live::start(context.reads.clone());
        let shared = Arc::new(Shared { live, context });
        let places = Places::new(connections_max);
        let (stop, stopping) = watch::channel(());
        let mut shutdown = pin!(shutdown);
        let begin = |(stream, address): (TcpStream, IpAddr), place: Place| {
            let (shared, stopping) = (Arc::clone(&shared), stopping.clone());
            tokio::spawn(async move {
                let usage = Arc::clone(&place.usage);
                let _counted = Counted::new();
                connection::serve(stream, address, usage, shared, stopping).await;
                drop(place);
            });
        };
        // A client that is accepted shows that a place is needed: none is made for nobody.
        let mut waiting = None;
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                ended = &mut polling => {
                    tracing::error!(?ended, "the poll of the live stream has ended by itself");
                    break;
                }
                accepted = self.accept(), if waiting.is_none() => waiting = accepted,
                place = places.take(), if waiting.is_some() => {
                    if let (Some(client), Some(place)) = (waiting.take(), place) {
                        begin(client, place);
                    }
                }
            }
        }
        // Clients that connected before the socket was closed did not know: the system would cut them off.
        for client in waiting.into_iter().chain(self.left_in_queue()) {
            if let Some(place) = places.try_take() {
                begin(client, place);
            }
        }
        drop(stop);
        shared.live.stop();
        if timeout(drain_timeout, places.all_free(connections_max))
            .await
            .is_err()
        {
            tracing::warn!(
                connections = places.taken(),
                "connections were cut: they did not end in time"
            );
        }
    }

    /// Takes the connections that wait to be accepted, and closes the socket.
    fn left_in_queue(self) -> Vec<(TcpStream, IpAddr)> {
        let mut left = Vec::new();
        if let Ok(listener) = self.listener.into_std() {
            while left.len() < BACKLOG as usize
                && let Ok((stream, address)) = listener.accept()
            {
                let taken = stream
                    .set_nonblocking(true)
                    .and_then(|()| TcpStream::from_std(stream));
                let address = address.ip().to_canonical();
                left.extend(taken.ok().map(|stream| (stream, address)));
            }
        }
        left
    }

    /// Accepts a connection.
    ///
    /// Cancel: safe
    async fn accept(&self) -> Option<(TcpStream, IpAddr)> {
        match self.listener.accept().await {
            Ok((stream, from)) => Some((stream, from.ip().to_canonical())),
            Err(error) if is_of_one_connection(&error) => None,
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections for now");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                None
            }
        }
    }
}

/// Whether an error of `accept` speaks of the connection that was to be accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

/// Counts an open connection for as long as it lives, a panic included.
struct Counted;

impl Counted {
    fn new() -> Self {
        metrics::http_connections(1);
        Counted
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::http_connections(-1);
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_an_answer_that_nobody_takes_the_system_holds_little() {
        let server = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let client = TcpStream::connect(server.local_addr().unwrap())
            .await
            .unwrap();
        let (accepted, _) = server.listener.accept().await.unwrap();
        let socket = socket2::SockRef::from(&accepted);
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT_BYTES_MAX);
        // Until nothing more fits.
        accepted.writable().await.unwrap();
        let piece = vec![0; 64 << 10];
        let mut taken = 0;
        while let Ok(more) = accepted.try_write(&piece) {
            taken += more;
        }
        // What is on its way to the client's own buffer comes on top.
        let of_client = socket2::SockRef::from(&client).recv_buffer_size().unwrap();
        let most = UNSENT_BYTES_MAX as usize + of_client + 2 * piece.len();
        assert!(taken <= most, "{taken} of {most}");
    }
}
