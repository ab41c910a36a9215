//! A proxy in front of the server's socket that fails the way networks do.

use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::support::until;

/// What is wrong with the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// A COMMIT is held back.
    HoldCommit,
    /// A COMMIT gets through, but then the connection is cut before its response.
    LoseCommitAnswer,
    /// The client of a held COMMIT is cut off, while the server's side stays open.
    CutClient,
    /// Connections are accepted, but nothing gets through.
    Swallow,
    /// Connections are cut.
    Refuse,
}

/// A proxy on its own socket.
pub(crate) struct Proxy {
    dir: TempDir,
    control: Arc<Control>,
}

struct Control {
    fault: watch::Sender<Fault>,
    /// How many COMMITs were held or lost.
    commits: watch::Sender<u32>,
}

impl Proxy {
    pub(crate) fn start(server: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(".s.PGSQL.5432")).unwrap();
        let control = Arc::new(Control {
            fault: watch::Sender::new(Fault::None),
            commits: watch::Sender::new(0),
        });
        let (shared, server) = (Arc::clone(&control), server.to_owned());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *shared.fault.borrow() != Fault::Refuse {
                    let server = UnixStream::connect(&server).await.unwrap();
                    tokio::spawn(carry(client, server, Arc::clone(&shared)));
                }
            }
        });
        Proxy { dir, control }
    }

    pub(crate) fn socket_dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.control.fault.send_replace(fault);
    }

    /// Waits until this many COMMITs were held or lost.
    pub(crate) async fn commits(&self, count: u32) {
        until("a COMMIT on its way", || async {
            *self.control.commits.borrow() >= count
        })
        .await;
    }
}

impl Control {
    fn now(&self) -> Fault {
        *self.fault.borrow()
    }

    /// Waits for a fault that satisfies `wanted`, and returns it.
    async fn until(&self, wanted: impl Fn(Fault) -> bool + Send + Sync) -> Fault {
        let mut faults = self.fault.subscribe();
        *faults.wait_for(|fault| wanted(*fault)).await.unwrap()
    }
}

/// Forwards one connection until it ends.
async fn carry(mut client: UnixStream, mut server: UnixStream, control: Arc<Control>) {
    let (mut up, mut down) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(read @ 1..) = read else { return };
                let chunk = &up[..read];
                match control.now() {
                    Fault::HoldCommit if has_commit(chunk) => {
                        control.commits.send_modify(|n| *n += 1);
                        let next = control.until(|f| f != Fault::HoldCommit).await;
                        if next == Fault::CutClient {
                            drop(client);
                            if control.until(|f| f != Fault::CutClient).await == Fault::None {
                                server.write_all(chunk).await.ok();
                                drop(server.read(&mut down).await);
                            }
                            return;
                        }
                    }
                    Fault::LoseCommitAnswer if has_commit(chunk) => {
                        server.write_all(chunk).await.unwrap();
                        assert_ne!(server.read(&mut down).await.unwrap(), 0);
                        control.fault.send_replace(Fault::None);
                        control.commits.send_modify(|n| *n += 1);
                        return;
                    }
                    _ => {}
                }
                control.until(|f| f != Fault::Swallow).await;
                if server.write_all(chunk).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut down) => {
                let Ok(read @ 1..) = read else { return };
                control.until(|f| f != Fault::Swallow).await;
                if client.write_all(&down[..read]).await.is_err() {
                    return;
                }
            }
            _ = control.until(|f| f == Fault::Refuse) => return,
        }
    }
}

fn has_commit(bytes: &[u8]) -> bool {
    bytes.windows(7).any(|window| window == b"commit\0")
}
