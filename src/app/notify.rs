//! Messages to a service manager such as systemd: ready, the state in a line, alive, stopping.
//!
//! The gateway is ready for a service manager as soon as it accepts readings, with or without the database. `systemctl
//! status` shows the rest. A part that panics or a log that fails ends the process by itself; the watchdog catches a
//! process that no longer runs anything.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::http::Health;
use crate::wal::LogSource;

/// How often the state is looked at, if there is no watchdog that is faster.
const EVERY: Duration = Duration::from_secs(5);

/// Reports that the gateway stops. Without a service manager nothing happens.
pub(super) fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// Reports that readings are accepted, and from then on the state and that the process is alive, until it is cancelled.
pub(super) async fn keep_informed(health: Arc<Health>, log: LogSource) {
    let watchdog = sd_notify::watchdog_enabled();
    // Twice in the time after which the service manager would restart the gateway.
    let every = watchdog.map_or(EVERY, |within| EVERY.min(within / 2));
    let mut every = tokio::time::interval(every.max(Duration::from_millis(1)));
    let mut shown = String::new();
    send(&[NotifyState::Ready]);
    loop {
        every.tick().await;
        if watchdog.is_some() {
            send(&[NotifyState::Watchdog]);
        }
        let state = health.report(log.progress()).in_a_line();
        if state != shown {
            send(&[NotifyState::Status(&state)]);
            shown = state;
        }
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager cannot be reached");
    }
}
