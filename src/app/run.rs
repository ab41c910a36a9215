//! The gateway from its start to its end.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::credentials::Credentials;
use super::gateway::Gateway;
use super::parts::{Parts, ended_by_itself};
use super::supervise::{Supervisor, WritersSlot};
use super::{AppError, Database, notify, signals};
use crate::config::Config;
use crate::demo;
use crate::failpoint;
use crate::http::{self, Server};
use crate::metrics;
use crate::postgres::Keeping;
use crate::wal::medium::unsafe_kind;
use crate::wal::progress::Progress;
use crate::wal::storage::{Directory, is_full};
use crate::wal::{Log, SyncMode};
use crate::writer::binding::Binding;

/// How long the gateway waits for the embedded server before it listens without it. After a crash the server may still
/// be recovering while readings are already accepted.
const EMBEDDED_READY: Duration = Duration::from_secs(1);
/// How long a stop waits for the writers after the log has failed. Short, because the rest may be unreadable.
const FAILED_STOP: Duration = Duration::from_secs(5);

/// Runs the gateway until it is stopped.
///
/// Blocks: until SIGTERM or SIGINT, then until everything is stored or the deadline has passed
///
/// # Errors
/// [`AppError`]: it could not start, or the log has failed.
pub async fn serve(config: Config) -> Result<(), AppError> {
    let mut signals = signals::Signals::new().map_err(|e| AppError::Start(e.to_string()))?;
    let hangup = signals::hangup().map_err(|e| AppError::Start(e.to_string()))?;
    signals::raise_open_files();
    let recorder = metrics::install().map_err(|e| AppError::Start(e.to_string()))?;
    let server = Server::bind(config.listen).map_err(|source| AppError::Listen {
        address: config.listen,
        source,
    })?;
    let address = server
        .local_addr()
        .map_err(|e| AppError::Start(e.to_string()))?;
    // The lock of the log also protects the embedded server from a second gateway.
    let wal_dir = config.data.wal_dir();
    let directory = open_directory(&config, &wal_dir)?;
    let binding = open_binding(&wal_dir)?;
    let credentials = Credentials::open(&config)?;
    let options = config.log;
    let opening = tokio::task::spawn_blocking(move || Log::open(Arc::new(directory), options));
    let (database, log) = tokio::join!(Database::open(&config.data, EMBEDDED_READY), opening);
    let log = log.map_err(|e| AppError::Start(e.to_string()))?;
    let (database, log) = match (database, log) {
        (Ok(database), Ok(log)) => (database, log),
        (Err(error), _) => return Err(error),
        (Ok(database), Err(error)) => {
            database.close().await;
            return Err(error.into());
        }
    };
    let database = guarded(database, &wal_dir, &binding).await?;
    let mut gateway = Gateway::new(&config, &credentials, &database, &log, recorder)?;
    announce(address, credentials.scheme(), &database);
    if config.log.sync == SyncMode::Never {
        tracing::warn!("--wal-sync never: a power cut loses acknowledged readings");
    }
    let supervisor = Supervisor::start(&config, &database.target, &log, &binding, &mut gateway);
    gateway
        .parts
        .start("keys and certificates", credentials.renew(hangup));
    start_optional(&config, address, &log, &mut gateway);
    let (stop, stopping) = watch::channel(false);
    let serving = http::serve(server, Arc::clone(&gateway.context), until(stopping));
    let mut serving = tokio::spawn(failpoint::part("server", serving));
    let failure = tokio::select! {
        () = signals.next() => None,
        failure = first_failure(&log, &database, &mut gateway.parts, &mut serving) => Some(failure),
    };
    tracing::info!("stopping: no more readings are accepted");
    gateway.health.set_stopping();
    notify::stopping();
    stop.send_replace(true);
    // A server that has ended was handled above.
    if !serving.is_finished()
        && let Err(error) = serving.await
    {
        tracing::error!(%error, "the server panicked");
    }
    let writers = supervisor.stop().await;
    let within = match failure {
        Some(AppError::LogFailed(_)) => FAILED_STOP,
        _ => config.shutdown_timeout,
    };
    finish(within, gateway, log, writers, &mut signals).await;
    database.close().await;
    tracing::info!("stopped");
    failure.map_or(Ok(()), Err)
}

/// Starts the parts that few gateways have.
fn start_optional(config: &Config, address: SocketAddr, log: &Log, gateway: &mut Gateway) {
    if config.service_manager {
        let health = Arc::clone(&gateway.health);
        let informed = notify::keep_informed(health, log.source());
        gateway.parts.start("service manager", informed);
    }
    if config.demo {
        gateway.health.set_demo();
        gateway.parts.start("demo", demo::play(address));
    }
}

/// Waits until the log has failed or a part of the gateway has ended by itself.
async fn first_failure(
    log: &Log,
    database: &Database,
    parts: &mut Parts,
    serving: &mut JoinHandle<()>,
) -> AppError {
    let mut failed = log.progress().watch_failed();
    let log_failed = async {
        let failure = failed.wait_for(Option::is_some).await;
        let reason = failure.ok().and_then(|reason| reason.clone());
        AppError::LogFailed(reason.unwrap_or_default())
    };
    let server_ended = async {
        match serving.await {
            Ok(()) => ended_by_itself("server", "it returned".to_owned()),
            Err(error) => ended_by_itself("server", error.to_string()),
        }
    };
    let database_ended = async {
        match &database.embedded {
            Some(server) => server.ended().await,
            None => std::future::pending().await,
        }
        ended_by_itself("embedded database", "its supervisor ended".to_owned())
    };
    tokio::select! {
        failure = log_failed => failure,
        failure = parts.ended() => failure,
        failure = server_ended => failure,
        failure = database_ended => failure,
    }
}

/// Opens the log's directory. A file system that may lose synced data is an error, unless the operator
/// allows it.
fn open_directory(config: &Config, wal_dir: &Path) -> Result<Directory, AppError> {
    let directory = Directory::open(wal_dir)?;
    match unsafe_kind(wal_dir).map_err(|e| AppError::Start(e.to_string()))? {
        None => {}
        Some(kind) if config.wal_allow_volatile => tracing::warn!(
            kind,
            "--wal-allow-volatile: acknowledged readings may be lost with the file system"
        ),
        Some(kind) => {
            return Err(AppError::Volatile {
                path: wal_dir.to_owned(),
                kind,
            });
        }
    }
    Ok(directory)
}

/// Reads which database the log is bound to, and reserves the room to bind it later.
fn open_binding(wal_dir: &Path) -> Result<Arc<Binding>, AppError> {
    let failed = |e: std::io::Error| AppError::Start(format!("{}: {e}", wal_dir.display()));
    let binding = Binding::load(wal_dir).map_err(failed)?;
    match binding.reserve() {
        // There is room again once the writers have stored what is in the log.
        Err(error) if is_full(&error) => {}
        result => result.map_err(failed)?,
    }
    Ok(Arc::new(binding))
}

/// Guards the database against an old primary.
async fn guarded(
    mut database: Database,
    wal_dir: &Path,
    binding: &Arc<Binding>,
) -> Result<Database, AppError> {
    let binding = Arc::clone(binding);
    let bound = Arc::new(move || binding.bound());
    match database.guard(wal_dir, bound, Keeping::Writes) {
        Ok(()) => Ok(database),
        Err(error) => {
            database.close().await;
            Err(error)
        }
    }
}

/// Closes the log, lets the writers catch up, and stops the rest.
async fn finish(
    within: Duration,
    gateway: Gateway,
    log: Log,
    writers: WritersSlot,
    signals: &mut signals::Signals,
) {
    gateway.parts.stop().await;
    drop(gateway.context);
    let progress = Arc::clone(log.progress());
    let closed = tokio::task::spawn_blocking(move || log.close()).await;
    if let Some(writers) = writers {
        tokio::select! {
            _ = writers.finish(within) => {}
            // After a second signal, unstored readings stay in the log.
            () = signals.next() => {}
        }
    }
    warn_of_what_is_left(&progress);
    if let Ok(closed) = closed {
        tokio::task::spawn_blocking(move || closed.stop())
            .await
            .ok();
    }
}

/// Logs how many readings are left in the log, if any are.
fn warn_of_what_is_left(progress: &Progress) {
    if progress.oldest_waits().is_zero() {
        return;
    }
    let snapshot = progress.snapshot();
    let settled = snapshot.tally.readings().sum();
    let readings = snapshot.accepted.sum().saturating_sub(settled);
    tracing::warn!(
        readings,
        "not all readings are stored; the rest stays in the log and is stored after the next start"
    );
}

/// Prints where the gateway and its database are.
#[expect(
    clippy::print_stdout,
    reason = "scripts read the address from the first line of stdout"
)]
fn announce(address: SocketAddr, scheme: &str, database: &Database) {
    println!("listening on {scheme}://{address}");
    if let Some(server) = &database.embedded {
        println!("database: {}", server.psql_command());
    }
    // If stdout is closed, there is no one to tell.
    std::io::stdout().flush().ok();
    tracing::info!(%address, "listening");
}

async fn until(mut stopping: watch::Receiver<bool>) {
    // A dropped sender stops the server too.
    stopping.wait_for(|stop| *stop).await.ok();
}
