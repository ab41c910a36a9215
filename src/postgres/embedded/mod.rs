//! A private PostgreSQL for a gateway without a database URL.
//!
//! [`start`] finds the server's programs, creates a cluster once, tunes it for ingestion, and keeps a
//! server running on a unix socket until [`Embedded::stop`]. It guarantees:
//!
//! - The server is as durable as any PostgreSQL: fsync, full pages and synchronous commits stay on.
//! - No other user of the machine can connect: only the server's user can enter the socket's directory, and
//!   the kernel identifies the clients (peer authentication).
//! - A killed start leaves no half of a cluster. A killed gateway leaves no server for more than 20 s.
//!   Neither prevents the next start.
//! - Ctrl-C reaches the gateway but not the server, which stops last.
//! - A server that dies is started again, while the log accepts readings.
//!
//! The files follow the order of a start: `place` and `user`, `find`, `pidfile` (an earlier server),
//! `cluster` and `settings`, `watcher`, `server`, `supervisor`. None of them reads the environment or knows
//! the gateway's tables.

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
/// Only a part of the socket's name, because there is no TCP. Fixed, so that a pasted psql command stays valid.
const PORT: u16 = 5432;

/// The default place of a cluster whose data directory the server's user cannot enter.
const ELSEWHERE: &str = "/var/lib/wattgate";
/// How long a start waits for the server before it returns with [`State::Starting`].
const READY_WITHIN: Duration = Duration::from_secs(10);
/// How long a start keeps retrying when the first server exits immediately. After a crash of all
/// processes, a backend may hold the old shared memory for a short time.
const FIRST_START_LIMIT: Duration = Duration::from_secs(3);

/// The options of the embedded server.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// The gateway's data directory; the cluster is in its `postgres/`.
    pub data_dir: PathBuf,
    /// Where the server's programs are.
    pub programs: ProgramSearch,
    /// Where the cluster is created if root runs the gateway and the server's user cannot enter the data
    /// directory. It must be durable, never a temporary directory.
    pub elsewhere: PathBuf,
    /// How long [`start`] waits until the server accepts connections. After that, a recovery continues while
    /// the gateway runs.
    pub ready_within: Duration,
}

impl EmbeddedConfig {
    /// Makes the default options for a data directory.
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

    /// Names another database of the same server; each test uses its own.
    pub fn with_database(&self, database: &str) -> Self {
        Self {
            database: database.to_owned(),
            ..self.clone()
        }
    }
}

/// A running embedded server.
///
/// Dropping it also stops the server, without waiting. If the runtime ends first, the watcher stops it.
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
/// [`EmbeddedError::NotFound`] or [`EmbeddedError::BadPgBin`]: install PostgreSQL, or name its directory.
pub fn programs(search: &ProgramSearch) -> Result<u32, EmbeddedError> {
    find::find(search, None).map(|found| found.major)
}

/// Starts the private server of a data directory, and creates its cluster if it does not exist.
///
/// Returns when the server accepts connections, or after [`EmbeddedConfig::ready_within`] while it
/// recovers; see [`Embedded::state`]. A server left by a killed gateway is stopped first.
///
/// Blocks: for small files only; all other work runs in child processes
/// Cancel: safe; running programs are killed, and the watcher stops a started server
///
/// # Errors
/// [`EmbeddedError`], each one line for the operator. Nothing is damaged, and no server is left running.
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
    pidfile::clear(&cluster, &socket_dir).await?;
    let machine = Machine::read(&cluster)?;
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
    let (stop, stop_requested) = oneshot::channel();
    let supervisor = Supervisor {
        launch,
        watcher,
        state,
        stop: stop_requested,
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

/// Starts the first server, and tries again for a moment, because the cause of its end may pass.
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
    /// How to reach the server.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Watches the state of the server.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Waits until the task that keeps the server running has ended by itself.
    ///
    /// Cancel: safe
    pub async fn ended(&self) {
        let mut state = self.state();
        // The task owns the sender.
        while state.changed().await.is_ok() {}
    }

    /// The command that reaches the database, for a shell of root or of the gateway's user.
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

    /// The server's data directory, which also holds its WAL.
    pub fn cluster_dir(&self) -> &Path {
        &self.cluster
    }

    /// The size of WAL at which the server makes a checkpoint. The log leaves this room free on a shared
    /// disk.
    ///
    /// Units: bytes
    pub fn max_wal_bytes(&self) -> u64 {
        self.max_wal_bytes
    }

    /// Stops the server and ends open sessions. Stop everything that uses it first.
    ///
    /// Blocks: until the server has written a checkpoint and ended. At the deadline an immediate shutdown
    ///         follows, which takes at most 7 s more
    /// Cancel: safe; the server is stopped nevertheless
    pub async fn stop(self, deadline: Duration) -> Stopped {
        // A task that has ended has stopped the server.
        if self.stop.send(Instant::now() + deadline).is_err() {
            tracing::debug!("the embedded PostgreSQL had already stopped");
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
