//! A proxy in front of PostgreSQL's socket that cuts and stalls connections at random moments, mostly around
//! COMMIT, whose outcome is then unknown.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::gateway::Database;
use super::random::{Random, mix};

const SOCKET: &str = ".s.PGSQL.5432";
/// Of this many COMMITs, one is cut before it arrives, one is cut after that, and one is stalled.
const ONE_COMMIT_IN: u64 = 8;
/// Of this many other messages, one is the last on its connection.
const ONE_MESSAGE_IN: u64 = 400;

/// The number of faults of each kind.
#[derive(Debug, Default)]
struct Done {
    healed: AtomicBool,
    before_commit: AtomicU32,
    after_commit: AtomicU32,
    stalled: AtomicU32,
    elsewhere: AtomicU32,
}

/// A running proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    done: Arc<Done>,
}

impl Proxy {
    /// Listens in a directory for connections to a server.
    pub(crate) async fn start(server: &Database, dir: &Path, seed: u64) -> io::Result<Self> {
        let listener = UnixListener::bind(dir.join(SOCKET))?;
        let server = server.socket_dir.join(SOCKET);
        let done = Arc::new(Done::default());
        let shared = Arc::clone(&done);
        tokio::spawn(async move {
            let mut number = 0;
            while let Ok((client, _)) = listener.accept().await {
                number += 1;
                // An unresponsive server looks like an unresponsive network.
                if let Ok(server) = UnixStream::connect(&server).await {
                    let random = Random::new(mix(seed ^ (number << 40)));
                    let done = Arc::clone(&shared);
                    tokio::spawn(async move { drop(carry(client, server, &done, random).await) });
                }
            }
        });
        Ok(Proxy { done })
    }

    pub(crate) fn faults(&self) -> u32 {
        let done = &self.done;
        [
            &done.before_commit,
            &done.after_commit,
            &done.stalled,
            &done.elsewhere,
        ]
        .iter()
        .map(|count| count.load(Ordering::Relaxed))
        .sum()
    }

    /// From now on, the proxy passes everything on.
    pub(crate) fn heal(&self) {
        self.done.healed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn to_text(&self) -> String {
        let count = |count: &AtomicU32| count.load(Ordering::Relaxed);
        let done = &self.done;
        format!(
            "{} connections cut before COMMIT, {} after it, {} elsewhere, {} COMMITs stalled",
            count(&done.before_commit),
            count(&done.after_commit),
            count(&done.elsewhere),
            count(&done.stalled),
        )
    }
}

/// Forwards one connection until it ends or is cut.
async fn carry(
    mut client: UnixStream,
    mut server: UnixStream,
    done: &Done,
    mut random: Random,
) -> io::Result<()> {
    let (mut up, mut down) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let count = |count: &AtomicU32| count.fetch_add(1, Ordering::Relaxed);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let chunk = &up[..read?];
                if chunk.is_empty() {
                    return Ok(());
                }
                let healed = done.healed.load(Ordering::Relaxed);
                if !healed && has_commit(chunk) {
                    match random.below(ONE_COMMIT_IN) {
                        0 => {
                            count(&done.before_commit);
                            return Ok(());
                        }
                        1 => {
                            count(&done.after_commit);
                            server.write_all(chunk).await?;
                            return Ok(());
                        }
                        2 => {
                            // Long enough that the next cut often precedes the response.
                            tokio::time::sleep(random.millis(10, 500)).await;
                            count(&done.stalled);
                        }
                        _ => {}
                    }
                } else if !healed && random.below(ONE_MESSAGE_IN) == 0 {
                    count(&done.elsewhere);
                    return Ok(());
                }
                server.write_all(chunk).await?;
            }
            read = server.read(&mut down) => {
                let chunk = &down[..read?];
                if chunk.is_empty() {
                    return Ok(());
                }
                client.write_all(chunk).await?;
            }
        }
    }
}

fn has_commit(bytes: &[u8]) -> bool {
    bytes.windows(7).any(|window| window == b"commit\0")
}
