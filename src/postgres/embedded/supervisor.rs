//! Keeps the server running until it is stopped.

use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, interval, sleep};

use super::pidfile;
use super::place::Place;
use super::server::{Launch, Server, Stopped};
use super::watcher::Watcher;

/// The first and the longest wait before a server that died is started again.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// How long a server must have run to reset the wait.
const STEADY: Duration = Duration::from_secs(60);
/// How often the size of the log is checked.
const LOG_INTERVAL: Duration = Duration::from_secs(2);
/// How long a server may take to stop after the handle was dropped.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// The state of the embedded server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Started, but not yet accepting connections: after a crash it recovers first.
    Starting,
    /// Accepting connections.
    Up,
    /// It died and is started again.
    Restarting {
        /// When it died.
        since: Instant,
        /// Its exit status and its error, in one line.
        reason: String,
    },
    /// Stopped on request.
    Stopped,
}

/// A request to stop, with its deadline. Dropping the sender is also a request.
pub(super) type StopRequest = oneshot::Receiver<Instant>;

/// The task that owns the server.
pub(super) struct Supervisor {
    pub(super) launch: Launch,
    pub(super) watcher: Watcher,
    pub(super) state: watch::Sender<State>,
    pub(super) stop: StopRequest,
    /// Holds the lock until the server has ended.
    pub(super) place: Place,
}

/// Why a server ends.
enum End {
    Requested(Instant),
    Died(String),
}

impl Supervisor {
    /// Runs until a stop is requested. Returns how the server was stopped.
    pub(super) async fn run(mut self, first: Server) -> Stopped {
        let mut running = Some(first);
        let mut backoff = Backoff::new();
        let deadline = loop {
            let since = Instant::now();
            let end = match running.as_mut() {
                Some(server) => self.tend(server).await,
                None => self.start_again(&mut running).await,
            };
            let reason = match end {
                None => continue,
                Some(End::Requested(deadline)) => break deadline,
                Some(End::Died(reason)) => reason,
            };
            running = None;
            let wait = backoff.after(since.elapsed());
            tracing::error!(
                "the embedded PostgreSQL died ({reason}); starting it again in {wait:?}"
            );
            self.set_restarting(reason);
            tokio::select! {
                () = sleep(wait) => {}
                requested = &mut self.stop => break deadline_of(requested),
            }
        };
        let stopped = match running.as_mut() {
            Some(server) => server.stop(deadline).await,
            None => Stopped::Forced,
        };
        self.watcher.finish().await;
        self.place.release(&self.launch.socket_dir);
        self.state.send_replace(State::Stopped);
        stopped
    }

    /// Starts a server after one that died.
    async fn start_again(&mut self, running: &mut Option<Server>) -> Option<End> {
        if let Err(error) = pidfile::clear(&self.launch.cluster, &self.launch.socket_dir).await {
            return Some(End::Died(error.to_string()));
        }
        match self.launch.start(&self.watcher) {
            Ok(server) => {
                *running = Some(server);
                None
            }
            Err(error) => Some(End::Died(format!("cannot be started: {error}"))),
        }
    }

    /// Waits until the server is ready and then until it ends. Meanwhile it replaces a dead watcher and
    /// rotates the log.
    async fn tend(&mut self, server: &mut Server) -> Option<End> {
        let mut look = interval(LOG_INTERVAL);
        let mut up = *self.state.borrow() == State::Up;
        loop {
            tokio::select! {
                biased;
                requested = &mut self.stop => return Some(End::Requested(deadline_of(requested))),
                change = next(&self.launch, server, up) => match change {
                    Ok(()) => {
                        up = true;
                        self.state.send_replace(State::Up);
                        tracing::info!("the embedded PostgreSQL is up");
                    }
                    Err(reason) => return Some(End::Died(reason)),
                },
                ended = self.watcher.ended() => {
                    tracing::warn!("the watcher of the embedded PostgreSQL died ({ended:?})");
                    self.replace_watcher(server.pid()).await;
                }
                _ = look.tick() => {
                    if let Err(error) = self.launch.log.rotate() {
                        let path = self.launch.log.path().display();
                        tracing::warn!("cannot rotate {path}: {error}");
                    }
                }
            }
        }
    }

    /// Starts another watcher for a running server. Without one, a kill of the gateway would leave the
    /// server behind.
    async fn replace_watcher(&mut self, pid: u32) {
        let started = Watcher::start(&self.launch.user).and_then(|mut watcher| {
            watcher.name(pid)?;
            Ok(watcher)
        });
        match started {
            Ok(watcher) => self.watcher = watcher,
            Err(error) => {
                tracing::error!("cannot start a watcher for the embedded PostgreSQL: {error}");
                sleep(BACKOFF_FIRST).await;
            }
        }
    }

    fn set_restarting(&self, reason: String) {
        self.state.send_modify(|state| {
            let since = match state {
                State::Restarting { since, .. } => *since,
                _ => Instant::now(),
            };
            *state = State::Restarting { since, reason };
        });
    }
}

/// Waits until a server becomes ready, or ends; the error explains why.
async fn next(launch: &Launch, server: &mut Server, up: bool) -> Result<(), String> {
    if !up {
        return launch.ready(server).await;
    }
    match server.ended().await {
        Ok(status) => Err(launch.why(server, status)),
        Err(error) => Err(error.to_string()),
    }
}

fn deadline_of(requested: Result<Instant, oneshot::error::RecvError>) -> Instant {
    requested.unwrap_or_else(|_| Instant::now() + STOP_LIMIT)
}

/// How long to wait before the next start.
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self {
            next: BACKOFF_FIRST,
        }
    }

    /// The wait after a server that ran for `ran`. It doubles, and a steady server resets it. Half of it is
    /// random, so that several gateways on a machine do not start in step.
    pub(super) fn after(&mut self, ran: Duration) -> Duration {
        if ran >= STEADY {
            self.next = BACKOFF_FIRST;
        }
        let whole = self.next;
        self.next = (whole * 2).min(BACKOFF_MAX);
        let chance = getrandom::u32().unwrap_or(u32::MAX / 2);
        whole / 2 + whole.mul_f64(f64::from(chance) / f64::from(u32::MAX) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_to_a_bound_and_resets_after_a_run() {
        let mut backoff = Backoff::new();
        let mut most = BACKOFF_FIRST;
        for _ in 0..12 {
            let wait = backoff.after(Duration::ZERO);
            assert!(wait >= most / 2 && wait <= most, "{wait:?} of {most:?}");
            most = (most * 2).min(BACKOFF_MAX);
        }
        assert!(backoff.after(STEADY) <= BACKOFF_FIRST);
    }
}
