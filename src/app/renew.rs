//! Takes up what has changed on disk while the gateway runs.

use std::sync::Arc;
use std::time::Duration;

use crate::auth::Keyring;

/// How often the keys' file is looked at. Why a second: a key that is revoked is refused within
/// five, whatever else the disk has to do.
const KEYS_EVERY: Duration = Duration::from_secs(1);

/// Renews the keys until it is cancelled.
pub(super) async fn renew(keys: Option<Arc<Keyring>>) {
    let Some(keys) = keys else { return };
    let mut every = tokio::time::interval(KEYS_EVERY);
    let mut said = String::new();
    loop {
        every.tick().await;
        let ring = Arc::clone(&keys);
        let renewed = tokio::task::spawn_blocking(move || ring.refresh()).await;
        match renewed {
            Ok(Ok(changed)) => {
                if changed {
                    tracing::info!("the keys were read again");
                }
                said.clear();
            }
            Ok(Err(error)) => {
                let text = error.to_string();
                if text != said {
                    tracing::error!(
                        error = text,
                        "the keys cannot be read again: those known stay"
                    );
                    said = text;
                }
            }
            Err(error) => tracing::error!(%error, "reading the keys has panicked"),
        }
    }
}
