//! What can go wrong with the embedded server, each a line for the operator.

use std::io;
use std::path::{Path, PathBuf};

/// Says why the embedded PostgreSQL could not be started.
///
/// Each message is one line that says what to do; none of them is worth retrying unchanged,
/// except [`EmbeddedError::InUse`] and [`EmbeddedError::Locked`].
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// No server programs of a version that is new enough: install them, or set `DATABASE_URL`.
    #[error(
        "no PostgreSQL server of version {minimum} or newer was found: {hint}, \
         or set DATABASE_URL to use a server of your own"
    )]
    NotFound {
        /// The oldest major version that would do.
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
    /// The cluster was made by another major version than any that is installed.
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
    /// Something that is not a PostgreSQL cluster stands where the cluster belongs.
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
        /// The process that runs on it.
        pid: i32,
    },
    /// Root has no unprivileged user to run the server as.
    #[error(
        "PostgreSQL does not run as root, and none of the users {tried} exists: \
         create one, run the gateway as an ordinary user, or set DATABASE_URL"
    )]
    NoUser {
        /// The names looked for.
        tried: String,
    },
    /// A program of PostgreSQL failed.
    #[error("{program} failed ({status}): {message}")]
    Program {
        /// Which one.
        program: String,
        /// How it ended.
        status: String,
        /// The last line that it wrote.
        message: String,
    },
    /// No directory for the socket is short enough and ours.
    #[error("the server has no usable directory for its socket: {} {problem}", path.display())]
    SocketPlace {
        /// The directory last tried.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The operating system refused something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Gives an I/O error the path that it is about.
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
