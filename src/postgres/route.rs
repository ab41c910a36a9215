//! The way to a database: its hosts one by one, each session admitted by the guard against two primaries.
//!
//! The driver knows several hosts too, but takes the first one that accepts writes. An old primary may accept writes,
//! and would hide a new one later in the list.

use std::io;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::{LoadBalanceHosts, TargetSessionAttrs};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Error, SimpleQueryMessage, SimpleQueryRow};
use tokio_postgres_rustls::MakeRustlsConnect;
use uuid::Uuid;

use super::hosts::{addresses, host_name};
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

/// The errors of a server that may not, or cannot, show its identity.
pub(super) const HIDES: [SqlState; 3] = [
    SqlState::INSUFFICIENT_PRIVILEGE,
    SqlState::UNDEFINED_FUNCTION,
    SqlState::FEATURE_NOT_SUPPORTED,
];

/// How long each further host may take, once a host of another cluster was found to hold the database.
const OTHERS_WITHIN: Duration = Duration::from_secs(2);
/// How often the other hosts are checked.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// How long a host may take to answer the check.
const WATCH_WITHIN: Duration = Duration::from_secs(5);

/// The way to a database.
pub(super) struct Route {
    /// One configuration for each host.
    hosts: Vec<Config>,
    tls: MakeRustlsConnect,
    servers: Arc<Servers>,
    /// Where the next connect begins: at the host that was used last, or after one that does not answer.
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

    /// The way to hosts that replicate this database: its sessions obey the same guard.
    pub(super) fn to_replicas(&self, hosts: &Route) -> Vec<Route> {
        let one = |host: &Config| Route {
            hosts: vec![host.clone()],
            tls: hosts.tls.clone(),
            servers: Arc::clone(&self.servers),
            first: AtomicUsize::new(0),
        };
        hosts.hosts.iter().map(one).collect()
    }

    /// The first host, as a standby is reached.
    pub(super) fn standby(&self) -> Option<Config> {
        let mut config = self.hosts.first()?.clone();
        config.target_session_attrs(TargetSessionAttrs::Any);
        Some(config)
    }

    /// The same route with another guard.
    pub(super) fn with_servers(&self, servers: Servers) -> Self {
        Route::new(self.hosts.clone(), self.tls.clone(), servers)
    }

    pub(super) fn servers(&self) -> &Servers {
        &self.servers
    }

    pub(super) fn tls(&self) -> &MakeRustlsConnect {
        &self.tls
    }

    /// Opens a session on the first host that is not refused. Another cluster is followed only if no other host is
    /// running.
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
        let mut other: Option<(usize, OtherCluster)> = None;
        for n in 0..self.hosts.len() {
            let at = first.wrapping_add(n) % self.hosts.len();
            let failing = Failing { route: self, at };
            for config in addresses(&self.hosts[at]).await {
                let trying = self.try_address(config, name, purpose);
                let tried = match &other {
                    None => trying.await,
                    // A host that does not answer must not keep the one that holds the database from being used.
                    Some(_) => match timeout(OTHERS_WITHIN, trying).await {
                        Ok(tried) => tried,
                        Err(_) => continue,
                    },
                };
                match tried {
                    Ok(Tried::Admitted(opened)) => {
                        drop(failing);
                        self.first.store(at, Ordering::Relaxed);
                        return Ok(opened);
                    }
                    Ok(Tried::OtherCluster(found)) => {
                        other.get_or_insert((at, found));
                    }
                    // The reason to return. A server that is only busy still counts as in use.
                    Err(error) if may_serve(&error) => failure = Some(error),
                    Err(_)
                        if failure
                            .as_ref()
                            .is_some_and(|it| is_refusal(it) || may_serve(it)) => {}
                    Err(error) => failure = Some(error),
                }
            }
        }
        match (other, failure) {
            (Some((at, other)), failure) if !failure.as_ref().is_some_and(may_serve) => {
                let opened = self.follow(other).await?;
                self.first.store(at, Ordering::Relaxed);
                Ok(opened)
            }
            (_, Some(error)) => Err(error),
            (_, None) => Err(refused(Refusal::NoHost).await),
        }
    }

    async fn try_address(
        &self,
        mut config: Config,
        name: &str,
        purpose: Use,
    ) -> Result<Tried, Error> {
        config.application_name(name);
        let host = host_name(&config);
        let opened = self.connect(&config).await?;
        let settings = settings(purpose);
        // Both are sent at once and answered in one round trip.
        let (set, found) = join(
            opened.client.batch_execute(&settings),
            identity(&opened.client),
        )
        .await;
        set?;
        let found = match found? {
            Identity::Shown(found) => found,
            Identity::Standby => return Ok(Tried::Admitted(opened)),
            Identity::Hidden(why) => {
                let place = Some(opened.place.clone());
                return match self.admit_hidden(&host, why, place).await {
                    Admission::Refused(why) => Err(refused(why).await),
                    Admission::Granted | Admission::OtherCluster => Ok(Tried::Admitted(opened)),
                };
            }
        };
        if self.servers.admit_current(&host, found, &opened.place) {
            return Ok(Tried::Admitted(opened));
        }
        match self.admit(&host, found, &opened.place, false).await {
            Admission::Granted => Ok(Tried::Admitted(opened)),
            Admission::Refused(why) => Err(refused(why).await),
            Admission::OtherCluster => {
                let id = database_id(&opened.client).await?;
                if let Some(bound) = self.servers.bound_to_other(id) {
                    let why = Refusal::OtherDatabase {
                        host,
                        found: id,
                        bound,
                    };
                    return Err(refused(why).await);
                }
                let other = OtherCluster {
                    opened,
                    host,
                    found,
                };
                // The first server is not another one.
                if self.servers.current().is_none() {
                    return self.follow(other).await.map(Tried::Admitted);
                }
                Ok(Tried::OtherCluster(other))
            }
        }
    }

    /// Moves to another cluster, which holds the database.
    async fn follow(&self, other: OtherCluster) -> Result<Opened, Error> {
        let OtherCluster {
            opened,
            host,
            found,
        } = other;
        match self.admit(&host, found, &opened.place, true).await {
            Admission::Refused(why) => Err(refused(why).await),
            Admission::Granted | Admission::OtherCluster => Ok(opened),
        }
    }

    pub(super) async fn connect(&self, config: &Config) -> Result<Opened, Error> {
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

    async fn admit_hidden(&self, host: &str, why: String, place: Option<Place>) -> Admission {
        let (servers, host) = (Arc::clone(&self.servers), host.to_owned());
        let admitting =
            tokio::task::spawn_blocking(move || servers.admit_hidden(&host, &why, place.as_ref()));
        admitting
            .await
            .unwrap_or(Admission::Refused(Refusal::NoHost))
    }

    /// Checks every host at intervals, so that a promotion is seen while all sessions still reach the old primary. With
    /// one host there is nothing to check. Also retries to record a move that could not be recorded.
    ///
    /// Blocks: for ever
    /// Cancel: safe
    pub(super) async fn watch(&self, name: &str) {
        let hosts = if self.hosts.len() > 1 {
            &self.hosts[..]
        } else {
            &[]
        };
        let watching = join_all(hosts.iter().map(|host| self.watch_host(host, name)));
        let keeping = async {
            loop {
                let servers = Arc::clone(&self.servers);
                drop(tokio::task::spawn_blocking(move || servers.keep()).await);
                tokio::time::sleep(WATCH_EVERY).await;
            }
        };
        join(watching, keeping).await;
    }

    /// Looks at every host once, because a newer server may be among them.
    ///
    /// Blocks: at most 1 s per address of a host; a caller bounds it
    /// Cancel: safe
    pub(super) async fn look_at_all(&self, name: &str) {
        join_all(self.hosts.iter().map(|host| self.look_at(host, name))).await;
    }

    async fn look_at(&self, host: &Config, name: &str) {
        for mut config in addresses(host).await {
            config
                .application_name(name)
                .target_session_attrs(TargetSessionAttrs::Any);
            let connecting = config.connect(self.tls.clone());
            let Ok(Ok((client, connection))) = timeout(WATCH_WITHIN, connecting).await else {
                continue;
            };
            // It ends with its client.
            tokio::spawn(async move { drop(connection.await) });
            if let Ok(Ok(found)) = timeout(WATCH_WITHIN, identity(&client)).await {
                self.saw(&host_name(&config), found).await;
            }
        }
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
            Identity::Hidden(why) => drop(self.admit_hidden(host, why, None).await),
            _ => self.servers.forget_refusal(host),
        }
    }
}

/// A host that is tried. Unless the attempt succeeds, even if the caller gives up, the next connect begins after it.
struct Failing<'a> {
    route: &'a Route,
    at: usize,
}

impl Drop for Failing<'_> {
    fn drop(&mut self) {
        self.route.first.store(self.at + 1, Ordering::Relaxed);
    }
}

/// A server that may be used, or perhaps may.
enum Tried {
    Admitted(Opened),
    OtherCluster(OtherCluster),
}

/// A server of another cluster that holds the database.
struct OtherCluster {
    opened: Opened,
    host: String,
    found: Server,
}

/// Whether a server may be in use although it opened no session: it has too many sessions, is starting or stopping, or
/// ended this session. It is not in use if it cannot be reached, is refused, or lacks the database or the user.
fn may_serve(error: &Error) -> bool {
    if let Some(code) = error.code() {
        return !["08", "28", "3D"].contains(&&code.code()[..2]);
    }
    let source = std::error::Error::source(error);
    let ended = source.and_then(|source| source.downcast_ref::<io::Error>());
    let was_cut = ended.is_some_and(|error| {
        matches!(
            error.kind(),
            ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe
        )
    });
    error.is_closed() || was_cut
}

async fn identity(client: &Client) -> Result<Identity, Error> {
    let answer = match client.simple_query(IDENTITY).await {
        Ok(answer) => answer,
        Err(error) => {
            // Any other error says nothing about the server.
            let hides = error.as_db_error().filter(|db| HIDES.contains(db.code()));
            return match hides {
                Some(db) => Ok(Identity::Hidden(db.message().to_owned())),
                None => Err(error),
            };
        }
    };
    let Some(row) = first_row(&answer) else {
        return Ok(Identity::Standby);
    };
    Ok(match server_of(row) {
        Some(server) => Identity::Shown(server),
        None => Identity::Hidden("it returns no name of a WAL file".to_owned()),
    })
}

/// The row of an answer that has one.
pub(super) fn first_row(answer: &[SimpleQueryMessage]) -> Option<&SimpleQueryRow> {
    answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    })
}

/// A primary by its system identifier and the name of its newest WAL file.
pub(super) fn server_of(row: &SimpleQueryRow) -> Option<Server> {
    let timeline = row.get(1)?.get(..8)?;
    Some(Server {
        system: row.get(0)?.parse().ok()?,
        timeline: u32::from_str_radix(timeline, 16).ok()?,
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
