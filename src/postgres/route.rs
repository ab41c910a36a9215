//! The way to a database: its hosts one by one, each session admitted by the guard against two primaries.
//!
//! The driver knows several hosts too, but takes the first that can be written to. An old primary can be, and
//! would hide the new one behind it in the list.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::{Host, LoadBalanceHosts, TargetSessionAttrs};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Error, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;
use uuid::Uuid;

use super::lineage::{Refusal, Server};
use super::refused::{is_refusal, refused};
use super::servers::{Admission, Entry, Place, Servers};
use super::settings::{Use, settings};

/// The server's system identifier, and the name of its newest WAL file, which begins with the timeline in
/// hexadecimal. `pg_control_checkpoint()` would show the timeline only after the next checkpoint. A standby
/// gives no row.
const IDENTITY: &str = "\
select c.system_identifier, pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn())
from pg_catalog.pg_control_system() as c
where not pg_catalog.pg_is_in_recovery()";

/// How often the other hosts are looked at.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// How long a host may take to answer that.
const WATCH_WITHIN: Duration = Duration::from_secs(5);

/// The way to a database.
pub(super) struct Route {
    /// One configuration for each host.
    hosts: Vec<Config>,
    tls: MakeRustlsConnect,
    servers: Arc<Servers>,
    /// Where the next connect begins: at the host that served last, or behind one that does not answer.
    first: AtomicUsize,
}

/// An open session.
pub(super) struct Opened {
    pub(super) client: Client,
    pub(super) connection: JoinHandle<()>,
    /// True once the connection has ended.
    pub(super) ended: watch::Receiver<bool>,
    pub(super) place: Place,
}

/// What a server shows of itself.
enum Identity {
    Shown(Server),
    /// The server is a standby.
    Standby,
    /// Its functions may not be called.
    Hidden(String),
}

impl Route {
    pub(super) fn new(hosts: Vec<Config>, tls: MakeRustlsConnect, servers: Servers) -> Self {
        Route {
            hosts,
            tls,
            servers: Arc::new(servers),
            first: AtomicUsize::new(0),
        }
    }

    /// The same way with another guard.
    pub(super) fn with_servers(&self, servers: Servers) -> Self {
        Route::new(self.hosts.clone(), self.tls.clone(), servers)
    }

    pub(super) fn servers(&self) -> &Servers {
        &self.servers
    }

    pub(super) fn tls(&self) -> &MakeRustlsConnect {
        &self.tls
    }

    /// Opens a session on the first host that is not refused.
    ///
    /// # Errors
    /// Why a server was refused, or else why the last one could not be reached.
    pub(super) async fn open(&self, name: &str, purpose: Use) -> Result<Opened, Error> {
        let is_random = |host: &Config| host.get_load_balance_hosts() == LoadBalanceHosts::Random;
        let first = match self.hosts.first() {
            Some(host) if is_random(host) => getrandom::u32().map_or(0, |n| n as usize),
            _ => self.first.load(Ordering::Relaxed),
        };
        let mut failure = None;
        let mut foreign = None;
        for n in 0..self.hosts.len() {
            let at = first.wrapping_add(n) % self.hosts.len();
            let failing = Failing { route: self, at };
            for config in addresses(&self.hosts[at]).await {
                match self.try_address(config, name, purpose).await {
                    Ok((opened, Holds::TheDatabase)) => {
                        drop(failing);
                        self.first.store(at, Ordering::Relaxed);
                        return Ok(opened);
                    }
                    Ok((opened, Holds::AnotherDatabase)) => {
                        foreign.get_or_insert(opened);
                    }
                    Err(_) if failure.as_ref().is_some_and(is_refusal) => {}
                    Err(error) => failure = Some(error),
                }
            }
        }
        match (foreign, failure) {
            // The caller reports that it is another database.
            (Some(opened), _) => Ok(opened),
            (None, Some(error)) => Err(error),
            (None, None) => Err(refused(Refusal::NoHost).await),
        }
    }

    async fn try_address(
        &self,
        mut config: Config,
        name: &str,
        purpose: Use,
    ) -> Result<(Opened, Holds), Error> {
        config.application_name(name);
        let host = host_name(&config);
        let opened = self.connect(&config).await?;
        let settings = settings(purpose);
        // Both are sent at once and answered in one exchange.
        let (set, found) = join(
            opened.client.batch_execute(&settings),
            identity(&opened.client),
        )
        .await;
        set?;
        let found = match found? {
            Identity::Shown(found) => found,
            Identity::Standby => return Ok((opened, Holds::TheDatabase)),
            Identity::Hidden(why) => {
                self.servers.admit_hidden(&host, &opened.place, &why);
                return Ok((opened, Holds::TheDatabase));
            }
        };
        if self.servers.admit_current(&host, found, &opened.place) {
            return Ok((opened, Holds::TheDatabase));
        }
        let mut admission = self.admit(&host, found, &opened.place, false).await;
        if let Admission::OtherCluster = admission {
            if !self.servers.is_bound_to(database_id(&opened.client).await?) {
                return Ok((opened, Holds::AnotherDatabase));
            }
            admission = self.admit(&host, found, &opened.place, true).await;
        }
        match admission {
            Admission::Refused(why) => Err(refused(why).await),
            Admission::Granted | Admission::OtherCluster => Ok((opened, Holds::TheDatabase)),
        }
    }

    async fn connect(&self, config: &Config) -> Result<Opened, Error> {
        let (client, connection) = config.connect(self.tls.clone()).await?;
        let place = Place::new(&self.servers);
        let (end, ended) = watch::channel(false);
        let lost = place.lost();
        let connection = tokio::spawn(async move {
            // An answer that arrives after the move is not read.
            tokio::select! {
                biased;
                () = lost => tracing::debug!("ended a session on a server that is no longer in use"),
                result = connection => if let Err(error) = result {
                    tracing::debug!(%error, "a session to the database has ended");
                },
            }
            end.send_replace(true);
        });
        Ok(Opened {
            client,
            connection,
            ended,
            place,
        })
    }

    async fn admit(&self, host: &str, found: Server, place: &Place, follows: bool) -> Admission {
        let (servers, host, place) = (Arc::clone(&self.servers), host.to_owned(), place.clone());
        let admitting = tokio::task::spawn_blocking(move || {
            let place = Some(&place);
            servers.admit(&host, found, Entry { place, follows })
        });
        // A panic there is a defect; a session that is not admitted is refused.
        admitting
            .await
            .unwrap_or(Admission::Refused(Refusal::NoHost))
    }

    /// Looks at every host at intervals, so that a promotion is seen while all sessions still reach the old
    /// primary. With one host there is nothing to look at.
    ///
    /// Blocks: for ever
    /// Cancel: safe
    pub(super) async fn watch(&self, name: &str) {
        if self.hosts.len() > 1 {
            join_all(self.hosts.iter().map(|host| self.watch_host(host, name))).await;
        }
        std::future::pending().await
    }

    async fn watch_host(&self, host: &Config, name: &str) {
        loop {
            let mut config = addresses(host).await.swap_remove(0);
            config
                .application_name(name)
                .target_session_attrs(TargetSessionAttrs::Any);
            let host = host_name(&config);
            let connecting = config.connect(self.tls.clone());
            if let Ok(Ok((client, connection))) = timeout(WATCH_WITHIN, connecting).await {
                // It ends with its client.
                tokio::spawn(async move { drop(connection.await) });
                while let Ok(Ok(found)) = timeout(WATCH_WITHIN, identity(&client)).await {
                    self.saw(&host, found).await;
                    tokio::time::sleep(WATCH_EVERY).await;
                }
            }
            self.servers.forget_refusal(&host);
            tokio::time::sleep(WATCH_EVERY).await;
        }
    }

    async fn saw(&self, host: &str, found: Identity) {
        match found {
            // The first server is chosen by a session that uses it.
            Identity::Shown(found) if self.servers.current().is_some_and(|it| it != found) => {
                let (servers, host) = (Arc::clone(&self.servers), host.to_owned());
                let admitting = tokio::task::spawn_blocking(move || {
                    let (place, follows) = (None, false);
                    servers.admit(&host, found, Entry { place, follows });
                });
                drop(admitting.await);
            }
            _ => self.servers.forget_refusal(host),
        }
    }
}

/// A host that is tried. Unless it succeeds, also if the caller gives up, the next connect begins behind it.
struct Failing<'a> {
    route: &'a Route,
    at: usize,
}

impl Drop for Failing<'_> {
    fn drop(&mut self) {
        self.route.first.store(self.at + 1, Ordering::Relaxed);
    }
}

/// What a host holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    TheDatabase,
    /// Another database than the one that the log is bound to.
    AnotherDatabase,
}

/// A configuration for each address of a host: one of them may be an old primary.
async fn addresses(host: &Config) -> Vec<Config> {
    let (Some(Host::Tcp(name)), []) = (host.get_hosts().first(), host.get_hostaddrs()) else {
        return vec![host.clone()];
    };
    if name.parse::<IpAddr>().is_ok() {
        return vec![host.clone()];
    }
    let found = tokio::net::lookup_host((name.as_str(), port(host))).await;
    let found: Vec<Config> = found
        .into_iter()
        .flatten()
        .map(|address| {
            let mut config = host.clone();
            config.hostaddr(address.ip());
            config
        })
        .collect();
    // Without an address, the driver reports why.
    if found.is_empty() {
        vec![host.clone()]
    } else {
        found
    }
}

fn port(host: &Config) -> u16 {
    host.get_ports().first().copied().unwrap_or(5432)
}

/// The host's address and port, as errors name it.
fn host_name(host: &Config) -> String {
    let port = port(host);
    match (host.get_hostaddrs().first(), host.get_hosts().first()) {
        (Some(address), _) => std::net::SocketAddr::new(*address, port).to_string(),
        (None, Some(Host::Tcp(name))) => format!("{name}:{port}"),
        (None, Some(Host::Unix(path))) => format!("{}:{port}", path.display()),
        (None, None) => String::new(),
    }
}

async fn identity(client: &Client) -> Result<Identity, Error> {
    let answer = match client.simple_query(IDENTITY).await {
        Ok(answer) => answer,
        Err(error) => {
            let hides = error.as_db_error().filter(|db| {
                // Connections, resources, an operator's intervention: the server does not serve.
                !["08", "53", "57"].contains(&&db.code().code()[..2])
            });
            return match hides {
                Some(db) => Ok(Identity::Hidden(db.message().to_owned())),
                None => Err(error),
            };
        }
    };
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let Some(row) = row else {
        return Ok(Identity::Standby);
    };
    let system = row.get(0).and_then(|text| text.parse().ok());
    let timeline = row.get(1).and_then(|file| file.get(..8));
    let timeline = timeline.and_then(|text| u32::from_str_radix(text, 16).ok());
    Ok(match (system, timeline) {
        (Some(system), Some(timeline)) => Identity::Shown(Server { system, timeline }),
        _ => Identity::Hidden("it returns no name of a WAL file".to_owned()),
    })
}

/// The id of the database, if it is migrated.
async fn database_id(client: &Client) -> Result<Option<Uuid>, Error> {
    match client.query_typed(sql!("database_id"), &[]).await {
        Ok(rows) => Ok(rows.first().map(|row| row.get(0))),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(None),
        Err(error) => Err(error),
    }
}
