//! Stopping: the first Ctrl-C stops sending, the second one ends the program.

use tokio::sync::watch;

/// The exit code after a second Ctrl-C: 128 + SIGINT, as shells expect.
const EXIT_INTERRUPTED: i32 = 130;

/// The stop signal.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Listens for Ctrl-C. Must be called within a runtime.
    pub(crate) fn on_ctrl_c() -> Self {
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                sender.send_replace(true);
                // The final report may hang if the gateway is gone.
                if tokio::signal::ctrl_c().await.is_ok() {
                    std::process::exit(EXIT_INTERRUPTED);
                }
            }
            // No further signals can arrive. Keep the channel open, so that waiters keep waiting.
            std::future::pending::<()>().await;
        });
        Stop(receiver)
    }

    /// A stop signal that is never given.
    pub(crate) fn never() -> Self {
        let (_sender, receiver) = watch::channel(false);
        Stop(receiver)
    }

    /// Whether Ctrl-C was pressed.
    pub(crate) fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for Ctrl-C.
    ///
    /// Cancel: safe
    pub(crate) async fn wait(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|set| *set).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Sleeps for a while, or until Ctrl-C.
    ///
    /// Cancel: safe
    pub(crate) async fn sleep(&self, time: std::time::Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.wait() => {}
        }
    }
}
