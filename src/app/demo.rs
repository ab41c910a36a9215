//! `wattgate demo`: a gateway with a database of its own in a temporary directory, which is removed at the end.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{AppError, serve, signals};
use crate::config::{Config, ConfigErrors};
use crate::demo;

/// Runs the demo until it is stopped, then removes everything that it created.
///
/// Blocks: like [`serve`]
///
/// # Errors
/// [`AppError`]: it could not start, or the log has failed. Its directory is removed nevertheless.
pub async fn run(
    configure: impl FnOnce(&Path) -> Result<Config, ConfigErrors>,
) -> Result<(), AppError> {
    // The user of the embedded database must be able to pass through.
    let dir = tempfile::Builder::new()
        .prefix("wattgate-demo.")
        .permissions(Permissions::from_mode(0o711))
        .tempdir()
        .map_err(|e| AppError::Start(format!("cannot create a temporary directory: {e}")))?;
    let ended = match configure(dir.path()) {
        Ok(config) => serve(config).await,
        Err(wrong) => Err(wrong.into()),
    };
    remove_database(dir.path());
    let path = dir.path().to_owned();
    if let Err(error) = dir.close() {
        tracing::warn!("cannot remove {}: {error}", path.display());
    }
    ended
}

/// Removes a database that is outside the directory, because its user could not enter the directory.
fn remove_database(dir: &Path) {
    let Ok(home) = fs::read_link(dir.join("postgres")) else {
        return;
    };
    let removed = fs::remove_dir_all(&home);
    // The directory above it holds nothing else.
    let removed = removed.and_then(|()| home.parent().map_or(Ok(()), fs::remove_dir));
    if let Err(error) = removed {
        tracing::warn!("cannot remove {}: {error}", home.display());
    }
}

/// Plays the recorded day. Closing the terminal ends the demo like Ctrl-C, because nobody is watching any more.
pub(super) async fn play(gateway: SocketAddr) {
    let Ok(mut hangup) = signals::hangup() else {
        return demo::play(gateway).await;
    };
    tokio::select! {
        () = demo::play(gateway) => return,
        _ = hangup.recv() => {}
    }
    if let Err(error) = signals::stop_this_process() {
        tracing::error!(%error, "cannot stop");
    }
    std::future::pending().await
}
