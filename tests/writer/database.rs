//! One PostgreSQL server for all tests, with a database for each.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, OnceCell};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};
use wattgate::postgres::Target;
use wattgate::postgres::embedded::{self, Connection, EmbeddedConfig};
use wattgate::postgres::migrations::{DatabaseSettings, HistoryOptions, migrate};

use crate::support::{Gateway, LIMIT, OPTIONS};

/// The only server of this program. It runs on its own thread, because each test's runtime ends with the test. Its
/// cluster stays in the build directory for the next run.
async fn server() -> &'static Connection {
    static SERVER: OnceCell<Connection> = OnceCell::const_new();
    let start = || async {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("writer");
                let server = embedded::start(EmbeddedConfig::new(dir)).await.unwrap();
                sender.send(server.connection().clone()).unwrap();
                // The watcher stops the server when this process ends.
                std::future::pending::<()>().await;
            });
        });
        receiver.await.unwrap()
    };
    SERVER.get_or_init(start).await
}

/// Connects. A cluster that was left in the middle of its work recovers first.
async fn connect(connection: &Connection) -> Client {
    let begun = Instant::now();
    loop {
        match connection.config().connect(NoTls).await {
            Ok((client, driver)) => {
                tokio::spawn(driver);
                return client;
            }
            Err(e)
                if e.code() == Some(&SqlState::CANNOT_CONNECT_NOW) && begun.elapsed() < LIMIT =>
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(e) => panic!("{e:?}"),
        }
    }
}

/// A test's own migrated database.
pub(crate) struct Database {
    connection: Connection,
    pub(crate) target: Target,
    pub(crate) settings: DatabaseSettings,
    /// The test's own session.
    pub(crate) sql: Client,
}

impl Database {
    pub(crate) async fn new() -> Self {
        Database::with(HistoryOptions::default()).await
    }

    pub(crate) async fn with(history: HistoryOptions) -> Self {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let server = server().await;
        let name = format!("t{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        {
            let _one = ONE_AT_A_TIME.lock().await;
            let sql = connect(server).await;
            let drop = format!("drop database if exists {name} with (force)");
            sql.batch_execute(&drop).await.unwrap();
            sql.batch_execute(&format!("create database {name}"))
                .await
                .unwrap();
        }
        let connection = server.with_database(&name);
        let sql = connect(&connection).await;
        let settings = migrate(&sql, history).await.unwrap();
        Database {
            target: target(&connection, &connection.socket_dir),
            connection,
            settings,
            sql,
        }
    }

    /// A gateway with a new log whose writers store in this database.
    pub(crate) fn gateway(&self, shards: u16) -> Gateway {
        let mut gateway = Gateway::fresh(shards);
        gateway.write(self, OPTIONS);
        gateway
    }

    /// This database, through another socket.
    pub(crate) fn through(&self, socket_dir: &Path) -> Target {
        target(&self.connection, socket_dir)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.connection.socket_dir.join(".s.PGSQL.5432")
    }

    /// A libpq connection string for a command line.
    pub(crate) fn url(&self) -> String {
        let Connection {
            socket_dir,
            user,
            database,
            ..
        } = &self.connection;
        format!(
            "host={} user={user} dbname={database}",
            socket_dir.display()
        )
    }

    pub(crate) async fn run(&self, sql: &str) {
        self.sql.batch_execute(sql).await.unwrap();
    }

    /// The number that a query returns.
    pub(crate) async fn count(&self, sql: &str) -> i64 {
        let sql = format!("select ({sql})::bigint");
        self.sql
            .query_one(&sql, &[])
            .await
            .unwrap()
            .get::<_, Option<i64>>(0)
            .unwrap_or(0)
    }

    pub(crate) async fn text(&self, sql: &str) -> String {
        let sql = format!("select ({sql})::text");
        self.sql
            .query_one(&sql, &[])
            .await
            .unwrap()
            .get::<_, Option<String>>(0)
            .unwrap_or_default()
    }

    /// The number of rows in history, both streams together.
    pub(crate) async fn rows(&self) -> i64 {
        self.count(
            "(select count(*) from meter_readings) + (select count(*) from vehicle_readings)",
        )
        .await
    }

    /// Stored, duplicates and quarantined, as counted in the checkpoints, both streams together.
    pub(crate) async fn sums(&self) -> [i64; 3] {
        let sum =
            |what: &str| format!("select sum(meter_{what} + vehicle_{what}) from wal_checkpoints");
        [
            self.count(&sum("stored")).await,
            self.count(&sum("duplicates")).await,
            self.count(&sum("quarantined")).await,
        ]
    }

    /// From now on, records a value of each row inserted into `table` in the table `inserted` (place, value).
    pub(crate) async fn watch_inserts(&self, table: &str, value: &str) {
        self.run(&format!(
            "create table inserted (place serial, value text);
             create function record_insert() returns trigger language plpgsql as $$
             begin
                 insert into inserted (value) values ({value});
                 return new;
             end $$;
             create trigger record_insert before insert on {table}
             for each row execute function record_insert()"
        ))
        .await;
    }

    /// How many writer sessions are waiting for this event, or for any event of this type.
    pub(crate) async fn waiting(&self, event: &str) -> i64 {
        self.count(&format!(
            "select count(*) from pg_stat_activity where datname = current_database()
             and application_name like 'wattgate writer%'
             and '{event}' in (wait_event_type, wait_event)"
        ))
        .await
    }

    /// Opens another session to this database.
    pub(crate) async fn session(&self) -> Client {
        connect(&self.connection).await
    }

    /// Opens a session to another database on the same server.
    pub(crate) async fn session_to(&self, name: &str) -> Client {
        connect(&self.connection.with_database(name)).await
    }

    /// Terminates the writers' sessions, as a failing server would.
    pub(crate) async fn end_sessions(&self) -> i64 {
        self.count(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity
             where datname = current_database() and application_name like 'wattgate writer%'",
        )
        .await
    }
}

fn target(connection: &Connection, socket_dir: &Path) -> Target {
    let Connection {
        port,
        user,
        database,
        ..
    } = connection;
    Target::from_socket(socket_dir, *port, user, database).unwrap()
}
