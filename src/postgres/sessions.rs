//! Sessions: of a part of the gateway, and of the pool for queries. Only the [route](super::route) opens them.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::route::{Opened, Route};
use super::servers::Place;
use super::settings::Use;

/// A session of its own, outside any pool; it ends when dropped.
pub struct Session {
    client: Client,
    connection: JoinHandle<()>,
    /// True once the connection has ended.
    ended: watch::Receiver<bool>,
    place: Place,
    tls: MakeRustlsConnect,
}

impl Session {
    /// Connects to the server in use and applies the settings.
    pub(super) async fn open(route: &Route, name: &str, purpose: Use) -> Result<Self, Error> {
        let Opened {
            client,
            connection,
            ended,
            place,
        } = route.open(name, purpose).await?;
        Ok(Session {
            client,
            connection,
            ended,
            place,
            tls: route.tls().clone(),
        })
    }

    /// The client of this session.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The client of this session, to open transactions.
    pub fn client_mut(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Waits until the connection has ended, from either side.
    ///
    /// Cancel: safe
    pub fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut ended = self.ended.clone();
        // A dropped sender means that the connection has ended.
        async move { drop(ended.wait_for(|ended| *ended).await) }
    }

    /// How often the database had moved to another server before this session.
    pub fn moves(&self) -> u64 {
        self.place.number()
    }

    /// Acts on the server's answer and returns the result. If the database has moved to a newer server, it does nothing
    /// and returns `None`. No move happens while it acts.
    ///
    /// Blocks: while a move is taken over; `act` must not wait
    pub fn while_current<T>(&self, act: impl FnOnce() -> T) -> Option<T> {
        self.place.while_current(act)
    }

    /// Cancels the running statement, over a connection of its own.
    ///
    /// Blocks: until the request is sent, without a bound: the caller sets one
    ///
    /// # Errors
    /// The server cannot be reached.
    pub async fn cancel(&self) -> Result<(), Error> {
        self.client
            .cancel_token()
            .cancel_query(self.tls.clone())
            .await
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Closes the socket at once, so that the server rolls the transaction back.
        self.connection.abort();
    }
}

/// Opens the sessions of the pool for queries.
pub(super) struct Opener {
    pub(super) route: Arc<Route>,
    pub(super) name: String,
}

impl deadpool_postgres::Connect for Opener {
    /// The route to the database replaces the pool's configuration, which knows only one host.
    fn connect(&self, _: &Config) -> Opening<'_> {
        Box::pin(async move {
            let opened = self.route.open(&self.name, Use::Question).await?;
            Ok((opened.client, opened.connection))
        })
    }
}

/// The future of an opening session.
type Opening<'a> = futures_util::future::BoxFuture<'a, Result<(Client, JoinHandle<()>), Error>>;
