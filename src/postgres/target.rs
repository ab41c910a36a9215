//! A database, and how sessions to it are opened.

use std::path::Path;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::ReadPool;
use super::parameters::{Connection, connection, defaults};
use super::sessions::{Opener, Session, Use};
use super::tls::{TlsOptions, connector};

/// Everything that is wrong with a connection string and the files that it names.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct TargetError(pub Vec<String>);

/// A database that sessions can be opened to.
#[derive(Clone)]
pub struct Target {
    config: Config,
    tls: MakeRustlsConnect,
    /// The operator's name for this gateway, from the connection string.
    application: Option<String>,
}

impl Target {
    /// Reads a connection string as libpq does: a URL, or `name=value` pairs.
    ///
    /// `prefer` and `require` encrypt without checking the certificate, as libpq does without a
    /// root certificate; `verify-ca` and `verify-full` check it against `sslrootcert` or the
    /// system's authorities.
    ///
    /// Blocks: while it reads the certificate and key files that the string names
    ///
    /// # Errors
    /// [`TargetError`]: the operator must change the string or a file that it names. Of the string's
    /// values, messages repeat only the paths of files.
    pub fn from_url(url: &str) -> Result<Self, TargetError> {
        let Connection {
            config,
            tls,
            application,
        } = connection(url).map_err(TargetError)?;
        Ok(Target {
            config,
            tls: connector(&tls).map_err(TargetError)?,
            application,
        })
    }

    /// Names a server on a unix socket, such as the embedded one.
    ///
    /// # Errors
    /// [`TargetError`]: never in practice; no file is read.
    pub fn from_socket(
        directory: &Path,
        port: u16,
        user: &str,
        database: &str,
    ) -> Result<Self, TargetError> {
        let mut config = defaults();
        config
            .host_path(directory)
            .port(port)
            .user(user)
            .dbname(database)
            .ssl_mode(SslMode::Disable);
        Ok(Target {
            config,
            tls: connector(&TlsOptions::OFF).map_err(TargetError)?,
            application: None,
        })
    }

    /// The name of a session on the server: its purpose, and the operator's name.
    fn session_name(&self, purpose: &str) -> String {
        match &self.application {
            Some(own) => format!("{purpose} ({own})"),
            None => purpose.to_owned(),
        }
    }

    /// Opens a session of its own.
    ///
    /// # Errors
    /// The errors of PostgreSQL or of the network; try again later.
    pub async fn connect(
        &self,
        name: &str,
        purpose: Use,
    ) -> Result<Session, tokio_postgres::Error> {
        let mut config = self.config.clone();
        config.application_name(self.session_name(name));
        Session::open(&config, self.tls.clone(), purpose).await
    }

    /// Makes the pool of the read path: bounded, apart from the writers' sessions.
    ///
    /// # Errors
    /// The errors of the pool's builder.
    pub fn pool(&self, size: usize) -> Result<ReadPool, deadpool_postgres::BuildError> {
        let mut config = self.config.clone();
        config.application_name(self.session_name("wattgate reads"));
        let manager = deadpool_postgres::Manager::from_connect(
            config,
            Opener {
                tls: self.tls.clone(),
            },
            deadpool_postgres::ManagerConfig {
                recycling_method: deadpool_postgres::RecyclingMethod::Fast,
            },
        );
        let pool = deadpool_postgres::Pool::builder(manager)
            .max_size(size)
            .runtime(deadpool_postgres::Runtime::Tokio1)
            .wait_timeout(Some(Duration::from_secs(5)))
            .create_timeout(Some(Duration::from_secs(5)))
            .recycle_timeout(Some(Duration::from_secs(5)))
            .build()?;
        Ok(ReadPool::new(pool))
    }
}
