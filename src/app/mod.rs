//! The one place that wires, starts and stops everything.

pub(crate) mod credentials;
mod demo;
mod gateway;
mod notify;
mod parts;
pub(crate) mod questions;
mod run;
mod signals;
mod supervise;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use crate::auth::KeyFileError;
use crate::config::{ConfigErrors, DataConfig, LogFormat, Logging, MigrateConfig};
use crate::postgres::embedded;
use crate::postgres::embedded::{Embedded, EmbeddedConfig, EmbeddedError};
use crate::postgres::migrations::{MigrationError, migrate};
use crate::postgres::{Bound, Keeping, Target, TargetError, Use, explain};
use crate::wal::OpenError;
use crate::wal::storage::DirectoryError;
use crate::writer::binding::Binding;
pub use demo::run as demo;
pub use run::serve;

/// How long a stop waits for the embedded server's own shutdown.
const EMBEDDED_STOP: Duration = Duration::from_secs(20);

/// Why the program ends without success.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The arguments of a command are wrong.
    #[error("{0}")]
    Arguments(String),
    /// A command that only reads has found no database.
    #[error(
        "there is no embedded PostgreSQL in {path}: name the data directory of a gateway with \
         --data-dir (WATTGATE_DATA_DIR), or its database with --database-url (DATABASE_URL)"
    )]
    NoDatabase {
        /// The data directory.
        path: std::path::PathBuf,
    },
    /// A command finds no log.
    #[error(
        "there is no write-ahead log in {path}: {source}; name the data directory of a gateway \
         with --data-dir (WATTGATE_DATA_DIR)"
    )]
    NoLog {
        /// The log's directory.
        path: std::path::PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The gateway cannot listen on the address.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The embedded PostgreSQL does not start.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// The database URL cannot be used.
    #[error("--database-url (DATABASE_URL): {0}")]
    Target(#[from] TargetError),
    /// The log's directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The log has failed while it was in use (invariant 11).
    #[error("{0}; the log holds everything that was acknowledged before")]
    LogFailed(String),
    /// A part of the gateway has panicked or returned.
    #[error(
        "the part \"{part}\" ended unexpectedly: {how}; all acknowledged readings are in the log"
    )]
    PartEnded {
        /// Its name.
        part: String,
        /// How it has ended.
        how: String,
    },
    /// The log would lie where a sync guarantees nothing.
    #[error(
        "{path} is on {kind}, where synced data may be lost: choose another --data-dir, or allow it \
         with --wal-allow-volatile"
    )]
    Volatile {
        /// The log's directory.
        path: std::path::PathBuf,
        /// The kind of file system.
        kind: &'static str,
    },
    /// A command about the log has failed.
    #[error("{0}")]
    Wal(String),
    /// Everything that keeps a gateway from working, a line each.
    #[error("{0}")]
    Check(String),
    /// A vehicle cannot be erased.
    #[error("{0}")]
    Erase(String),
    /// The database cannot be reached.
    #[error("cannot reach the database: {0}")]
    Database(String),
    /// A migration failed.
    #[error("cannot migrate the database: {0}")]
    Migration(#[from] MigrationError),
    /// The API keys cannot be read or changed.
    #[error(transparent)]
    Keys(#[from] crate::auth::KeyFileError),
    /// The files of TLS cannot be used.
    #[error("TLS: {0}")]
    Tls(#[from] crate::http::server::tls::TlsError),
    /// The process itself cannot be set up.
    #[error("cannot start: {0}")]
    Start(String),
}

impl AppError {
    /// The exit code: 2 means that the operator must change the configuration or the arguments, 1 means
    /// everything else.
    pub fn exit_code(&self) -> u8 {
        let is_configuration = match self {
            AppError::Config(_)
            | AppError::Arguments(_)
            | AppError::NoDatabase { .. }
            | AppError::NoLog { .. }
            | AppError::Target(_)
            | AppError::Volatile { .. }
            | AppError::Tls(_) => true,
            AppError::Directory(error) => matches!(error, DirectoryError::Io { .. }),
            AppError::Keys(error) => matches!(error, KeyFileError::Malformed { .. }),
            AppError::Embedded(error) => matches!(error, EmbeddedError::BadPgBin { .. }),
            _ => false,
        };
        if is_configuration { 2 } else { 1 }
    }
}

/// The configured database: on a server, or embedded and running.
pub(crate) struct Database {
    pub(crate) target: Target,
    pub(crate) embedded: Option<Embedded>,
}

impl Database {
    pub(crate) async fn open(
        config: &DataConfig,
        ready_within: Duration,
    ) -> Result<Self, AppError> {
        if let Some(target) = &config.server {
            return Ok(Database {
                target: target.clone(),
                embedded: None,
            });
        }
        let server = embedded::start(EmbeddedConfig {
            programs: config.programs.clone(),
            ready_within,
            ..EmbeddedConfig::new(&config.dir)
        })
        .await?;
        let at = server.connection();
        let target = Target::from_socket(&at.socket_dir, at.port, &at.user, &at.database)?;
        Ok(Database {
            target,
            embedded: Some(server),
        })
    }

    /// Connects to the database of a gateway that may or may not be running. The embedded server is
    /// started unless it is up, and never created, because a mistyped data directory must not
    /// become a new, empty database.
    pub(crate) async fn reach(config: &DataConfig) -> Result<Self, AppError> {
        if config.server.is_none()
            && let Some(at) = embedded::running(&config.dir).await
        {
            return Ok(Database {
                target: Target::from_socket(&at.socket_dir, at.port, &at.user, &at.database)?,
                embedded: None,
            });
        }
        if config.server.is_none() && !embedded::exists(&config.dir) {
            return Err(AppError::NoDatabase {
                path: config.dir.clone(),
            });
        }
        Database::open(config, Duration::from_secs(30)).await
    }

    /// The same for a command that must not use an old primary.
    pub(crate) async fn reach_guarded(config: &DataConfig) -> Result<Self, AppError> {
        let mut database = Database::reach(config).await?;
        match database.guard_command(config) {
            Ok(()) => Ok(database),
            Err(error) => {
                database.close().await;
                Err(error)
            }
        }
    }

    fn guard_command(&mut self, config: &DataConfig) -> Result<(), AppError> {
        if config.server.is_none() {
            return Ok(());
        }
        let wal_dir = config.wal_dir();
        // Nothing is recorded there. `wattgate check` reports the directory, and continues.
        if std::fs::metadata(&wal_dir).is_err_and(|e| e.kind() == ErrorKind::NotADirectory) {
            return Ok(());
        }
        let binding = Binding::load(&wal_dir)
            .map_err(|e| AppError::Start(format!("{}: {e}", wal_dir.display())))?;
        let bound = Arc::new(move || binding.bound());
        self.guard(&wal_dir, bound, Keeping::Reads)
    }

    /// Guards a database on the operator's own servers against an old primary. An embedded server is always the only
    /// one.
    pub(crate) fn guard(
        &mut self,
        wal_dir: &Path,
        bound: Bound,
        keeping: Keeping,
    ) -> Result<(), AppError> {
        if self.embedded.is_none() {
            let guarded = self.target.guarded(wal_dir, keeping, bound);
            self.target =
                guarded.map_err(|e| AppError::Start(format!("{}: {e}", wal_dir.display())))?;
        }
        Ok(())
    }

    pub(crate) async fn close(self) {
        if let Some(server) = self.embedded {
            server.stop(EMBEDDED_STOP).await;
        }
    }
}

/// Applies the migrations, then returns. Creates the embedded database if it does not exist.
///
/// # Errors
/// [`AppError`]: nothing half-done is left.
pub async fn migrate_only(config: &MigrateConfig) -> Result<(), AppError> {
    let mut database = Database::open(&config.data, Duration::from_secs(30)).await?;
    let result = async {
        if config.data.server.is_some() {
            // An operator prepares another database in this way. `wal adopt` then binds the log to it.
            let any = Arc::new(|| None);
            database.guard(&config.data.wal_dir(), any, Keeping::Reads)?;
        }
        let session = database
            .target
            .connect("wattgate migrate", Use::Migration)
            .await
            .map_err(|e| AppError::Database(explain(&e)))?;
        migrate(session.client(), config.history).await?;
        Ok(())
    }
    .await;
    database.close().await;
    result
}

/// Starts writing events to stderr.
///
/// # Errors
/// [`AppError::Start`]: the level is not a filter, or another subscriber is installed.
pub fn start_events(logging: &Logging) -> Result<(), AppError> {
    let filter = EnvFilter::try_new(&logging.level)
        .map_err(|e| AppError::Start(format!("--log-level {}: {e}", logging.level)))?;
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let json = match logging.format {
        Some(format) => format == LogFormat::Json,
        None => !terminal,
    };
    let events = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(terminal);
    let started = if json {
        events.json().try_init()
    } else {
        events.try_init()
    };
    started.map_err(|e| AppError::Start(e.to_string()))
}

/// Makes the runtime of all asynchronous tasks.
///
/// # Errors
/// [`AppError::Start`]: the system refuses threads.
pub fn runtime() -> Result<tokio::runtime::Runtime, AppError> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("wattgate")
        .build()
        .map_err(|e| AppError::Start(e.to_string()))
}
