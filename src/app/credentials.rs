//! Keys and certificates: opened at the start, renewed while the gateway runs.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;

use super::AppError;
use crate::auth::Keyring;
use crate::config::{AuthMode, Config};
use crate::http::server::tls::Tls;
use crate::reading::Timestamp;

/// How often the files are looked at. Why a second: a key that is revoked is refused within five,
/// and a certificate is renewed within thirty, whatever else the disk has to do.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What decides who gets in.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) keys: Option<Arc<Keyring>>,
    pub(crate) tls: Option<Arc<Tls>>,
}

impl Door {
    /// Reads keys and certificates as the configuration asks, and warns of what is left open.
    pub(crate) fn open(config: &Config) -> Result<Self, AppError> {
        let tls = config.tls.clone().map(Tls::open).transpose()?.map(Arc::new);
        let keys = match config.auth {
            AuthMode::Keys => Some(Arc::new(Keyring::open(&config.data_dir)?)),
            AuthMode::Off => None,
        };
        match &keys {
            None if !config.listen.ip().is_loopback() => tracing::warn!(
                "--auth off: every client that reaches {} may write and read",
                config.listen
            ),
            Some(keys) if keys.usable(Timestamp::now()) == 0 => tracing::warn!(
                "there is no key, so every request to /v1 is refused; create one with: wattgate keys \
                 create --data-dir {} --name NAME --rights ingest,read,admin",
                config.data_dir.display()
            ),
            _ => {}
        }
        if keys.is_some() && tls.is_none() && !config.listen.ip().is_loopback() {
            tracing::warn!("without --tls-cert, keys and readings cross the network unencrypted");
        }
        Ok(Door { keys, tls })
    }

    /// Takes up what changes on disk, until it is cancelled; at SIGHUP, the certificate in any
    /// case.
    pub(crate) async fn renew(self, mut hangup: Signal) {
        let mut every = tokio::time::interval(LOOK_EVERY);
        let (mut keys_said, mut tls_said) = (String::new(), String::new());
        loop {
            let asked = tokio::select! {
                _ = every.tick() => false,
                _ = hangup.recv() => true,
            };
            let door = self.clone();
            let looked = tokio::task::spawn_blocking(move || {
                let keys = door.keys.map(|keys| keys.refresh());
                let tls = door.tls.map(|tls| tls.refresh(asked));
                (keys, tls)
            });
            match looked.await {
                Ok((keys, tls)) => {
                    say(&mut keys_said, "the keys", keys);
                    say(&mut tls_said, "the certificate", tls);
                }
                Err(error) => tracing::error!(%error, "checking for changed files has panicked"),
            }
        }
    }
}

/// Says what has become of a renewal; the same failure once.
fn say<E: Display>(said: &mut String, what: &str, renewed: Option<Result<bool, E>>) {
    let Some(renewed) = renewed else { return };
    let now = match renewed {
        Ok(changed) => {
            if changed {
                tracing::info!("{what}: read again");
            }
            String::new()
        }
        Err(error) => error.to_string(),
    };
    if !now.is_empty() && now != *said {
        tracing::error!(
            error = now,
            "{what}: cannot be read again; the old ones stay in use"
        );
    }
    *said = now;
}
