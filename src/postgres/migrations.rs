//! Brings the schema up to date, under an advisory lock, so that several gateways can start at once on
//! one database.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};
use uuid::Uuid;

use super::read_pool::note_migrated;
use super::{PartitionWidth, explain, sequences};

/// The key of the advisory lock: "wattgate" as a number.
const LOCK_KEY: i64 = i64::from_be_bytes(*b"wattgate");

/// How long a migration waits for a lock at a time. Why so short: while it waits for a reader that holds a table, every
/// gateway that uses the table waits behind it.
const LOCK_WAIT: &str = "set local lock_timeout = '500ms'";
/// How long a migration leaves the tables to the gateways before it tries again.
const LOCK_AGAIN: Duration = Duration::from_secs(1);
/// How long a migration tries in total.
const LOCKS_WITHIN: Duration = Duration::from_secs(55 * 60);

struct Migration {
    version: i32,
    name: &'static str,
    sql: &'static str,
}

const MIGRATIONS: [Migration; 8] = [
    Migration {
        version: 1,
        name: "schema",
        sql: include_str!("../../sql/migrations/0001_schema.sql"),
    },
    Migration {
        version: 2,
        name: "alerts",
        sql: include_str!("../../sql/migrations/0002_alerts.sql"),
    },
    Migration {
        version: 3,
        name: "hours",
        sql: include_str!("../../sql/migrations/0003_hours.sql"),
    },
    Migration {
        version: 4,
        name: "hours_by_device",
        sql: include_str!("../../sql/migrations/0004_hours_by_device.sql"),
    },
    Migration {
        version: 5,
        name: "sessions_started",
        sql: include_str!("../../sql/migrations/0005_sessions_started.sql"),
    },
    Migration {
        version: 6,
        name: "dirty_passes",
        sql: include_str!("../../sql/migrations/0006_dirty_passes.sql"),
    },
    Migration {
        version: 7,
        name: "hours_slices",
        sql: include_str!("../../sql/migrations/0007_hours_slices.sql"),
    },
    Migration {
        version: 8,
        name: "alert_operators",
        sql: include_str!("../../sql/migrations/0008_alert_operators.sql"),
    },
];

/// The oldest PostgreSQL that the gateway works with.
pub const SERVER_VERSION_MIN: i32 = 150_000;

/// Why a database cannot be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// The database refuses, or cannot be reached.
    #[error("{}", explain(.0))]
    Database(#[from] Error),
    /// The database accepts connections but does not answer.
    #[error("the database accepts connections but does not respond")]
    Silent,
    /// The server is too old.
    #[error("PostgreSQL {0} is too old: 15 or newer is needed")]
    ServerTooOld(String),
    /// The encoding of the database cannot represent every id.
    #[error("the database's encoding is {0} but must be UTF8: create it with encoding 'UTF8'")]
    Encoding(String),
    /// The schema was made by a newer program.
    #[error(
        "the database has schema version {found}, but this program knows {known}: upgrade the \
         program"
    )]
    SchemaTooNew {
        /// What the database has.
        found: i32,
        /// The newest that this program knows.
        known: i32,
    },
}

/// The settings stored in a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatabaseSettings {
    /// A random id, made with the schema; the log is bound to it.
    pub database_id: Uuid,
    /// The width of new partitions.
    pub partition: PartitionWidth,
    /// How long history is kept; `None` means forever.
    pub retention: Option<Duration>,
}

/// How history is kept. Values that are set here replace those in the database.
#[derive(Debug, Clone, Copy, Default)]
pub struct HistoryOptions {
    /// The width of new partitions. `None` keeps the stored width, which is initially a month.
    pub partition: Option<PartitionWidth>,
    /// How long history is kept. `None` keeps the stored retention, which is initially forever.
    pub retention: Option<Duration>,
}

/// Applies the missing migrations, stores the options, and returns the settings of the database.
///
/// Blocks: while another gateway migrates, and up to an hour while another session holds a table
/// Cancel: safe; a migration is one transaction
///
/// # Errors
/// [`MigrationError`]: no migration is left half applied.
pub async fn migrate(
    client: &Client,
    history: HistoryOptions,
) -> Result<DatabaseSettings, MigrationError> {
    let row = client
        .query_one(
            "select current_setting('server_version_num')::int, current_setting('server_version'),
                 current_setting('server_encoding')",
            &[],
        )
        .await?;
    if row.get::<_, i32>(0) < SERVER_VERSION_MIN {
        return Err(MigrationError::ServerTooOld(row.get(1)));
    }
    // A single id that cannot be stored would block its whole shard forever.
    if row.get::<_, &str>(2) != "UTF8" {
        return Err(MigrationError::Encoding(row.get(2)));
    }
    // `if not exists` would log a notice for each existing table.
    client
        .batch_execute("set client_min_messages = warning")
        .await?;
    client
        .execute("select pg_advisory_lock($1)", &[&LOCK_KEY])
        .await?;
    let result = migrate_locked(client, history).await;
    // If this fails, the session has ended and has released the lock.
    drop(
        client
            .execute("select pg_advisory_unlock($1)", &[&LOCK_KEY])
            .await,
    );
    result
}

async fn migrate_locked(
    client: &Client,
    history: HistoryOptions,
) -> Result<DatabaseSettings, MigrationError> {
    client
        .batch_execute(
            "create table if not exists schema_migrations (
                 version integer primary key,
                 name text not null,
                 applied_at timestamptz not null default now()
             )",
        )
        .await?;
    let sql = "select coalesce(max(version), 0) from schema_migrations";
    let found: i32 = client.query_one(sql, &[]).await?.get(0);
    let known = MIGRATIONS.last().map_or(0, |m| m.version);
    if found > known {
        return Err(MigrationError::SchemaTooNew { found, known });
    }
    for migration in MIGRATIONS.iter().filter(|m| m.version > found) {
        apply_once_free(client, migration).await?;
        let Migration { version, name, .. } = migration;
        tracing::info!(version, name, "applied a migration of the database");
    }
    note_migrated();
    sequences::repair(client).await?;
    settle(client, history).await
}

/// Applies a migration as soon as no other session holds its tables.
async fn apply_once_free(client: &Client, migration: &Migration) -> Result<(), Error> {
    let began = Instant::now();
    let mut is_logged = false;
    loop {
        match apply(client, migration).await {
            Err(error)
                if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
                    && began.elapsed() < LOCKS_WITHIN =>
            {
                if !std::mem::replace(&mut is_logged, true) {
                    let Migration { version, name, .. } = migration;
                    tracing::warn!(
                        version,
                        name,
                        "a migration waits for other sessions that use its tables; trying again"
                    );
                }
                tokio::time::sleep(LOCK_AGAIN).await;
            }
            result => return result,
        }
    }
}

async fn apply(client: &Client, migration: &Migration) -> Result<(), Error> {
    client.batch_execute("begin").await?;
    let result = async {
        client.batch_execute(LOCK_WAIT).await?;
        for statement in statements(migration.sql) {
            client.batch_execute(statement).await?;
        }
        let sql = "insert into schema_migrations (version, name) values ($1, $2)";
        client
            .execute(sql, &[&migration.version, &migration.name])
            .await?;
        client.batch_execute("commit").await
    }
    .await;
    if result.is_err() {
        drop(client.batch_execute("rollback").await);
    }
    result
}

/// Splits a migration into statements, each of which ends with a semicolon at the end of a line. They are
/// sent one by one, because a coordinator of distributed tables accepts one DDL statement at a time.
fn statements(sql: &str) -> impl Iterator<Item = &str> {
    sql.split_inclusive(";\n")
        .map(str::trim)
        .filter(|statement| {
            statement
                .lines()
                .any(|line| !line.trim().is_empty() && !line.trim().starts_with("--"))
        })
}

async fn settle(
    client: &Client,
    history: HistoryOptions,
) -> Result<DatabaseSettings, MigrationError> {
    let width = history.partition.map(width_name);
    let retention = history.retention.map(|r| r.as_secs() as i64);
    client
        .execute(
            "insert into gateway_database (partition_width, retention_seconds)
             values (coalesce($1, 'month'), $2) on conflict do nothing",
            &[&width, &retention],
        )
        .await?;
    let row = client
        .query_one(
            "update gateway_database
             set partition_width = coalesce($1, partition_width),
                 retention_seconds = coalesce($2, retention_seconds)
             returning database_id, partition_width, retention_seconds",
            &[&width, &retention],
        )
        .await?;
    let partition = width_of(row.get(1));
    Ok(DatabaseSettings {
        database_id: row.get(0),
        partition,
        retention: span(row.get(2)),
    })
}

/// Reads how long history is kept. `None` means forever.
///
/// # Errors
/// PostgreSQL's errors.
pub async fn stored_retention(client: &Client) -> Result<Option<Duration>, Error> {
    let sql = "select retention_seconds from gateway_database";
    let row = client.query_opt(sql, &[]).await?;
    Ok(span(row.and_then(|row| row.get(0))))
}

/// A stored number of seconds.
fn span(seconds: Option<i64>) -> Option<Duration> {
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
    seconds.map(Duration::from_secs)
}

/// Reads the stored name of a width.
pub fn width_of(name: &str) -> PartitionWidth {
    if name == "day" {
        PartitionWidth::Day
    } else {
        PartitionWidth::Month
    }
}

fn width_name(width: PartitionWidth) -> &'static str {
    match width {
        PartitionWidth::Month => "month",
        PartitionWidth::Day => "day",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_is_cut_into_its_statements() {
        let sql = "-- a comment\ncreate table a (\n  b text default ';'\n);\n\n-- end\n";
        let split: Vec<&str> = statements(sql).collect();
        assert_eq!(
            split,
            ["-- a comment\ncreate table a (\n  b text default ';'\n);"]
        );
        assert!(statements(MIGRATIONS[0].sql).count() > 10);
    }

    #[test]
    fn versions_grow_by_one() {
        for (at, migration) in (1..).zip(&MIGRATIONS) {
            assert_eq!(migration.version, at);
        }
    }
}
