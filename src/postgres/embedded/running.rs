//! Finds the server that a running gateway has started.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::NoTls;

use super::{Connection, DATABASE, ELSEWHERE, USER, place};

/// How long the server may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Whether a data directory has a cluster. Creates nothing.
pub fn exists(data_dir: &Path) -> bool {
    place::exists(data_dir, Path::new(ELSEWHERE))
}

/// Finds the running server of a data directory, for commands beside a running gateway.
///
/// Shape:  `None` means that no server runs, or that it refuses this user
/// Blocks: at most 5 s
pub async fn running(data_dir: &Path) -> Option<Connection> {
    let file = data_dir.join("postgres/cluster/postmaster.pid");
    let text = fs::read_to_string(file).ok()?;
    let mut lines = text.lines().map(str::trim).skip(3);
    let port = lines.next()?.parse().ok()?;
    let socket_dir = PathBuf::from(lines.next()?);
    let connection = Connection {
        socket_dir,
        port,
        user: USER.to_owned(),
        database: DATABASE.to_owned(),
    };
    // After a crash, the file names a socket without a server.
    let answer = async {
        let (client, driver) = connection.config().connect(NoTls).await.ok()?;
        drop((client, driver));
        Some(())
    };
    tokio::time::timeout(ANSWER_WITHIN, answer).await.ok()??;
    Some(connection)
}
