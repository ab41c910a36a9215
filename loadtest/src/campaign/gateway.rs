//! The processes of a campaign: the gateway and its embedded PostgreSQL.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio_postgres::{Client, NoTls};

use super::CampaignError;
use super::random::Random;

/// How long a start may take. PostgreSQL may still be in recovery after that.
const START_WITHIN: Duration = Duration::from_secs(60);
/// How often to look for writers.
const AGAIN: Duration = Duration::from_millis(20);
/// How long a stop may take.
const STOP_WITHIN: Duration = Duration::from_secs(90);

/// The directory of a campaign's gateway.
#[derive(Debug)]
pub(crate) struct DataDir(PathBuf);

impl DataDir {
    pub(crate) fn new(seed: u64) -> io::Result<Self> {
        let name = format!("wattgate-campaign-{}-{seed}", std::process::id());
        DataDir::make(std::env::temp_dir().join(name))
    }

    fn make(path: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        // PostgreSQL's user must be able to enter it, even if root runs the campaign.
        fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        Ok(DataDir(path))
    }

    /// Another directory, for a second gateway.
    pub(crate) fn beside(&self, name: &str) -> io::Result<Self> {
        DataDir::make(self.0.with_extension(name))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn remove(&self) {
        // If this fails, some files remain in the system's temporary directory.
        drop(fs::remove_dir_all(&self.0));
    }

    fn cluster(&self) -> PathBuf {
        self.0.join("postgres/cluster")
    }

    /// Kills PostgreSQL like `pg_ctl stop -m immediate`. Returns whether it was running.
    pub(crate) fn stop_database_at_once(&self) -> io::Result<bool> {
        let Ok(text) = fs::read_to_string(self.cluster().join("postmaster.pid")) else {
            return Ok(false);
        };
        let pid = text.lines().next().unwrap_or_default().trim().to_owned();
        let status = std::process::Command::new("kill")
            .args(["-QUIT", &pid])
            .stderr(Stdio::null())
            .status()?;
        Ok(status.success())
    }

    /// Copies the stopped cluster.
    pub(crate) fn back_up(&self) -> io::Result<()> {
        copy(&self.cluster(), &self.0.join("postgres/copy"))
    }

    /// Replaces the stopped cluster with the copy.
    pub(crate) fn restore(&self) -> io::Result<()> {
        copy(&self.0.join("postgres/copy"), &self.cluster())
    }
}

/// Replaces a directory with a copy, including owners and permissions.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    let status = std::process::Command::new("cp")
        .arg("-a")
        .args([from, to])
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "cannot copy {} to {}",
            from.display(),
            to.display()
        )))
    }
}

/// How to reach a gateway's PostgreSQL.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    pub(crate) socket_dir: PathBuf,
    pub(crate) user: String,
    pub(crate) name: String,
}

impl Database {
    /// Parses the command that the gateway prints: `database: psql -h DIR -p PORT -U USER -d NAME`.
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let after = |flag: &str| {
            let at = words.iter().position(|word| *word == flag)?;
            words.get(at + 1).copied()
        };
        Some(Database {
            socket_dir: after("-h")?.into(),
            user: after("-U")?.to_owned(),
            name: after("-d")?.to_owned(),
        })
    }

    fn url(&self) -> String {
        let dir = self.socket_dir.display();
        format!("host={dir} user={} dbname={}", self.user, self.name)
    }

    pub(crate) async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&self.url(), NoTls).await?;
        // A connection error shows up in the query that uses the connection.
        tokio::spawn(async move { drop(connection.await) });
        Ok(client)
    }

    /// Runs statements.
    pub(crate) async fn run(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        self.connect().await?.batch_execute(sql).await
    }

    /// The number of the newest applied migration.
    pub(crate) async fn migrations(&self) -> Result<i32, tokio_postgres::Error> {
        let sql = "select max(version)::int from schema_migrations";
        Ok(self.connect().await?.query_one(sql, &[]).await?.get(0))
    }

    /// Waits until writers are connected.
    ///
    /// # Errors
    /// [`CampaignError`]: no writer connected in time.
    pub(crate) async fn is_used(&self, within: Duration) -> Result<(), CampaignError> {
        let deadline = tokio::time::Instant::now() + within;
        let sql = include_str!("../../sql/writers.sql");
        loop {
            let writers = async {
                let client = self.connect().await?;
                client.query(sql, &[]).await
            };
            match writers.await {
                Ok(writers) if !writers.is_empty() => return Ok(()),
                _ if tokio::time::Instant::now() < deadline => tokio::time::sleep(AGAIN).await,
                Ok(_) => {
                    let silent = io::Error::other("the writers did not come back");
                    return Err(CampaignError::Io(silent));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Terminates the backend of one writer. Returns how many were terminated.
    pub(crate) async fn end_a_writer(
        &self,
        random: &mut Random,
    ) -> Result<u32, tokio_postgres::Error> {
        let client = self.connect().await?;
        let sql = include_str!("../../sql/writers.sql");
        let rows = client.query(sql, &[]).await?;
        if rows.is_empty() {
            return Ok(0);
        }
        let pid: i32 = rows[random.below(rows.len() as u64) as usize].get(0);
        let ended = client
            .query_one("select pg_terminate_backend($1)", &[&pid])
            .await?;
        Ok(u32::from(ended.get::<_, bool>(0)))
    }
}

/// How a gateway is started.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) binary: PathBuf,
    pub(crate) dir: PathBuf,
    /// The database. `None` means the embedded one.
    pub(crate) elsewhere: Option<Database>,
    /// The log's limit.
    pub(crate) wal_limit: &'static str,
    /// Further flags.
    pub(crate) flags: &'static [&'static str],
}

impl Setup {
    pub(crate) fn new(binary: &Path, dir: &DataDir) -> Self {
        Setup {
            binary: binary.to_owned(),
            dir: dir.path().to_owned(),
            elsewhere: None,
            wal_limit: "512MiB",
            flags: &[],
        }
    }

    pub(crate) fn on(mut self, database: &Database) -> Self {
        self.elsewhere = Some(database.clone());
        self
    }

    pub(crate) fn wal_limit(mut self, limit: &'static str) -> Self {
        self.wal_limit = limit;
        self
    }

    pub(crate) fn flags(mut self, flags: &'static [&'static str]) -> Self {
        self.flags = flags;
        self
    }

    /// Starts the gateway.
    pub(crate) async fn start(self) -> Result<Gateway, CampaignError> {
        launch(self, "127.0.0.1:0").await
    }
}

/// A running gateway.
#[derive(Debug)]
pub(crate) struct Gateway {
    setup: Setup,
    child: Child,
    /// Kept open, because this is not a test of a closed stdout.
    _stdout: Lines<BufReader<ChildStdout>>,
    address: String,
    database: Option<Database>,
}

impl Gateway {
    /// Starts it again with the same directory and address.
    pub(crate) async fn again(self) -> Result<Self, CampaignError> {
        launch(self.setup, &self.address).await
    }

    /// The same, with another binary.
    pub(crate) async fn again_as(mut self, binary: &Path) -> Result<Self, CampaignError> {
        self.setup.binary = binary.to_owned();
        self.again().await
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn database(&self) -> Database {
        self.database
            .clone()
            .or_else(|| self.setup.elsewhere.clone())
            .unwrap_or_else(|| Database {
                socket_dir: PathBuf::new(),
                user: String::new(),
                name: String::new(),
            })
    }

    /// Sends SIGKILL and waits until the process has ended, because it uses the address until then.
    pub(crate) async fn kill(&mut self) -> io::Result<()> {
        self.child.kill().await
    }

    /// Sends SIGTERM and waits until the process has ended.
    pub(crate) async fn terminate(&mut self) -> Result<(), CampaignError> {
        self.tell_to_end().await?;
        self.ended().await
    }

    /// Sends SIGTERM twice, this long apart.
    pub(crate) async fn terminate_twice(&mut self, apart: Duration) -> Result<(), CampaignError> {
        self.tell_to_end().await?;
        tokio::time::sleep(apart).await;
        self.tell_to_end().await?;
        self.ended().await
    }

    async fn tell_to_end(&self) -> io::Result<()> {
        // A process that has ended has no id.
        if let Some(pid) = self.child.id() {
            let pid = pid.to_string();
            Command::new("kill").args(["-TERM", &pid]).status().await?;
        }
        Ok(())
    }

    async fn ended(&mut self) -> Result<(), CampaignError> {
        let ended = tokio::time::timeout(STOP_WITHIN, self.child.wait()).await;
        match ended {
            Ok(status) if status.as_ref().is_ok_and(|s| s.success()) => Ok(()),
            other => Err(CampaignError::Io(io::Error::other(format!(
                "the gateway did not stop cleanly: {other:?}"
            )))),
        }
    }

    /// The resident memory of the process.
    ///
    /// Units:  bytes
    pub(crate) fn resident_bytes(&self) -> io::Result<u64> {
        let pid = self.child.id().unwrap_or_default();
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        Ok(kib.unwrap_or(0) << 10)
    }

    /// Whether it has logged these words after an offset in its log file.
    pub(crate) fn has_said(&self, words: &str, since: usize) -> io::Result<bool> {
        let said = fs::read_to_string(self.setup.dir.join("gateway.log"))?;
        Ok(said.get(since..).is_some_and(|new| new.contains(words)))
    }

    /// The present length of its log file.
    pub(crate) fn said_bytes(&self) -> io::Result<usize> {
        Ok(fs::metadata(self.setup.dir.join("gateway.log"))?.len() as usize)
    }
}

async fn launch(setup: Setup, listen: &str) -> Result<Gateway, CampaignError> {
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(setup.dir.join("gateway.log"))?;
    let mut command = Command::new(&setup.binary);
    command
        .args(["--listen", listen, "--wal-limit", setup.wal_limit])
        // While the database is stopped, clients that wait for a commit soon give up and continue.
        .args(["--commit-timeout", "1s", "--data-dir"])
        .arg(&setup.dir)
        .args(setup.flags)
        .env_remove("DATABASE_URL")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true);
    if let Some(database) = &setup.elsewhere {
        command.args(["--database-url", &database.url()]);
    }
    let mut child = command.spawn()?;
    let failed = |what: &str| CampaignError::Start(what.to_owned());
    let stdout = child.stdout.take().ok_or_else(|| failed("no stdout"))?;
    let mut lines = BufReader::new(stdout).lines();
    let said = async {
        let first = lines.next_line().await?.unwrap_or_default();
        let second = match &setup.elsewhere {
            None => lines.next_line().await?,
            Some(_) => None,
        };
        Ok::<_, io::Error>((first, second))
    };
    let (first, second) = tokio::time::timeout(START_WITHIN, said)
        .await
        .map_err(|_| failed("it printed nothing"))??;
    let address = first
        .strip_prefix("listening on http://")
        .ok_or_else(|| failed(&format!("it printed '{first}'")))?
        .to_owned();
    Ok(Gateway {
        setup,
        child,
        _stdout: lines,
        address,
        database: second.as_deref().and_then(Database::parse),
    })
}
