//! `wattgate check`: reports everything that keeps a gateway from working, before it starts or while it
//! runs.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::Path;

use tokio_postgres::Client;
use uuid::Uuid;

use super::gap::gaps;
use crate::app::credentials::Credentials;
use crate::app::{AppError, Database, questions};
use crate::config::Config;
use crate::postgres::embedded;
use crate::postgres::migrations::SERVER_VERSION_MIN;
use crate::postgres::{Target, TriedReplica, Use, advice, explain};
use crate::wal::medium::unsafe_kind;
use crate::wal::storage::{DirectoryError, DirectoryView};
use crate::writer::accepted::not_accepted;
use crate::writer::binding::Binding;

/// The results of the checks.
#[derive(Debug, Default)]
struct Findings {
    good: Vec<String>,
    faults: Vec<String>,
}

/// The facts about a server and its user that the gateway depends on.
#[derive(Debug, Clone)]
struct ServerFacts {
    version_number: i32,
    version: String,
    encoding: String,
    user: String,
    database: String,
    is_standby: bool,
    may_create: bool,
    /// `None` means that there are no tables yet.
    owns_tables: Option<bool>,
}

/// Checks the configuration, the data directory, the address, keys, certificates and the database. A gateway
/// may be running.
///
/// # Errors
/// [`AppError::Check`]: everything that is wrong, a line each.
pub async fn check(config: &Config) -> Result<String, AppError> {
    let mut findings = Findings::default();
    findings.good.push("the configuration is valid".to_owned());
    let running = findings.data_dir(config);
    findings.address(config, running);
    if let Err(error) = Credentials::open(config) {
        findings.faults.push(error.to_string());
    }
    match Database::reach_guarded(&config.data).await {
        Err(AppError::NoDatabase { .. }) => findings.no_database_yet(config),
        Ok(database) => {
            findings.database(config, &database.target).await;
            database.close().await;
        }
        Err(error) => findings.faults.push(error.to_string()),
    }
    if findings.faults.is_empty() {
        return Ok(findings.good.join("\n"));
    }
    Err(AppError::Check(findings.faults.join("\nwattgate: ")))
}

impl Findings {
    /// Before the first start, the gateway must find the programs to create its database with.
    fn no_database_yet(&mut self, config: &Config) {
        match embedded::programs(&config.data.programs) {
            Ok(major) => self.good.push(format!(
                "there is no embedded database in {} yet: the gateway creates one with PostgreSQL \
                 {major} when it starts",
                config.data.dir.display()
            )),
            Err(error) => self.faults.push(error.to_string()),
        }
    }

    /// Checks the data directory, and returns whether a gateway uses it.
    fn data_dir(&mut self, config: &Config) -> bool {
        let dir = &config.data.dir;
        let shown = dir.display();
        if let Err(error) = probe(dir) {
            let next = "let the gateway's user own it";
            self.faults.push(format!(
                "--data-dir {shown} cannot be used: {error}; {next}"
            ));
            return false;
        }
        let wal_dir = dir.join("wal");
        if let Ok(Some(kind)) = unsafe_kind(dir)
            && !config.wal_allow_volatile
        {
            self.faults.push(
                AppError::Volatile {
                    path: wal_dir.clone(),
                    kind,
                }
                .to_string(),
            );
        }
        let lock = DirectoryView::new(&wal_dir).map(|view| view.hold());
        let running = matches!(lock, Ok(Err(DirectoryError::InUse(_))));
        let state = match (running, dir.exists()) {
            (true, _) => "a gateway is using it",
            (false, true) => "no gateway is using it",
            (false, false) => "it does not exist yet, the gateway creates it",
        };
        self.good.push(format!(
            "the data directory {shown} can be written; {state}"
        ));
        running
    }

    /// Checks that the address is free, unless a running gateway on this data directory uses it.
    fn address(&mut self, config: &Config, running: bool) {
        let address = config.listen;
        match TcpListener::bind(address) {
            Ok(_) => self.good.push(format!("{address} is free")),
            Err(error) if error.kind() == ErrorKind::AddrInUse && running => {}
            Err(error) => {
                let what = match error.kind() {
                    ErrorKind::AddrInUse => {
                        "another program listens there; stop it, or choose another --listen"
                    }
                    ErrorKind::AddrNotAvailable => {
                        "this machine has no such address; choose another --listen"
                    }
                    ErrorKind::PermissionDenied => {
                        "ports below 1024 need the capability CAP_NET_BIND_SERVICE"
                    }
                    _ => "choose another --listen",
                };
                self.faults
                    .push(format!("cannot listen on {address}: {error}; {what}"));
            }
        }
    }

    /// Checks the server, the user's rights, the schema and the log's binding.
    async fn database(&mut self, config: &Config, target: &Target) {
        let session = match target.connect("wattgate check", Use::Question).await {
            Ok(session) => session,
            Err(error) => return self.refused("cannot reach the database", &error),
        };
        let facts = match facts(session.client()).await {
            Ok(facts) => facts,
            Err(error) => return self.refused("the database does not answer", &error),
        };
        self.faults.extend(facts.faults());
        let schema = match facts.owns_tables {
            Some(_) => "migrated",
            None => "not migrated yet",
        };
        self.good.push(format!(
            "PostgreSQL {} is reachable, {schema}",
            facts.version
        ));
        if let Some(replicas) = &config.replicas {
            for replica in target.try_replicas(replicas).await {
                self.replica(replica);
            }
        }
        if facts.owns_tables != Some(true) {
            return;
        }
        self.questions(target).await;
        let sql = sql!("database_id");
        match session.client().query_opt(sql, &[]).await {
            Ok(Some(row)) => {
                let wal_dir = config.data.wal_dir();
                self.binding(&wal_dir, row.get(0));
                self.gaps(session.client(), &wal_dir, row.get(0)).await;
            }
            // Another gateway is creating the schema.
            Ok(None) => {}
            Err(error) => self.refused("the database's own id cannot be read", &error),
        }
    }

    /// Checks the connection for queries, because a pooler may refuse only that one.
    async fn questions(&mut self, target: &Target) {
        let answer = match target.pool(1) {
            Ok(pool) => questions::ask(&pool).await,
            Err(error) => Err(error.to_string()),
        };
        match answer {
            Ok(()) => self.good.push("queries reach the database".to_owned()),
            Err(why) => self.faults.push(format!(
                "readings reach the database, but queries do not: {why}; check what the server, or \
                 a pooler in front of it, allows in a session"
            )),
        }
    }

    /// Reports a read replica, and a setting that lets replay cancel its queries.
    fn replica(&mut self, TriedReplica { name, feedback }: TriedReplica) {
        match feedback {
            Ok(true) => self.good.push(format!("the replica {name} follows the primary")),
            Ok(false) => self.good.push(format!(
                "the replica {name} follows the primary, but hot_standby_feedback is off there: replay \
                 cancels long queries, or waits for them; set it to on if the primary may keep dead rows for them"
            )),
            Err(why) => self.faults.push(format!("the replica {name} {why}")),
        }
    }

    fn binding(&mut self, wal_dir: &Path, found: Uuid) {
        match Binding::load(wal_dir).map(|binding| binding.bound()) {
            Ok(Some(bound)) if bound != found => self.faults.push(format!(
                "the log in {} belongs to database {bound}, but this is database {found}: readings \
                 would wait in the log; name the right database, or run `wattgate wal adopt` to store \
                 into this one",
                wal_dir.display()
            )),
            Ok(_) => self.good.push("the log and the database belong together".to_owned()),
            Err(error) => self.faults.push(format!("{}: {error}", wal_dir.display())),
        }
    }

    /// Checks that the database still holds the readings that have left the log.
    async fn gaps(&mut self, client: &Client, wal_dir: &Path, database: Uuid) {
        if !wal_dir.is_dir() {
            return;
        }
        match gaps(client, wal_dir, database).await {
            Ok(found) => match not_accepted(wal_dir, &found) {
                0 => {}
                readings => self.faults.push(format!(
                    "{readings} readings that were stored are in neither the database nor the log: the \
                     database was restored to a state from before the start of the log; restore a newer \
                     backup, or let devices send the readings again and run `wattgate wal accept-gap`"
                )),
            },
            Err(error) => self.faults.push(error.to_string()),
        }
    }

    fn refused(&mut self, what: &str, error: &tokio_postgres::Error) {
        let advice = advice(error)
            .map(|advice| format!("; {advice}"))
            .unwrap_or_default();
        self.faults
            .push(format!("{what}: {}{advice}", explain(error)));
    }
}

impl ServerFacts {
    fn faults(&self) -> Vec<String> {
        let ServerFacts {
            version,
            encoding,
            user,
            database,
            ..
        } = self;
        let mut faults = Vec::new();
        if self.version_number < SERVER_VERSION_MIN {
            faults.push(format!(
                "PostgreSQL {version} is too old: the gateway needs 15 or newer"
            ));
        }
        if encoding != "UTF8" {
            faults.push(format!(
                "the database {database} is encoded in {encoding}: create it again with encoding UTF8"
            ));
        }
        if self.is_standby {
            faults.push(format!(
                "{database} is a standby: name the primary in DATABASE_URL"
            ));
        }
        match self.owns_tables {
            Some(false) => faults.push(format!(
                "{user} does not own the tables in {database}, and so cannot create partitions: use the \
                 user that migrated them, or run `reassign owned`"
            )),
            None if !self.may_create => faults.push(format!(
                "{user} may not create tables in {database}: `alter database {database} owner to {user}`, or \
                 grant create on its schema"
            )),
            _ => {}
        }
        faults
    }
}

async fn facts(client: &Client) -> Result<ServerFacts, tokio_postgres::Error> {
    let row = client.query_one(sql!("check_server"), &[]).await?;
    Ok(ServerFacts {
        version_number: row.try_get(0)?,
        version: row.try_get(1)?,
        encoding: row.try_get(2)?,
        user: row.try_get(3)?,
        database: row.try_get(4)?,
        is_standby: row.try_get(5)?,
        may_create: row.try_get(6)?,
        owns_tables: row.try_get(7)?,
    })
}

/// Writes a file into a directory, or into the nearest existing one above it, and removes it.
fn probe(dir: &Path) -> std::io::Result<()> {
    let mut at = dir;
    loop {
        match fs::metadata(at) {
            Ok(found) if found.is_dir() => break,
            Ok(_) => return Err(ErrorKind::NotADirectory.into()),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Err(error) => match at.parent() {
                Some(above) if above.as_os_str().is_empty() => at = Path::new("."),
                Some(above) => at = above,
                None => return Err(error),
            },
        }
    }
    let file = at.join(format!(".wattgate-check-{}", std::process::id()));
    fs::write(&file, b"")?;
    fs::remove_file(&file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unusable_server_is_reported_with_what_to_do() {
        let good = ServerFacts {
            version_number: 150_018,
            version: "15.18".to_owned(),
            encoding: "UTF8".to_owned(),
            user: "wattgate".to_owned(),
            database: "fleet".to_owned(),
            is_standby: false,
            may_create: true,
            owns_tables: None,
        };
        assert!(good.faults().is_empty());
        let owner = ServerFacts {
            may_create: false,
            owns_tables: Some(true),
            ..good.clone()
        };
        assert!(owner.faults().is_empty());
        let bad = ServerFacts {
            version_number: 140_022,
            version: "14.22".to_owned(),
            encoding: "SQL_ASCII".to_owned(),
            is_standby: true,
            owns_tables: Some(false),
            ..good
        };
        let faults = bad.faults().join("\n");
        for part in [
            "14.22 is too old",
            "SQL_ASCII",
            "standby",
            "does not own the tables",
        ] {
            assert!(faults.contains(part), "{faults}");
        }
    }

    #[test]
    fn a_missing_directory_is_judged_by_its_parent() {
        let dir = tempfile::tempdir().unwrap();
        probe(&dir.path().join("a/b")).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        assert!(probe(&file).is_err());
        assert!(probe(&file.join("below")).is_err());
    }
}
