//! A private PostgreSQL for a gateway that was given none.
//!
//! [`start`] finds the server's programs, makes a cluster once, tunes it for ingestion, and keeps
//! a server running on a unix socket until [`Embedded::stop`]. Its promises:
//!
//! - It is as durable as any PostgreSQL: fsync, full pages and synchronous commits stay on.
//! - No other user of the machine gets in: the socket's directory is the server's user's alone, and
//!   the server asks the kernel who connects (peer authentication).
//! - A start that was killed leaves no half of a cluster, a gateway that was killed leaves no
//!   server (it is gone within 20 s), and neither stops the next start.
//! - Ctrl-C reaches the gateway and not the server, which goes last.
//! - A server that dies is started again, while readings go on into the log.
//!
//! The files follow the order of a start: `place` and `user`, `find`, `pidfile` (what came
//! before), `cluster` and `settings`, `watcher`, `server`, `supervisor`. None of them
//! reads the environment, and nothing here knows of the gateway's tables.

mod cluster;
mod error;
mod find;
mod log;
mod pidfile;
mod place;
mod running;
mod server;
mod settings;
mod supervisor;
mod user;
mod watcher;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

pub use error::EmbeddedError;
pub use find::ProgramSearch;
pub use running::{exists, running};
pub use server::Stopped;
pub use supervisor::State;

use cluster::{configure, create, remove_unfinished};
use error::At;
use find::Programs;
use log::ServerLog;
use place::Place;
use server::{Launch, Server};
use settings::Machine;
use supervisor::{Backoff, Supervisor};
use watcher::Watcher;

/// The gateway's role, a superuser of its private server, and its database.
const USER: &str = "wattgate";
const DATABASE: &str = "wattgate";
/// Part of the socket's name only: there is no TCP. Fixed, so that a paste into psql stays valid.
const PORT: u16 = 5432;

/// Where a cluster goes whose data directory the server's user cannot enter, unless told.
const ELSEWHERE: &str = "/var/lib/wattgate";
/// How long a start waits for the server before it returns with [`State::Starting`].
const READY_WITHIN: Duration = Duration::from_secs(10);
/// How long a server that ends at once is tried again. After a crash of the whole tree, a backend
/// may still hold the old shared memory for a moment.
const FIRST_START_LIMIT: Duration = Duration::from_secs(3);

/// What the embedded server is made from.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// The gateway's data directory: the cluster is in `postgres/` in it.
    pub data_dir: PathBuf,
    /// Where the server's programs are.
    pub programs: ProgramSearch,
    /// Where the cluster goes when root runs the gateway and the server's user cannot enter the
    /// data directory. Durable, never a temporary directory.
    pub elsewhere: PathBuf,
    /// How long [`start`] waits for the server to take connections, before it leaves the rest (the
    /// recovery after a crash) to go on beside the gateway.
    pub ready_within: Duration,
}

impl EmbeddedConfig {
    /// Makes the usual configuration for a data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            programs: ProgramSearch::default(),
            elsewhere: PathBuf::from(ELSEWHERE),
            ready_within: READY_WITHIN,
        }
    }
}

/// How to reach the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The directory of the socket: the `host` of a libpq or `tokio_postgres` connection.
    pub socket_dir: PathBuf,
    /// The number in the socket's name.
    pub port: u16,
    /// The role, a superuser.
    pub user: String,
    /// The database.
    pub database: String,
}

impl Connection {
    /// Makes the configuration of a client.
    pub fn config(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(&self.socket_dir)
            .port(self.port)
            .user(&self.user)
            .dbname(&self.database);
        config
    }

    /// Gives the way to another database of the same server: tests take one each.
    pub fn with_database(&self, database: &str) -> Self {
        Self {
            database: database.to_owned(),
            ..self.clone()
        }
    }
}

/// A running embedded server.
///
/// Dropping it stops the server too, without waiting; a runtime that ends first leaves that to the
/// watcher.
#[derive(Debug)]
pub struct Embedded {
    connection: Connection,
    psql: PathBuf,
    cluster: PathBuf,
    max_wal_bytes: u64,
    state: watch::Receiver<State>,
    stop: oneshot::Sender<Instant>,
    task: JoinHandle<Stopped>,
}

/// Finds the programs that a new cluster would be created with; returns their major version.
///
/// # Errors
/// [`EmbeddedError::NotFound`] or [`EmbeddedError::BadPgBin`]: install PostgreSQL, or say where it
/// is.
pub fn programs(search: &ProgramSearch) -> Result<u32, EmbeddedError> {
    find::find(search, None).map(|found| found.major)
}

/// Starts the private server of a data directory, making its cluster if there is none.
///
/// Returns when the server takes connections, or after [`EmbeddedConfig::ready_within`] while it
/// still recovers: [`Embedded::state`] tells. A server left by a killed gateway is stopped first.
///
/// Blocks: never for long: small files are written in place, all else runs in child processes
/// Cancel: safe: programs that run are killed, a server that was started is stopped by its watcher
///
/// # Errors
/// All of [`EmbeddedError`], each one line for the operator. Nothing that exists is damaged, and
/// no server is left running.
pub async fn start(config: EmbeddedConfig) -> Result<Embedded, EmbeddedError> {
    let (data_dir, elsewhere) = (config.data_dir.clone(), config.elsewhere.clone());
    let place = Place::settle(&data_dir, &elsewhere)?;
    let cluster = place.cluster();
    let existing = cluster::version(&cluster)?;
    let existing_cluster = existing.map(|major| (cluster.as_path(), major));
    let programs = find::find(&config.programs, existing_cluster)?;
    remove_unfinished(&place.home).await?;
    if existing.is_none() {
        tracing::info!(
            "creating a PostgreSQL {} cluster in {}",
            programs.major,
            cluster.display()
        );
        create(&place.home, &place.user, &programs).await?;
    }
    let socket_dir = place.socket_dir()?;
    pidfile::make_way(&cluster, &socket_dir).await?;
    let machine = Machine::look(&cluster)?;
    configure(&cluster, &place.user, &settings::text(machine))?;
    let launch = Launch {
        user: place.user.clone(),
        log: ServerLog::new(&place.home),
        programs,
        cluster,
        socket_dir,
    };
    launch_first(
        launch,
        place,
        machine.max_wal_bytes(),
        Instant::now() + config.ready_within,
    )
    .await
}

async fn launch_first(
    launch: Launch,
    place: Place,
    max_wal_bytes: u64,
    ready_by: Instant,
) -> Result<Embedded, EmbeddedError> {
    let watcher = Watcher::start(&launch.user).at("start", Path::new("/bin/sh"))?;
    let (server, first_state) = first_server(&launch, &watcher, ready_by).await?;
    let connection = Connection {
        socket_dir: launch.socket_dir.clone(),
        port: PORT,
        user: USER.to_owned(),
        database: DATABASE.to_owned(),
    };
    let psql = psql_of(&launch.programs);
    let cluster = launch.cluster.clone();
    let (state, state_seen) = watch::channel(first_state);
    let (stop, stop_asked) = oneshot::channel();
    let supervisor = Supervisor {
        launch,
        watcher,
        state,
        stop: stop_asked,
        place,
    };
    let task = tokio::spawn(supervisor.run(server));
    Ok(Embedded {
        connection,
        psql,
        cluster,
        max_wal_bytes,
        state: state_seen,
        stop,
        task,
    })
}

/// Starts the first server; tries again for a moment, as what made it end may pass.
async fn first_server(
    launch: &Launch,
    watcher: &Watcher,
    ready_by: Instant,
) -> Result<(Server, State), EmbeddedError> {
    let give_up = Instant::now() + FIRST_START_LIMIT;
    let mut backoff = Backoff::new();
    loop {
        let mut server = launch
            .start(watcher)
            .at("start", &launch.programs.path("postgres"))?;
        let reason = match timeout_at(ready_by, launch.ready(&mut server)).await {
            Ok(Ok(())) => return Ok((server, State::Up)),
            Ok(Err(reason)) => reason,
            Err(_) => return Ok((server, State::Starting)),
        };
        let wait = backoff.after(Duration::ZERO);
        if Instant::now() + wait > give_up {
            return Err(EmbeddedError::Program {
                program: "postgres".to_owned(),
                status: "did not start".to_owned(),
                message: reason,
            });
        }
        sleep(wait).await;
    }
}

impl Embedded {
    /// Tells how to reach the server.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Watches what the server does.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Waits until the task that keeps the server running has ended by itself.
    ///
    /// Cancel: safe
    pub async fn ended(&self) {
        let mut state = self.state();
        // The task holds the sender.
        while state.changed().await.is_ok() {}
    }

    /// Gives a line that a person can paste into a shell, as root or as the gateway's user.
    pub fn psql_command(&self) -> String {
        let Connection {
            socket_dir,
            port,
            user,
            database,
        } = &self.connection;
        let (psql, host) = (shell_word(&self.psql), shell_word(socket_dir));
        format!("{psql} -h {host} -p {port} -U {user} -d {database}")
    }

    /// Gives the server's data directory, whose file system it shares with its WAL.
    pub fn cluster_dir(&self) -> &Path {
        &self.cluster
    }

    /// Gives the size of WAL at which the server makes a checkpoint: what admission leaves free on
    /// the disk beside the log.
    ///
    /// Units: bytes
    pub fn max_wal_bytes(&self) -> u64 {
        self.max_wal_bytes
    }

    /// Stops the server, after everything that uses it: sessions that are open are ended.
    ///
    /// Blocks: until the server is gone; a checkpoint is written. At the deadline an immediate
    /// shutdown follows, which takes at most 7 s more
    /// Cancel: safe: the server is stopped all the same
    pub async fn stop(self, deadline: Duration) -> Stopped {
        // The task is there as long as it has not ended; one that ended has stopped the server.
        if self.stop.send(Instant::now() + deadline).is_err() {
            tracing::debug!("the embedded PostgreSQL was stopped before");
        }
        self.task.await.unwrap_or(Stopped::Forced)
    }
}

fn psql_of(programs: &Programs) -> PathBuf {
    let beside = programs.path("psql");
    if beside.is_file() {
        beside
    } else {
        PathBuf::from("psql")
    }
}

/// Quotes a path for a shell.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@".contains(c);
    if text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pasted_path_stays_one_word() {
        assert_eq!(shell_word(Path::new("/srv/data-1/run")), "/srv/data-1/run");
        assert_eq!(
            shell_word(Path::new("/my data/it's")),
            "'/my data/it'\\''s'"
        );
    }
}
