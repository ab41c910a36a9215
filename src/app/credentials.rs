//! Keys and certificates: opened at the start, renewed while the gateway runs.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;

use super::AppError;
use crate::auth::{AuthMode, Keyring};
use crate::config::Config;
use crate::http::server::tls::{Refresh, Tls};
use crate::outage::Outage;
use crate::reading::Timestamp;

/// How often the files are checked. Why a second: a revoked key must be refused within five, and a
/// certificate renewed within thirty, however busy the disk is.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// The keys for `/v1`, and the certificates that encrypt connections.
#[derive(Clone)]
pub(crate) struct Credentials {
    /// `None` means that every client may call.
    pub(crate) keys: Option<Arc<Keyring>>,
    /// `None` means that connections are not encrypted.
    pub(crate) tls: Option<Arc<Tls>>,
}

impl Credentials {
    /// The scheme of the gateway's URL.
    pub(super) fn scheme(&self) -> &'static str {
        match self.tls {
            Some(_) => "https",
            None => "http",
        }
    }

    /// Reads the configured keys and certificates, and warns about an open or unencrypted address.
    pub(crate) fn open(config: &Config) -> Result<Self, AppError> {
        let tls = config.tls.clone().map(Tls::open).transpose()?.map(Arc::new);
        let keys = match config.auth {
            AuthMode::Keys => Some(Arc::new(Keyring::open(&config.data.dir)?)),
            AuthMode::Off => None,
        };
        match &keys {
            None if !config.listen.ip().is_loopback() => tracing::warn!(
                "--auth off: every client that can reach {} may read and write",
                config.listen
            ),
            Some(keys) if keys.usable(Timestamp::now()) == 0 => tracing::warn!(
                "there is no key, so every request to /v1 is refused; create one with: wattgate keys \
                 create --data-dir {} --name NAME --rights ingest,read,admin",
                config.data.dir.display()
            ),
            _ => {}
        }
        if keys.is_some() && tls.is_none() && !config.listen.ip().is_loopback() {
            tracing::warn!("without --tls-cert, keys and readings cross the network unencrypted");
        }
        Ok(Credentials { keys, tls })
    }

    /// Reads changed files again, until it is cancelled. SIGHUP rereads the certificate even if it looks
    /// unchanged.
    pub(crate) async fn renew(self, mut hangup: Signal) {
        let mut every = tokio::time::interval(CHECK_EVERY);
        let (mut of_keys, mut of_tls) = (Outage::default(), Outage::default());
        loop {
            let when = tokio::select! {
                _ = every.tick() => Refresh::IfChanged,
                _ = hangup.recv() => Refresh::Always,
            };
            let renewed = self.clone();
            let refreshed = tokio::task::spawn_blocking(move || {
                let keys = renewed.keys.map(|keys| keys.refresh());
                let tls = renewed.tls.map(|tls| tls.refresh(when));
                (keys, tls)
            });
            match refreshed.await {
                Ok((keys, tls)) => {
                    log_renewal(&mut of_keys, "the keys", keys);
                    log_renewal(&mut of_tls, "the certificate", tls);
                }
                Err(error) => tracing::error!(%error, "the check for changed files panicked"),
            }
        }
    }
}

/// Logs the outcome of a renewal. A failure that repeats is logged once.
fn log_renewal<E: Display>(outage: &mut Outage, what: &str, renewed: Option<Result<bool, E>>) {
    match renewed {
        None => {}
        Some(Ok(changed)) => {
            outage.ends();
            if changed {
                tracing::info!("reloaded {what}");
            }
        }
        Some(Err(error)) => {
            let error = error.to_string();
            if outage.changes(&error) {
                tracing::error!(
                    error,
                    "cannot reload {what}; what was loaded before stays in use"
                );
            }
        }
    }
}
