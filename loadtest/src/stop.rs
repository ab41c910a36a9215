//! Stopping: the first Ctrl-C stops sending, the second ends the program.

use tokio::sync::watch;

/// Exit code after a second Ctrl-C: 128 + SIGINT, as shells expect.
const EXIT_INTERRUPTED: i32 = 130;

/// The request to stop sending.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Listens for Ctrl-C; must be called within a runtime.
    pub(crate) fn on_ctrl_c() -> Self {
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                sender.send_replace(true);
                // The report that follows may hang if the gateway has ended.
                if tokio::signal::ctrl_c().await.is_ok() {
                    std::process::exit(EXIT_INTERRUPTED);
                }
            }
            // There are no more signals: keep the channel open, so that waiters continue to wait.
            std::future::pending::<()>().await;
        });
        Stop(receiver)
    }

    /// A request to stop that never comes.
    pub(crate) fn never() -> Self {
        let (_sender, receiver) = watch::channel(false);
        Stop(receiver)
    }

    /// Whether the first Ctrl-C has come.
    pub(crate) fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for the first Ctrl-C.
    ///
    /// Cancel: safe
    pub(crate) async fn wait(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|set| *set).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits for a while, or less if the stop is requested.
    ///
    /// Cancel: safe
    pub(crate) async fn sleep(&self, time: std::time::Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.wait() => {}
        }
    }
}
