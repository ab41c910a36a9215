//! A database, and how sessions to it are opened.

use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::BuildError;
use futures_util::future::join_all;
use tokio_postgres::config::SslMode;

use super::lineage::Server;
use super::parameters::{Connection, connection, defaults};
use super::read_pool::{ReadPool, SESSION_WITHIN};
use super::reads::ReadServers;
use super::replicas::{MAX_LAG_LEAST, MAX_LAG_MOST, Replicas, TriedReplica, Ways, try_replica};
use super::route::Route;
use super::servers::{self, Bound, Keeping, Servers, ServersReport};
use super::sessions::{Opener, Session};
use super::settings::Use;
use super::tls::{TlsOptions, connector};

/// Everything that is wrong with a connection string and the files that it names.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct TargetError(pub Vec<String>);

/// Which replicas there are, and how far they may be behind.
#[derive(Clone)]
pub struct ReplicaSettings {
    /// The replicas: each host of the connection string is one.
    pub target: Target,
    /// A replica that is further behind is not asked.
    pub max_lag: Duration,
}

impl ReplicaSettings {
    /// The bounds of `max_lag`.
    pub const MAX_LAG: RangeInclusive<Duration> = MAX_LAG_LEAST..=MAX_LAG_MOST;
}

/// A database that sessions can be opened to.
#[derive(Clone)]
pub struct Target {
    route: Arc<Route>,
    /// The operator's name for this gateway, from the connection string.
    application: Option<String>,
}

impl Target {
    /// Reads a connection string as libpq does: a URL, or `name=value` pairs.
    ///
    /// `prefer` and `require` encrypt without checking the certificate, as libpq does without a
    /// root certificate; `verify-ca` and `verify-full` check it against `sslrootcert` or the
    /// system's authorities.
    ///
    /// Blocks: while it reads the certificate and key files that the string names
    ///
    /// # Errors
    /// [`TargetError`]: the operator must change the string or a file that it names. Of the string's
    /// values, messages repeat only the paths of files.
    pub fn from_url(url: &str) -> Result<Self, TargetError> {
        let Connection {
            hosts,
            tls,
            application,
        } = connection(url).map_err(TargetError)?;
        let tls = connector(&tls).map_err(TargetError)?;
        Ok(Target {
            route: Arc::new(Route::new(hosts, tls, Servers::default())),
            application,
        })
    }

    /// Names a server on a unix socket, such as the embedded one.
    ///
    /// # Errors
    /// [`TargetError`]: never in practice; no file is read.
    pub fn from_socket(
        directory: &Path,
        port: u16,
        user: &str,
        database: &str,
    ) -> Result<Self, TargetError> {
        let mut config = defaults();
        config
            .host_path(directory)
            .port(port)
            .user(user)
            .dbname(database)
            .ssl_mode(SslMode::Disable);
        let tls = connector(&TlsOptions::OFF).map_err(TargetError)?;
        Ok(Target {
            route: Arc::new(Route::new(vec![config], tls, Servers::default())),
            application: None,
        })
    }

    /// The same database, guarded by the lineage of servers that is kept in the log's directory.
    ///
    /// Without it, the lineage begins with the first session and ends with the process.
    ///
    /// # Errors
    /// I/O errors; `InvalidData` if the lineage file is damaged.
    pub fn guarded(&self, wal_dir: &Path, keeping: Keeping, bound: Bound) -> io::Result<Self> {
        let servers = Servers::load(wal_dir, keeping, bound)?;
        Ok(Target {
            route: Arc::new(self.route.with_servers(servers)),
            application: self.application.clone(),
        })
    }

    /// Records in the log's directory that the server which the sessions have reached is the one in use, as an
    /// operator requests. Returns a sentence about it.
    ///
    /// # Errors
    /// I/O errors.
    pub fn adopt_server(&self, wal_dir: &Path) -> io::Result<String> {
        let servers = self.route.servers();
        if let Some(server) = servers.current() {
            servers::adopt(wal_dir, server)?;
            let Server { system, timeline } = server;
            return Ok(format!(
                "the server in use is now that of cluster {system} on timeline {timeline}; make sure that \
                 no other server of it accepts writes"
            ));
        }
        if servers.uses_hidden() {
            servers::adopt_hidden(wal_dir)?;
            return Ok(
                "the server does not show its timeline: the record of servers is cleared, and an old \
                 primary will not be recognised"
                    .to_owned(),
            );
        }
        Ok("the server is a standby: the record of servers is as before".to_owned())
    }

    /// Sets what each move of the database to another server calls, under the lock of moves; the last call
    /// counts. It must not wait.
    pub fn on_move(&self, act: impl Fn() + Send + Sync + 'static) {
        self.route.servers().on_move(Box::new(act));
    }

    /// The servers, for health and metrics.
    pub fn servers(&self) -> ServersReport {
        self.route.servers().report()
    }

    /// Looks at every host at intervals, so that a promotion is seen while all sessions still reach the old
    /// primary. With one host there is nothing to look at.
    ///
    /// Blocks: for ever
    /// Cancel: safe
    pub async fn watch_servers(&self) {
        self.route
            .watch(&self.session_name("wattgate servers"))
            .await;
    }

    /// The name of a session on the server: its purpose, and the operator's name.
    fn session_name(&self, purpose: &str) -> String {
        match &self.application {
            Some(own) => format!("{purpose} ({own})"),
            None => purpose.to_owned(),
        }
    }

    /// Opens a session of its own.
    ///
    /// # Errors
    /// The errors of PostgreSQL or of the network; try again later.
    pub async fn connect(
        &self,
        name: &str,
        purpose: Use,
    ) -> Result<Session, tokio_postgres::Error> {
        Session::open(&self.route, &self.session_name(name), purpose).await
    }

    /// Makes the pool of the read path: bounded, apart from the writers' sessions.
    ///
    /// # Errors
    /// The errors of the pool's builder.
    pub fn pool(&self, size: usize) -> Result<ReadPool, BuildError> {
        let opener = Opener {
            route: Arc::clone(&self.route),
            name: self.session_name("wattgate reads"),
        };
        ReadPool::open(opener, size, SESSION_WITHIN)
    }

    /// Tries each replica once, for a command that has connected to the primary.
    ///
    /// Blocks: at most 5 s for connecting, and as long for its answers, for all replicas together
    pub async fn try_replicas(&self, settings: &ReplicaSettings) -> Vec<TriedReplica> {
        let routes = self.route.to_replicas(&settings.target.route);
        let name = settings.target.session_name("wattgate check");
        join_all(routes.iter().map(|route| try_replica(route, &name))).await
    }

    /// Makes the pools of the read path: of the primary, and of each replica.
    ///
    /// # Errors
    /// The errors of the pool's builder.
    pub fn reads(
        &self,
        size: usize,
        replicas: Option<&ReplicaSettings>,
    ) -> Result<ReadServers, BuildError> {
        let primary = self.pool(size)?;
        let Some(settings) = replicas else {
            return Ok(ReadServers::primary_alone(primary));
        };
        let replicas = &settings.target;
        let names = ["wattgate replica reads", "wattgate replica watch"];
        let ways = Ways {
            route: Arc::clone(&self.route),
            replicas: self.route.to_replicas(&replicas.route),
            names: names.map(|name| replicas.session_name(name)),
            max_lag: settings.max_lag,
        };
        Ok(ReadServers::with_replicas(
            primary,
            Replicas::new(ways, size)?,
        ))
    }
}
