//! A PostgreSQL server as `initdb` creates it, with PostgreSQL's own defaults.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::gateway::{DEADLINE, within};

/// The user that runs the server if root runs the tests, because PostgreSQL refuses root.
const NOBODY: u32 = 65_534;

/// The test's own server on a socket. It is stopped when dropped.
pub(crate) struct Server {
    dir: TempDir,
    child: Child,
}

impl Server {
    pub(crate) fn start() -> Self {
        let dir = dir_of_its_own();
        let bin = bin();
        let cluster = dir.path().join("cluster");
        let made = as_nobody(&mut Command::new(bin.join("initdb")))
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8"])
            .args(["--locale=C", "--no-sync", "-D"])
            .arg(&cluster)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success());
        let mut server = Command::new(bin.join("postgres"));
        // Only its address is set.
        as_nobody(&mut server)
            .args(["-c", "listen_addresses=", "-k"])
            .arg(dir.path())
            .arg("-D")
            .arg(&cluster)
            .stderr(File::create(dir.path().join("log")).unwrap());
        let child = server.spawn().unwrap();
        let server = Server { dir, child };
        within(DEADLINE, "the server", || {
            server.try_sql("postgres", "select 1").is_ok()
        });
        server
    }

    pub(crate) fn socket_dir(&self) -> &Path {
        self.dir.path()
    }

    /// The libpq connection string for a socket directory.
    pub(crate) fn url(socket_dir: &Path, role: &str) -> String {
        format!("host={} user={role} dbname={role}", socket_dir.display())
    }

    /// Creates a role and a database of the same name that it owns.
    pub(crate) fn make(&self, name: &str) {
        self.sql("postgres", &format!("create role {name} login"));
        self.sql("postgres", &format!("create database {name} owner {name}"));
    }

    /// Changes a setting of a role or a database. `false` means that this version does not have the setting.
    pub(crate) fn set(&self, of: &str, setting: &str) -> bool {
        let name = setting.split(' ').next().unwrap();
        let known = format!("select count(*) from pg_settings where lower(name) = '{name}'");
        let is_known = self.sql("postgres", &known) == "1";
        if is_known {
            self.sql("postgres", &format!("alter {of} set {setting}"));
        }
        is_known
    }

    /// Runs statements as the superuser and returns the first value.
    pub(crate) fn sql(&self, database: &str, text: &str) -> String {
        self.try_sql(database, text)
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn try_sql(&self, database: &str, text: &str) -> Result<String, String> {
        let url = format!(
            "host={} user=postgres dbname={database}",
            self.dir.path().display()
        );
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let failed = |error: tokio_postgres::Error| format!("{error:?}");
            let (client, driver) = tokio_postgres::connect(&url, NoTls).await.map_err(failed)?;
            tokio::spawn(driver);
            let answer = client.simple_query(text).await.map_err(failed)?;
            let first = answer.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            });
            Ok(first.unwrap_or_default())
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An immediate shutdown is fine, because the directory is deleted anyway.
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-QUIT", &pid]).status().ok();
        self.child.wait().ok();
    }
}

/// A directory that belongs to the server's user.
pub(crate) fn dir_of_its_own() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    if is_root() {
        std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    dir
}

/// Runs a command as another user if root runs the tests.
pub(crate) fn as_nobody(command: &mut Command) -> &mut Command {
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.current_dir("/")
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|found| found.uid() == 0)
}

/// The directory of the server's programs: `PG_BIN`, Debian's newest, or the one in PATH.
#[expect(
    clippy::disallowed_methods,
    reason = "an environment variable names another server, for the tests as for the gateway"
)]
fn bin() -> PathBuf {
    if let Some(bin) = std::env::var_os("PG_BIN") {
        return bin.into();
    }
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut found: Vec<PathBuf> = (debian.flatten())
        .map(|entry| entry.path().join("bin"))
        .chain(std::env::split_paths(
            &std::env::var_os("PATH").unwrap_or_default(),
        ))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    found.sort();
    found.pop().unwrap()
}
