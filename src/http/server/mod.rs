//! The listening socket: accepts connections, limits their number, and ends them.

mod activity;
pub(crate) mod backpressure;
pub(crate) mod connection;
pub(crate) mod deferred;
pub(crate) mod service;
pub(crate) mod socket;
pub(crate) mod stall;
pub mod tls;
pub(crate) mod usage;
mod when_woken;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::metrics;
use service::Service;
use usage::{Place, Places};

/// How many connections the system queues before they are accepted.
const BACKLOG: i32 = 4096;
/// The most unsent bytes of a connection that the system buffers. Why 128 KiB: this is enough for full speed over a
/// long distance. The system's own limit is 4 MiB, with which 250 clients that never read occupy a gigabyte of kernel
/// memory.
#[cfg(target_os = "linux")]
const UNSENT_BYTES_MAX: u32 = 128 << 10;
/// The pause after the system had no resources for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a stopping server waits for handshakes that are under way. Why 20 ms: that is several round trips
/// within a region. A client whose first packet arrives in this time sends it again (a second later on most
/// systems), and then finds the socket closed.
const ESTABLISHING: Duration = Duration::from_millis(20);

/// A filter for a listening socket that drops the first packet of each new connection (flag SYN, RFC 9293 §3.1)
/// and nothing else.
#[cfg(target_os = "linux")]
fn no_handshakes() -> [socket2::SockFilter; 4] {
    // Classic BPF opcodes (linux/bpf_common.h): load a byte, jump if a bit is set, return a length.
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    const FLAGS_AT: u32 = 13;
    const SYN: u32 = 0x02;
    [
        socket2::SockFilter::new(LOAD_BYTE, 0, 0, FLAGS_AT),
        socket2::SockFilter::new(JUMP_IF_SET, 0, 1, SYN),
        socket2::SockFilter::new(RETURN, 0, 0, 0),
        socket2::SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
}

/// A listening socket.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
}

impl Server {
    /// Listens on an address. Port 0 means any free port.
    ///
    /// Blocks: never, but needs a runtime
    ///
    /// # Errors
    /// I/O errors: the address is in use, or does not belong to this machine.
    pub fn bind(addr: SocketAddr) -> io::Result<Server> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        // Otherwise a restart would have to wait until the system has forgotten the old connections.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        // Accepted connections inherit this limit.
        #[cfg(target_os = "linux")]
        socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        Ok(Server {
            listener: TcpListener::from_std(socket.into())?,
        })
    }

    /// The address that the server listens on.
    ///
    /// # Errors
    /// I/O errors.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown` completes. Then it accepts no more connections, lets open ones finish their current
    /// requests, and returns when they have, or after `drain_timeout`.
    ///
    /// A panic in a handler ends only its connection.
    pub(crate) async fn serve<A: Service>(
        self,
        service: Arc<A>,
        shutdown: impl Future<Output = ()> + Send,
    ) {
        let settings = &service.context().settings;
        let connections_max = settings.connections_max.clamp(1, u32::MAX as usize >> 1);
        let drain_timeout = settings.drain_timeout;
        let places = Places::new(connections_max);
        let (stop, stopping) = watch::channel(());
        let mut shutdown = pin!(shutdown);
        let begin = |(stream, address): (TcpStream, IpAddr), place: Place| {
            let (service, stopping) = (Arc::clone(&service), stopping.clone());
            tokio::spawn(async move {
                let usage = Arc::clone(&place.usage);
                let _counted = Counted::new();
                connection::serve(stream, address, usage, service, stopping).await;
                drop(place);
            });
        };
        // No idle connection is closed before a client has really connected and needs its place.
        let mut waiting = None;
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                accepted = self.accept(), if waiting.is_none() => waiting = accepted,
                place = places.take(), if waiting.is_some() => {
                    if let (Some(client), Some(place)) = (waiting.take(), place) {
                        begin(client, place);
                    }
                }
            }
        }
        // Open connections learn of the stop first: their next response must tell the client to close.
        drop(stop);
        // These clients connected before the socket is closed, without knowing of the stop. The system would reset
        // them.
        for client in waiting.into_iter().chain(self.left_in_queue().await) {
            if let Some(place) = places.try_take() {
                begin(client, place);
            }
        }
        if timeout(drain_timeout, places.all_free(connections_max))
            .await
            .is_err()
        {
            tracing::warn!(
                connections = places.occupied(),
                "connections were closed: they did not end in time"
            );
        }
    }

    /// Accepts the connections that are queued or still being established, and closes the socket.
    ///
    /// Blocks: for [`ESTABLISHING`]
    async fn left_in_queue(self) -> Vec<(TcpStream, IpAddr)> {
        // Otherwise connections established between the last `accept` and the close would be reset.
        #[cfg(target_os = "linux")]
        if let Err(error) = socket2::SockRef::from(&self.listener).attach_filter(&no_handshakes()) {
            tracing::debug!(%error, "clients that connect now may be reset");
        }
        let mut left = Vec::new();
        let closes = tokio::time::sleep(ESTABLISHING);
        let mut closes = pin!(closes);
        while left.len() < BACKLOG as usize {
            tokio::select! {
                biased;
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, from)) => left.push((stream, from.ip().to_canonical())),
                    Err(error) if is_of_one_connection(&error) => {}
                    Err(_) => break,
                },
                () = &mut closes => break,
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
                tracing::warn!(%error, "cannot accept connections; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                None
            }
        }
    }
}

/// Whether an error of `accept` concerns only the connection that it would have accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

/// Counts an open connection until it is dropped, even by a panic.
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
    async fn the_system_buffers_little_of_an_unread_answer() {
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
        let mut written = 0;
        while let Ok(more) = accepted.try_write(&piece) {
            written += more;
        }
        // The client's receive buffer comes on top.
        let of_client = socket2::SockRef::from(&client).recv_buffer_size().unwrap();
        let most = UNSENT_BYTES_MAX as usize + of_client + 2 * piece.len();
        assert!(written <= most, "{written} of {most}");
    }

    /// Connects repeatedly until nothing listens. Returns how many connections the system reset.
    fn connect_until_closed(address: SocketAddr) -> usize {
        use std::io::Read;
        let mut reset = 0;
        loop {
            let connected =
                std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100));
            let Ok(mut stream) = connected else {
                return reset;
            };
            let bounded = stream.set_read_timeout(Some(Duration::from_secs(5)));
            // The server sends nothing and closes.
            if bounded.and_then(|()| stream.read(&mut [0; 1])).is_err() {
                reset += 1;
            }
        }
    }

    #[tokio::test]
    async fn no_client_that_has_connected_is_reset_by_a_stop() {
        let mut reset = 0;
        for _ in 0..100 {
            let server = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = server.local_addr().unwrap();
            let clients: Vec<_> = (0..4)
                .map(|_| std::thread::spawn(move || connect_until_closed(address)))
                .collect();
            for _ in 0..50 {
                drop(server.accept().await);
            }
            drop(server.left_in_queue().await);
            for client in clients {
                reset += client.join().unwrap();
            }
        }
        assert_eq!(reset, 0);
    }
}
