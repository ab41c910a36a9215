//! Whether the gateway runs, and whether it is ready.
//!
//! The parts set their state here, and `/health/ready` reports it. The state of the log (whether it has failed,
//! and the readings that wait) is read from its progress for each report.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use serde::Serialize;

use crate::postgres::ServersReport;
use crate::wal::progress::Progress;

/// How long a reading may wait in the log before the gateway is not ready. Why 120 s: a batch is given up after
/// two minutes. If a reading waits longer, its writer is stuck, or readings arrive faster than the writers can
/// store them.
const WAITS_MAX: Duration = Duration::from_secs(120);

/// The state of the database as seen by the writers or by queries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DatabaseState {
    /// No attempt yet.
    #[default]
    Unknown,
    /// Connected.
    Up,
    /// Unreachable, for this reason, which contains no secrets.
    Down(String),
}

/// The state of the schema's migrations.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum MigrationState {
    /// Not applied yet.
    #[default]
    Pending,
    /// Applied.
    Done,
    /// Failed, with the reason.
    Failed(String),
}

#[derive(Debug, Clone, Default)]
struct Parts {
    database: DatabaseState,
    questions: DatabaseState,
    migrations: MigrationState,
    oldest: Option<Duration>,
    gap_readings: u64,
    servers: ServersReport,
    demo: bool,
    stopping: bool,
}

/// The state of every part. It is shared, and cheap to read and set.
#[derive(Debug, Default)]
pub struct Health {
    parts: RwLock<Parts>,
}

impl Health {
    /// Sets the database's state for the writers.
    pub fn set_database(&self, state: DatabaseState) {
        self.change(|parts| parts.database = state);
    }

    /// Sets the database's state for queries, which have their own sessions.
    pub fn set_questions(&self, state: DatabaseState) {
        self.change(|parts| parts.questions = state);
    }

    /// Sets the migrations' state.
    pub fn set_migrations(&self, state: MigrationState) {
        self.change(|parts| parts.migrations = state);
    }

    /// Sets how long the oldest reading in the log has waited. `None` means that no reading waits.
    pub fn set_oldest(&self, waited: Option<Duration>) {
        self.change(|parts| parts.oldest = waited);
    }

    /// Sets the number of readings that neither the database nor the log holds any more; 0 once an operator has
    /// accepted them.
    pub fn set_gap(&self, readings: u64) {
        self.change(|parts| parts.gap_readings = readings);
    }

    /// Sets the state of the database's servers.
    pub fn set_servers(&self, servers: ServersReport) {
        self.change(|parts| parts.servers = servers);
    }

    /// Records that the readings are those of the demo.
    pub fn set_demo(&self) {
        self.change(|parts| parts.demo = true);
    }

    /// The last value of [`Health::set_gap`].
    pub fn gap_readings(&self) -> u64 {
        self.parts().gap_readings
    }

    /// Records that the gateway is stopping, so that load balancers send no more requests.
    pub fn set_stopping(&self) {
        self.change(|parts| parts.stopping = true);
    }

    /// Whether every writer reaches the database.
    pub fn is_database_up(&self) -> bool {
        self.parts().database == DatabaseState::Up
    }

    /// The state of all parts at this moment.
    pub fn report(&self, progress: &Progress) -> Report {
        let parts = self.parts().clone();
        let wal = match progress.watch_failed().borrow().clone() {
            None => Part::new("ok", None),
            failed => Part::new("failed", failed),
        };
        let database = Part::from(parts.database);
        let questions = Part::from(parts.questions);
        let migrations = Part::from(parts.migrations);
        let lag_reason = parts.oldest.and_then(lag_reason);
        let ready = !parts.stopping
            && wal.status == "ok"
            && database.status == "up"
            && questions.status == "up"
            && migrations.status == "done"
            && parts.gap_readings == 0
            && lag_reason.is_none();
        Report {
            status: match (parts.stopping, ready) {
                (true, _) => "stopping",
                (false, true) => "ready",
                (false, false) => "unready",
            },
            wal,
            database,
            questions,
            migrations,
            lag: Lag {
                reason: lag_reason,
                readings: progress.snapshot().waiting(),
                oldest_seconds: parts.oldest.map_or(0.0, |waited| waited.as_secs_f64()),
            },
            gap: Gap {
                readings: parts.gap_readings,
            },
            servers: Servers::from(parts.servers),
            demo: parts.demo.then_some(true),
        }
    }

    fn parts(&self) -> RwLockReadGuard<'_, Parts> {
        self.parts.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Parts)) {
        change(&mut self.parts.write().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The state of all parts, as `/health/ready` returns it.
#[derive(Debug, Serialize)]
pub struct Report {
    status: &'static str,
    wal: Part,
    database: Part,
    questions: Part,
    migrations: Part,
    lag: Lag,
    gap: Gap,
    servers: Servers,
    #[serde(skip_serializing_if = "Option::is_none")]
    demo: Option<bool>,
}

impl Report {
    /// Whether the gateway is ready: it accepts readings, and they reach the database.
    pub fn is_ready(&self) -> bool {
        self.status == "ready"
    }

    /// The state and the reasons for not being ready, in one line.
    pub fn in_a_line(&self) -> String {
        let part = |name: &str, part: &Part| {
            let reason = part.reason.as_ref()?;
            Some(format!("{name} {}: {reason}", part.status))
        };
        let parts = [
            part("log", &self.wal),
            part("database", &self.database),
            part("queries", &self.questions),
            part("schema", &self.migrations),
            self.lag.reason.clone(),
        ];
        let reasons: Vec<String> = parts.into_iter().flatten().collect();
        let line = match reasons.is_empty() {
            true => self.status.to_owned(),
            false => format!("{}; {}", self.status, reasons.join("; ")),
        };
        line.replace(['\n', '\r'], " ")
    }
}

#[derive(Debug, Serialize)]
struct Part {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Part {
    fn new(status: &'static str, reason: Option<String>) -> Self {
        Part { status, reason }
    }
}

impl From<DatabaseState> for Part {
    fn from(state: DatabaseState) -> Self {
        match state {
            DatabaseState::Unknown => Part::new("unknown", None),
            DatabaseState::Up => Part::new("up", None),
            DatabaseState::Down(reason) => Part::new("down", Some(reason)),
        }
    }
}

impl From<MigrationState> for Part {
    fn from(state: MigrationState) -> Self {
        match state {
            MigrationState::Pending => Part::new("pending", None),
            MigrationState::Done => Part::new("done", None),
            MigrationState::Failed(reason) => Part::new("failed", Some(reason)),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Lag {
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    readings: u64,
    oldest_seconds: f64,
}

/// Why a reading that waits this long makes the gateway unready. `None` means that it does not.
fn lag_reason(waited: Duration) -> Option<String> {
    let (waited, most) = (waited.as_secs(), WAITS_MAX.as_secs());
    (waited > most).then(|| {
        format!(
            "the oldest reading in the log has waited for {waited} s, more than {most}: a writer \
             is stuck, or the database does not keep up; see wattgate_batch_retries_total"
        )
    })
}

#[derive(Debug, Serialize)]
struct Gap {
    readings: u64,
}

/// The database's servers. A refused old primary harms no readings, so it does not make the gateway unready.
#[derive(Debug, Serialize)]
struct Servers {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeline: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl From<ServersReport> for Servers {
    fn from(report: ServersReport) -> Self {
        let refused = !report.refused.is_empty();
        Servers {
            status: if refused { "refused" } else { "ok" },
            timeline: report.timeline,
            reason: refused.then(|| report.refused.join("; ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_needs_every_part() {
        let progress = Progress::new(1, 2);
        let health = Health::default();
        let ready = |health: &Health| health.report(&progress).is_ready();
        assert!(!ready(&health));
        health.set_database(DatabaseState::Up);
        assert!(!ready(&health));
        health.set_migrations(MigrationState::Done);
        assert!(!ready(&health));
        health.set_questions(DatabaseState::Up);
        assert!(ready(&health));
        health.set_questions(DatabaseState::Down("refused".to_owned()));
        assert!(!ready(&health));
        health.set_questions(DatabaseState::Up);
        health.set_gap(1);
        assert!(!ready(&health));
        health.set_gap(0);
        health.set_database(DatabaseState::Down("connection refused".to_owned()));
        assert!(!ready(&health));
        health.set_database(DatabaseState::Up);
        health.set_oldest(Some(WAITS_MAX));
        assert!(ready(&health));
        health.set_oldest(Some(WAITS_MAX + Duration::from_secs(1)));
        let report = health.report(&progress);
        assert!(!report.is_ready());
        assert!(report.lag.reason.is_some_and(|why| why.contains("121 s")));
        health.set_oldest(None);
        assert!(ready(&health));
        progress.fail("disk".to_owned());
        assert!(!ready(&health));
    }

    #[test]
    fn a_stopping_gateway_is_not_ready() {
        let progress = Progress::new(1, 1);
        let health = Health::default();
        health.set_database(DatabaseState::Up);
        health.set_questions(DatabaseState::Up);
        health.set_migrations(MigrationState::Done);
        health.set_stopping();
        let report = health.report(&progress);
        assert!(!report.is_ready());
        assert_eq!(report.status, "stopping");
    }
}
