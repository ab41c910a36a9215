//! `wattgate demo`: a gateway with a database of its own in a temporary directory, which is removed at the end.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use super::{AppError, serve, signals};
use crate::config::{Config, ConfigErrors};

/// Runs the demo until it is stopped, then removes everything that it created. When the terminal is closed the demo
/// ends, as after Ctrl-C: nobody looks at it any more.
///
/// Blocks: like [`serve`]
///
/// # Errors
/// [`AppError`]: it could not start, or the log has failed. Its directory is removed nevertheless.
pub async fn run(
    configure: impl FnOnce(&Path) -> Result<Config, ConfigErrors>,
) -> Result<(), AppError> {
    let mut hangup = signals::hangup().map_err(|e| AppError::Start(e.to_string()))?;
    let place = Place::new()?;
    let mut serving = std::pin::pin!(serve(configure(place.0.path())?));
    tokio::select! {
        // First, so that it handles SIGTERM before one is sent.
        biased;
        ended = &mut serving => return ended,
        _ = hangup.recv() => {}
    }
    signals::stop_this_process().map_err(|e| AppError::Start(e.to_string()))?;
    serving.await
}

/// The demo's directory, removed when this is dropped.
struct Place(TempDir);

impl Place {
    fn new() -> Result<Self, AppError> {
        // The user of the embedded database must be able to pass through.
        let dir = tempfile::Builder::new()
            .prefix("wattgate-demo.")
            .permissions(Permissions::from_mode(0o711))
            .tempdir();
        let failed = |e| AppError::Start(format!("cannot create a temporary directory: {e}"));
        Ok(Place(dir.map_err(failed)?))
    }
}

impl Drop for Place {
    /// Removes a database that is outside the directory, because its user could not enter the directory. The directory
    /// itself goes after it.
    fn drop(&mut self) {
        let Ok(home) = fs::read_link(self.0.path().join("postgres")) else {
            return;
        };
        if let Err(error) = fs::remove_dir_all(&home) {
            tracing::warn!("cannot remove {}: {error}", home.display());
        }
        // These are left if they hold anything else.
        for above in home.ancestors().skip(1).take(2) {
            if fs::remove_dir(above).is_err() {
                break;
            }
        }
    }
}
