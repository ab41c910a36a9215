//! A primary and its standby, promoted in turn under load. The old primary crashes, keeps running, or comes back.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::check;
use super::gateway::{DataDir, Database, Setup};
use super::load::Manner;
use super::plain::Plain;
use super::random::Random;
use super::{CampaignError, DRAIN_WITHIN, Load, Options, Outcome};

/// This many requests prove that the gateway stores on the server in use.
const SOME: u64 = 40;
/// How often a condition is checked.
const EVERY: Duration = Duration::from_millis(20);
/// How long a condition may take.
const WITHIN: Duration = Duration::from_secs(180);

/// What happens to the old primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Old {
    /// It keeps running while its standby is promoted.
    Serves,
    /// It crashes before the promotion, and comes back after it.
    Returns,
    /// It crashes before the promotion, and stays away.
    StaysAway,
}

/// What has happened so far.
#[derive(Debug, Default)]
struct Happened {
    serves: u32,
    returns: u32,
    stays_away: u32,
    synchronous: u32,
    /// Rows that an old primary received after its successor was seen.
    rows_on_losers: i64,
}

pub(super) async fn failover(
    options: &Options,
    dir: &DataDir,
    random: &mut Random,
    seed: u64,
) -> Outcome {
    let bin = match &options.server_defaults {
        Some(bin) => bin.clone(),
        None => newest_programs()?,
    };
    let dirs = [dir.beside("one")?, dir.beside("other")?];
    let primary = Plain::start(&bin, &dirs[0]).await?;
    // A standby that was just copied must find the WAL from that point on. It inherits the setting, too.
    set(&primary.database(), "wal_keep_size", "4GB").await?;
    let standby = Plain::standby(&bin, &dirs[1], &primary).await?;
    let hosts = both(&primary.database(), &standby.database());
    let mut pair = Pair {
        servers: [primary, standby],
        primary: 0,
        timeline: 1,
    };
    let mut gateway = Setup::new(&options.gateway, dir).on(&hosts).start().await?;
    let load = Load::start(options, &Manner::mixed(gateway.address()), seed);
    let mut happened = Happened::default();
    let mut cases = Vec::new();
    for _ in 0..options.rounds {
        load.goes_on(SOME).await?;
        pair.streams().await?;
        if cases.is_empty() {
            cases = all_cases(random);
        }
        let Some((old, is_synchronous)) = cases.pop() else {
            break;
        };
        if is_synchronous {
            pair.commit_on_both().await?;
            happened.synchronous += 1;
        }
        tokio::time::sleep(random.millis(0, 500)).await;
        pair.promote(old, is_synchronous, gateway.address(), &load, &mut happened)
            .await?;
        // The loser is rebuilt, so that its own changes are gone.
        pair.rebuild(&bin, &dirs).await?;
    }
    load.goes_on(SOME).await?;
    let ledgers = load.stop().await;
    let mut comparison = check::compare(&pair.in_use(), ledgers, DRAIN_WITHIN).await?;
    comparison.expect(
        happened.rows_on_losers == 0,
        "no reading stored on an old primary after its successor was seen",
    );
    gateway.terminate().await?;
    for server in &mut pair.servers {
        server.crash().await?;
    }
    dirs.iter().for_each(DataDir::remove);
    let Happened {
        serves,
        returns,
        stays_away,
        synchronous,
        rows_on_losers,
    } = happened;
    Ok((
        comparison,
        format!(
            "{} promotions, {synchronous} synchronous; the old primary kept running {serves} times, came \
             back {returns} times, stayed away {stays_away} times, and got {rows_on_losers} rows after \
             its successor was seen",
            options.rounds
        ),
    ))
}

/// The primary and its standby.
struct Pair {
    servers: [Plain; 2],
    primary: usize,
    timeline: u32,
}

impl Pair {
    fn in_use(&self) -> Database {
        self.servers[self.primary].database()
    }

    fn other(&self) -> Database {
        self.servers[1 - self.primary].database()
    }

    /// Waits until the standby streams from the primary.
    async fn streams(&self) -> Result<(), CampaignError> {
        let sql = "select count(*) from pg_stat_replication where state = 'streaming'";
        until("the standby does not stream", || async {
            number(&self.in_use(), sql).await.is_ok_and(|n| n == 1)
        })
        .await
    }

    async fn commit_on_both(&self) -> Result<(), CampaignError> {
        set(&self.in_use(), "synchronous_standby_names", "*").await?;
        let sql = "select count(*) from pg_stat_replication where sync_state = 'sync'";
        until("the standby is not synchronous", || async {
            number(&self.in_use(), sql).await.is_ok_and(|n| n == 1)
        })
        .await
    }

    /// Promotes the standby, and checks that the gateway stores there and nowhere else.
    async fn promote(
        &mut self,
        old: Old,
        is_synchronous: bool,
        gateway: &str,
        load: &Load,
        happened: &mut Happened,
    ) -> Result<(), CampaignError> {
        let loser = self.primary;
        if old != Old::Serves {
            self.servers[loser].crash().await?;
        }
        let new = self.other();
        // Does not wait here: the last of the replay may cancel a waiting statement.
        new.run("select pg_promote(false)").await?;
        let leads = "select case when pg_is_in_recovery() then 0::bigint else 1 end";
        until("the standby is not promoted", || async {
            number(&new, leads).await.is_ok_and(|n| n == 1)
        })
        .await?;
        // A standby copied from a synchronous primary would wait for its own standby.
        set(&new, "synchronous_standby_names", "").await?;
        self.primary = 1 - self.primary;
        self.timeline += 1;
        if old == Old::Returns {
            self.servers[loser].again().await?;
        }
        until("the gateway does not follow the promotion", || async {
            timeline(gateway).await == Some(self.timeline)
        })
        .await?;
        if old == Old::StaysAway {
            happened.stays_away += 1;
            return load.goes_on(SOME).await;
        }
        let loser = self.servers[loser].database();
        if is_synchronous {
            // A COMMIT that waits for its standby would show no rows and never end.
            set(&loser, "synchronous_standby_names", "").await?;
        }
        // A COMMIT that was already sent may still arrive.
        let writers = include_str!("../../sql/writers.sql");
        until("sessions on the old primary do not end", || async {
            let Ok(client) = loser.connect().await else {
                return false;
            };
            client
                .query(writers, &[])
                .await
                .is_ok_and(|found| found.is_empty())
        })
        .await?;
        let rows = "select (select count(*) from meter_telemetry_history)
            + (select count(*) from vehicle_telemetry_history)";
        let before = number(&loser, rows).await?;
        load.goes_on(SOME).await?;
        happened.rows_on_losers += number(&loser, rows).await? - before;
        match old {
            Old::Serves => happened.serves += 1,
            _ => happened.returns += 1,
        }
        Ok(())
    }

    /// Makes the loser a standby of the new primary.
    async fn rebuild(&mut self, bin: &Path, dirs: &[DataDir; 2]) -> Result<(), CampaignError> {
        let loser = 1 - self.primary;
        self.servers[loser].crash().await?;
        let standby = Plain::standby(bin, &dirs[loser], &self.servers[self.primary]).await?;
        self.servers[loser] = standby;
        Ok(())
    }
}

/// Each fate of the old primary, with and without synchronous replication, in random order. One of the first three
/// is asynchronous with a running old primary, because that case reveals the most.
fn all_cases(random: &mut Random) -> Vec<(Old, bool)> {
    let mut cases = Vec::new();
    for old in [Old::Serves, Old::Returns, Old::StaysAway] {
        cases.extend([(old, false), (old, true)]);
    }
    for at in (1..cases.len()).rev() {
        cases.swap(at, random.below(at as u64 + 1) as usize);
    }
    let shows = |(old, is_synchronous): &(Old, bool)| *old != Old::StaysAway && !is_synchronous;
    // Cases are taken from the end.
    let (first, last) = (cases.len() - 3, cases.len() - 1);
    if !cases[first..].iter().any(shows)
        && let Some(at) = cases.iter().position(shows)
    {
        cases.swap(at, last);
    }
    cases
}

/// One connection string with both servers.
fn both(one: &Database, other: &Database) -> Database {
    let (one_dir, other_dir) = (one.socket_dir.display(), other.socket_dir.display());
    Database {
        socket_dir: PathBuf::from(format!("{one_dir},{other_dir}")),
        ..one.clone()
    }
}

async fn set(database: &Database, name: &str, value: &str) -> Result<(), CampaignError> {
    let client = database.connect().await?;
    // Sent alone, because ALTER SYSTEM cannot run in a transaction block.
    let sql = format!("alter system set {name} = '{value}'");
    client.batch_execute(&sql).await?;
    client.batch_execute("select pg_reload_conf()").await?;
    Ok(())
}

async fn number(database: &Database, sql: &str) -> Result<i64, CampaignError> {
    let client = database.connect().await?;
    Ok(client.query_one(sql, &[]).await?.get(0))
}

/// The timeline of the server that the gateway uses.
async fn timeline(gateway: &str) -> Option<u32> {
    let mut socket = TcpStream::connect(gateway).await.ok()?;
    let request = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    socket.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.ok()?;
    let line = "wattgate_database_timeline ";
    let value = answer.lines().find_map(|text| text.strip_prefix(line))?;
    value.trim().parse().ok()
}

async fn until<F: Future<Output = bool> + Send>(
    what: &'static str,
    condition: impl Fn() -> F + Send + Sync,
) -> Result<(), CampaignError> {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(EVERY).await;
        }
    };
    let waited = tokio::time::timeout(WITHIN, waiting).await;
    waited.map_err(|_| CampaignError::Stuck(what))
}

/// The directory of the newest installed server's programs.
fn newest_programs() -> Result<PathBuf, CampaignError> {
    let mut newest = None;
    for entry in std::fs::read_dir("/usr/lib/postgresql")? {
        let entry = entry?;
        let version = entry.file_name().to_string_lossy().parse::<u32>();
        newest = newest.max(version.ok().map(|version| (version, entry.path())));
    }
    let none = "no server in /usr/lib/postgresql: name its programs with --server-defaults";
    let (_, path) = newest.ok_or_else(|| CampaignError::Start(none.to_owned()))?;
    Ok(path.join("bin"))
}
