//! A PostgreSQL server with PostgreSQL's own defaults, for campaigns that do not use the embedded one.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use super::CampaignError;
use super::gateway::{DataDir, Database};

/// The server's user if root runs the campaign, because PostgreSQL refuses to run as root.
const NOBODY: u32 = 65_534;
/// The server's superuser, and the database that `initdb` creates.
const NAME: &str = "postgres";
/// How long the server may take to start, including recovery.
const START_WITHIN: Duration = Duration::from_secs(60);
/// How often to try to connect.
const AGAIN: Duration = Duration::from_millis(20);

/// The server, in the directory that an embedded one would use.
#[derive(Debug)]
pub(super) struct Plain {
    bin: PathBuf,
    cluster: PathBuf,
    child: Child,
}

impl Plain {
    /// Creates the cluster and starts the server.
    pub(super) async fn start(bin: &Path, dir: &DataDir) -> Result<Self, CampaignError> {
        let home = dir.path().join("postgres");
        std::fs::create_dir_all(&home)?;
        if is_root()? {
            std::os::unix::fs::chown(&home, Some(NOBODY), Some(NOBODY))?;
        }
        let cluster = home.join("cluster");
        let made = command(&bin.join("initdb"))?
            .args(["--auth=trust", "--encoding=UTF8", "--locale=C"])
            .args(["--username", NAME, "-D"])
            .arg(&cluster)
            .status()
            .await?;
        if !made.success() {
            return Err(CampaignError::Start(format!("initdb: {made}")));
        }
        let child = launch(bin, &cluster)?;
        let server = Plain {
            bin: bin.to_owned(),
            cluster,
            child,
        };
        server.is_reached().await?;
        Ok(server)
    }

    /// Creates a standby of a running server and starts it.
    pub(super) async fn standby(
        bin: &Path,
        dir: &DataDir,
        primary: &Plain,
    ) -> Result<Self, CampaignError> {
        let home = dir.path().join("postgres");
        std::fs::create_dir_all(&home)?;
        if is_root()? {
            std::os::unix::fs::chown(&home, Some(NOBODY), Some(NOBODY))?;
        }
        let cluster = home.join("cluster");
        if cluster.exists() {
            std::fs::remove_dir_all(&cluster)?;
        }
        let copied = command(&bin.join("pg_basebackup"))?
            .args(["-X", "stream", "-c", "fast", "-R", "-U", NAME, "-h"])
            .arg(&primary.database().socket_dir)
            .arg("-D")
            .arg(&cluster)
            .status()
            .await?;
        if !copied.success() {
            return Err(CampaignError::Start(format!("pg_basebackup: {copied}")));
        }
        let child = launch(bin, &cluster)?;
        let server = Plain {
            bin: bin.to_owned(),
            cluster,
            child,
        };
        server.is_reached().await?;
        Ok(server)
    }

    /// Ends it like a crash, with an immediate shutdown.
    pub(super) async fn crash(&mut self) -> Result<(), CampaignError> {
        if let Some(pid) = self.child.id() {
            let pid = pid.to_string();
            Command::new("kill").args(["-QUIT", &pid]).status().await?;
        }
        self.child.wait().await?;
        Ok(())
    }

    /// The connection parameters of the server.
    pub(super) fn database(&self) -> Database {
        Database {
            socket_dir: home(&self.cluster).to_owned(),
            user: NAME.to_owned(),
            name: NAME.to_owned(),
        }
    }

    /// Stops it cleanly, with a fast shutdown.
    pub(super) async fn stop(&mut self) -> Result<(), CampaignError> {
        if let Some(pid) = self.child.id() {
            let pid = pid.to_string();
            Command::new("kill").args(["-INT", &pid]).status().await?;
        }
        self.child.wait().await?;
        Ok(())
    }

    /// Starts it again after it has ended.
    pub(super) async fn again(&mut self) -> Result<(), CampaignError> {
        self.child.wait().await?;
        self.child = launch(&self.bin, &self.cluster)?;
        self.is_reached().await
    }

    async fn is_reached(&self) -> Result<(), CampaignError> {
        let deadline = tokio::time::Instant::now() + START_WITHIN;
        while let Err(error) = self.database().connect().await {
            if tokio::time::Instant::now() > deadline {
                return Err(error.into());
            }
            tokio::time::sleep(AGAIN).await;
        }
        Ok(())
    }
}

/// Starts the server. Only its address is set.
fn launch(bin: &Path, cluster: &Path) -> io::Result<Child> {
    command(&bin.join("postgres"))?
        .args(["-c", "listen_addresses=", "-k"])
        .arg(home(cluster))
        .arg("-D")
        .arg(cluster)
        .stderr(Stdio::null())
        .spawn()
}

fn command(program: &Path) -> io::Result<Command> {
    let mut command = Command::new(program);
    if is_root()? {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true);
    Ok(command)
}

fn home(cluster: &Path) -> &Path {
    cluster.parent().unwrap_or(cluster)
}

fn is_root() -> io::Result<bool> {
    Ok(std::fs::metadata("/proc/self")?.uid() == 0)
}
