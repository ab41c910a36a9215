//! Errors of the embedded server, each a line for the operator.

use std::io;
use std::path::{Path, PathBuf};

/// Why the embedded PostgreSQL cannot be started.
///
/// Each message is one line with the next step. Only [`EmbeddedError::InUse`] and
/// [`EmbeddedError::Locked`] may pass by themselves.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// There are no server programs of a supported version: install them, or set `DATABASE_URL`.
    #[error(
        "no PostgreSQL server of version {minimum} or newer was found: {hint}, \
         or set DATABASE_URL to use a server of your own"
    )]
    NotFound {
        /// The oldest supported major version.
        minimum: u32,
        /// What to install on this platform.
        hint: String,
    },
    /// The directory given by `PG_BIN` holds no usable server.
    #[error("--pg-bin (PG_BIN) {}: {problem}", path.display())]
    BadPgBin {
        /// The directory as given.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// No installed major version made the cluster.
    #[error(
        "the cluster {} was created by PostgreSQL {needed}, but only {} installed: \
         install PostgreSQL {needed}, or upgrade the cluster with pg_upgrade",
        cluster.display(), installed(found)
    )]
    WrongVersion {
        /// The cluster's directory.
        cluster: PathBuf,
        /// The major version that made it.
        needed: u32,
        /// The major versions found, newest first.
        found: Vec<u32>,
    },
    /// The directory of the cluster holds something else.
    #[error("{} is not a usable PostgreSQL cluster: {problem}", path.display())]
    BadCluster {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Another gateway holds the embedded server's lock.
    #[error("{} is locked: another gateway is using this data directory", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A server that this gateway did not start runs on the cluster.
    #[error(
        "the cluster {} is in use by process {pid}, which is not a server started by a gateway: \
         stop it first",
        cluster.display()
    )]
    InUse {
        /// The cluster's directory.
        cluster: PathBuf,
        /// The server's process id.
        pid: i32,
    },
    /// Root has no unprivileged user to run the server as.
    #[error(
        "PostgreSQL does not run as root, and none of the users {tried} exists: \
         create one, run the gateway as an ordinary user, or set DATABASE_URL"
    )]
    NoUser {
        /// The names that were tried.
        tried: String,
    },
    /// A program of PostgreSQL failed.
    #[error("{program} failed ({status}): {message}")]
    Program {
        /// Its name.
        program: String,
        /// How it ended.
        status: String,
        /// The last line that it wrote.
        message: String,
    },
    /// No directory for the socket has a short path and belongs to the server's user.
    #[error("the server has no usable directory for its socket: {} {problem}", path.display())]
    SocketPlace {
        /// The directory last tried.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The operating system refused a call.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The action, as a verb.
        action: &'static str,
        /// Its file or directory.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

/// Adds the action and the path to an I/O error.
pub(super) trait At<T> {
    /// Turns the error into an [`EmbeddedError::Io`].
    fn at(self, action: &'static str, path: &Path) -> Result<T, EmbeddedError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, EmbeddedError> {
        self.map_err(|source| EmbeddedError::Io {
            action,
            path: path.to_owned(),
            source: source.into(),
        })
    }
}

fn installed(found: &[u32]) -> String {
    match found {
        [one] => format!("{one} is"),
        many => {
            let names: Vec<String> = many.iter().map(u32::to_string).collect();
            format!("{} are", names.join(" and "))
        }
    }
}
