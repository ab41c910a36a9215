//! PostgreSQL servers that can be promoted, each with its own directory and socket.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

use crate::gateway::{DEADLINE, data_dir, signal, within};

/// The superuser and the database that `initdb` creates.
pub(crate) const NAME: &str = "postgres";
/// The servers' user if root runs the tests, because PostgreSQL refuses root.
const NOBODY: u32 = 65_534;

/// The servers of one test. Only one test at a time may have servers.
pub(crate) struct Servers {
    _one_at_a_time: MutexGuard<'static, ()>,
    home: TempDir,
}

impl Servers {
    pub(crate) fn new() -> Self {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let one_at_a_time = ONE_AT_A_TIME.lock();
        let home = data_dir();
        if is_root() {
            std::os::unix::fs::chown(home.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        Servers {
            _one_at_a_time: one_at_a_time.unwrap_or_else(PoisonError::into_inner),
            home,
        }
    }

    /// Starts the primary of a new cluster.
    pub(crate) fn primary(&self, name: &str) -> Server {
        let server = self.server(name);
        run(program("initdb")
            .args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .args(["--username", NAME, "-D"])
            .arg(server.cluster()));
        server.started()
    }

    /// Starts a standby of a primary.
    pub(crate) fn standby(&self, name: &str, primary: &Server) -> Server {
        let server = self.server(name);
        run(program("pg_basebackup")
            .args(["-X", "stream", "-c", "fast", "-R", "--no-sync", "-U", NAME])
            .args(["-h", primary.socket(), "-D"])
            .arg(server.cluster()));
        server.started()
    }

    fn server(&self, name: &str) -> Server {
        let home = self.home.path().join(name);
        fs::create_dir(&home).unwrap();
        fs::set_permissions(&home, Permissions::from_mode(0o755)).unwrap();
        if is_root() {
            std::os::unix::fs::chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        Server { home, child: None }
    }
}

/// The connection string of these servers, in order.
pub(crate) fn url(servers: &[&Server]) -> String {
    let hosts: Vec<&str> = servers.iter().map(|server| server.socket()).collect();
    format!("host={} user={NAME} dbname={NAME}", hosts.join(","))
}

/// A server; killed when it is dropped.
pub(crate) struct Server {
    home: PathBuf,
    child: Option<Child>,
}

impl Server {
    fn cluster(&self) -> PathBuf {
        self.home.join("cluster")
    }

    /// The directory of its socket.
    pub(crate) fn socket(&self) -> &str {
        self.home.to_str().unwrap()
    }

    fn started(mut self) -> Self {
        self.start();
        self
    }

    /// Starts it and waits until it accepts sessions.
    pub(crate) fn start(&mut self) {
        let mut postgres = program("postgres");
        postgres
            .arg("-D")
            .arg(self.cluster())
            .args(["-k", self.socket(), "-c", "listen_addresses="])
            // The tests kill processes, but never the machine.
            .args(["-c", "fsync=off", "-c", "shared_buffers=32MB"])
            .args(["-c", "max_connections=80", "-c", "wal_keep_size=256MB"])
            .stderr(fs::File::create(self.home.join("log")).unwrap());
        self.child = Some(postgres.spawn().unwrap());
        within(DEADLINE, "the server", || {
            self.try_sql("select 1").is_some()
        });
    }

    /// Kills it and waits until it has ended.
    pub(crate) fn crash(&mut self) {
        if let Some(mut child) = self.child.take() {
            signal(child.id(), "QUIT");
            child.wait().unwrap();
        }
    }

    /// Promotes a standby and waits until it is the primary.
    pub(crate) fn promote(&self) {
        // Does not wait here: the last of the replay may cancel a waiting statement.
        assert_eq!(self.sql("select pg_promote(false)"), "t");
        within(DEADLINE, "the promotion", || {
            self.try_sql("select pg_is_in_recovery()").as_deref() == Some("f")
        });
    }

    /// Runs statements with psql and returns its output.
    pub(crate) fn sql(&self, text: &str) -> String {
        let output = self.psql(text).wait_with_output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(crate) fn number(&self, text: &str) -> u64 {
        self.sql(text).parse().unwrap()
    }

    /// The same; `None` if psql fails.
    pub(crate) fn try_sql(&self, text: &str) -> Option<String> {
        let output = self.psql(text).wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        output.status.success().then(|| text.trim().to_owned())
    }

    /// Starts psql. Its statements run in one session, which ends with its input.
    pub(crate) fn psql(&self, text: &str) -> Child {
        let mut psql = program("psql")
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", NAME, "-d", NAME])
            .args(["-h", self.socket(), "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // If psql cannot connect, it ends before it reads anything. Its exit status then shows that.
        let written = psql.stdin.take().unwrap().write_all(text.as_bytes());
        written.ok();
        psql
    }

    /// How many sessions of the gateway have an application name that begins like this.
    pub(crate) fn sessions(&self, name: &str) -> u64 {
        self.number(&format!(
            "select count(*) from pg_stat_activity where application_name like '{name}%'"
        ))
    }

    /// Terminates the gateway's sessions, as a broken network would.
    pub(crate) fn end_sessions(&self) {
        self.sql(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity
             where application_name like 'wattgate%'",
        );
    }

    /// The number of rows in history; 0 before the migrations.
    pub(crate) fn readings(&self) -> u64 {
        self.number("select count(*) from meter_readings")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.crash();
    }
}

/// A PostgreSQL program, run as the server's user.
pub(crate) fn program(name: &str) -> Command {
    let installed = programs();
    command(&installed.join(name))
}

/// The directory of the newest installed server.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").unwrap();
    let found = versions.map(|entry| entry.unwrap().path());
    let number = |path: &PathBuf| -> u32 {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.parse().unwrap_or(0)
    };
    found.max_by_key(number).unwrap().join("bin")
}

fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

fn run(command: &mut Command) {
    let output = command.stderr(Stdio::piped()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}
